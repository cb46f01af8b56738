#!/bin/sh
# The demo's story, run by scripts/demo as root in a guest, which plays the operator's machine, the hub and the node.
# Every step says what it does, checks that it happened, and ends the demo with the logs if it did not.
set -u
exec 2>&1
mkdir /demo/work && cd /demo/work || exit

# The operator's variables, as `hzn` reads them.
export HZN_ORG_ID=demo HZN_EXCHANGE_USER_AUTH=operator:operator-password HZN_FSS_CSSURL=http://127.0.0.1:8580
# The node's, as Horizon gives them to a service.
export HZN_ORGANIZATION=demo HZN_NODE_ID=edge-1 HZN_ARCH=amd64
export HZN_ESS_API_PROTOCOL=secure-unix HZN_ESS_API_ADDRESS="$PWD/hub/essapi.sock"
export HZN_ESS_AUTH="$PWD/hub/ess-auth/auth.json" HZN_ESS_CERT="$PWD/hub/ess-cert/cert.pem"
export HZN_ARMOR_POLL_SECONDS=1

bundle=/etc/ssl/certs/ca-certificates.crt
begin=$(date +%s)

step() { printf '\n[%2d s] %s\n' $(($(date +%s) - begin)) "$*"; }
fact() { echo "       $*"; }
fail() {
  printf '\nFAILED: %s\n' "$*"
  for log in *.log; do echo "--- $log" && tail -n 20 "$log"; done
  exit 1
}
# must COMMAND...: shows what the command says.
must() { "$@" >must.out || fail "'$*' ended with status $?: $(cat must.out)" && sed 's/^/       /' must.out; }
# within SECONDS COMMAND...: until the command succeeds.
within() {
  limit=$1 until=$(($(date +%s) + $1))
  shift
  until "$@"; do
    [ "$(date +%s)" -lt $until ] || fail "not within $limit s: $*"
    sleep 0.2
  done
}
# status_has PATTERN: of an agent that runs; what an earlier one said last does not count.
status_has() { hzn-armor-agent status --json >status.json 2>&1 && grep -q "$1" status.json; }
enforcing() {
  ! status_has '"State": "degraded"' || fail "the agent cannot enforce: $(hzn-armor-agent status)"
  status_has '"State": "enforcing"'
}
# blocked RESOURCE COMMAND: a shell's command must be refused for lack of permission; noted for the table.
blocked() {
  ! said=$(sh -c "$2" 2>&1) || fail "'$2' was not blocked"
  case $said in *"Permission denied"*) ;; *) fail "'$2' failed, but was not blocked: $said" ;; esac
  echo "$1 $hub $agent" >>tries
  fact "\$ $2"
  fact "$said"
}
start_agent() {
  hzn-armor-agent run >>agent.log 2>&1 &
  agent_pid=$! agent=runs
}
collect() {
  hzn-armor alerts collect --key collector.key --state collector >new 2>collect.log || fail "alerts collect: $(cat collect.log)"
  sed "s/^/$(date -u +%T) /" new >>collected
}
lines() { wc -l <"$1"; }
collected_all() { collect && [ "$(lines collected)" -ge "$(lines tries)" ]; }
certificates() { find /etc/ssl/certs /usr/share/ca-certificates /usr/local/share/ca-certificates -type f -exec sha256sum {} + | sort; }

step "Without a policy, every program of root's may change the root certificates."
fact "\$ update-ca-certificates"
must update-ca-certificates

step "The operator makes a key for bundles and one for receipts, and pins the public halves on the node."
must hzn-armor keys generate operator
must hzn-armor keys generate collector
mkdir -p /var/lib/hzn-armor/trust/trust.d /var/lib/hzn-armor/trust/receipt.d
cp operator.pem /var/lib/hzn-armor/trust/trust.d
cp collector.pem /var/lib/hzn-armor/trust/receipt.d

step "The operator builds a bundle from protect-certificates.yaml and signs it."
must hzn-armor policy check /demo/protect-certificates.yaml
must hzn-armor bundle build --name certificates --serial 1 --out payload.json /demo/protect-certificates.yaml
must hzn-armor bundle sign --key operator.key --out certificates.bundle payload.json

step "The hub and the node's sync service start; the operator publishes the bundle."
hzn-armor-dev-hub --dir hub --org demo --node edge-1 --service hzn-armor:1.0.0:service-token \
  --user operator:operator-password >hub.log 2>&1 &
hub=up
within 20 grep -q ^ready hub.log
must hzn-armor bundle publish --service hzn-armor certificates.bundle

step "The agent starts, takes the bundle from the sync service, verifies it and enforces it (loading takes a while, emulated)."
start_agent
within 200 enforcing
must hzn-armor-agent status

step "Nobody changes root certificates any more, not even root:"
certificates >before
blocked /usr/sbin/update-ca-certificates update-ca-certificates
blocked $bundle "echo mine >>$bundle"
step "... but everybody reads them,"
must grep -c 'BEGIN CERTIFICATE' $bundle
step "... and the package manager still writes them (here a copy of tee in the place of dpkg)."
rm -f /usr/bin/dpkg && cp /usr/bin/tee /usr/bin/dpkg
echo packaged >packaged.crt
must dpkg /usr/local/share/ca-certificates/packaged.crt <packaged.crt
certificates | grep -v ' /usr/local/share/ca-certificates/packaged.crt$' | cmp -s - before || fail "a certificate was changed"
certificates >with_package
cmp -s before with_package && fail "packaged.crt was not written"

step "The hub goes away."
must wget -q -O - http://127.0.0.1:8581/control/down
hub=down
step "The agent is killed. The kernel goes on enforcing, with no process at all:"
kill -9 "$agent_pid"
wait "$agent_pid" 2>/dev/null
agent=killed
! pidof hzn-armor-agent || fail "the agent still runs"
blocked /usr/share/ca-certificates/mine.crt "echo mine >/usr/share/ca-certificates/mine.crt"

step "The agent starts again, with no hub, and takes over what the kernel enforces and recorded. A further try is blocked:"
start_agent
within 60 enforcing
blocked /usr/sbin/update-ca-certificates update-ca-certificates
within 30 status_has "\"Last\": $(lines tries)"
status_has '"Records": [1-9]' || fail "nothing is spooled"
# Programs loaded afresh would count from 0.
status_has "\"Blocked\": $(lines tries)" || fail "the agent did not take over what was enforced"
must hzn-armor-agent status

step "The hub comes back; the operator collects, and signed receipts empty the node's spool."
must wget -q -O - http://127.0.0.1:8581/control/up
hub=up
: >collected
within 60 collected_all
within 60 status_has '"Records": 0'
fact "$(lines collected) alerts collected"
step "A second collect prints nothing."
collect
[ ! -s new ] || fail "collected twice: $(cat new)"
certificates | cmp -s - with_package || fail "a certificate was changed"

step "What was blocked where and collected when:"
fact "$(printf '%-2s %-8s %-22s %-9s %-42s %-5s %-7s %s' '#' 'at (UTC)' node operation resource hub agent collected)"
awk '
  function field(name, text) {
    if (!match($0, "\"" name "\":\"?[^\",}]*")) return "?"
    text = substr($0, RSTART, RLENGTH)
    sub(/^"[^"]*":"?/, "", text)
    return text
  }
  {
    getline try <"tries"
    split(try, expected, " ")
    printf "       %-2s %-8s %-22s %-9s %-42s %-5s %-7s %s\n", field("Sequence"), substr(field("UpdatedTime"), 12, 8),
      field("Org") "/" field("NodeID"), field("Operation"), field("Resource"), expected[2], expected[3], $1
    if (field("Sequence") != NR || field("Resource") != expected[1] || field("Action") != "Block") wrong = 1
  }
  END { exit wrong }
' collected || fail "the alerts are not those of the tries, each once and in order: $(cat collected)"
[ "$(lines collected)" -eq "$(lines tries)" ] || fail "$(lines tries) tries, $(lines collected) alerts"
printf '\nAll of it happened: %s tries blocked, %s alerts collected, each exactly once, in %s s.\n' \
  "$(lines tries)" "$(lines collected)" $(($(date +%s) - begin))
