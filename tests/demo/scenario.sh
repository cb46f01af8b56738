#!/bin/sh
# Runs the demo: scenario.sh POLICY, as root on a machine that can enforce, which plays the operator's machine, the hub and the
# node. scripts/demo runs it on this machine or in a guest. Every step prints what it does and checks that it happened; if it
# did not, the demo ends with the logs. All files lie in one new directory, except for a certificate and the pins; however the
# script ends, it removes all of them.
set -u
exec 2>&1
export LC_ALL=C
policy=$(readlink -f "$1") || exit
for name in $(env | sed -n 's/^\(HZN_[A-Z_]*\)=.*/\1/p'); do unset "$name"; done
work=$(mktemp -d "${TMPDIR:-/tmp}/hzn-armor-demo.XXXXXX") && cd "$work" || exit
pins=/sys/fs/bpf/hzn-armor-demo-${work##*.}
packaged=/usr/local/share/ca-certificates/hzn-armor-demo.crt
agent_pid='' hub_pid=''

agent() { hzn-armor-agent --config "$work/agent.toml" "$@"; }
leave_nothing() {
  status=$?
  trap '' HUP INT TERM
  for pid in $agent_pid $hub_pid; do kill -9 "$pid" && wait "$pid"; done 2>/dev/null
  [ ! -e "$pins" ] || agent detach >/dev/null || echo "still enforced: end it with 'rm -r $pins'"
  rm -f "$packaged"
  cd / && rm -rf "$work"
  exit $status
}
[ ! -e $packaged ] || { echo "$packaged exists: remove it first" && rmdir "$work" && exit 1; }
trap leave_nothing EXIT
trap 'exit 130' HUP INT TERM

cat >agent.toml <<EOF
state_dir = "$work/state"
pin_dir = "$pins"
bundle_dir = "$work/none"
runtime_socket = "$work/none"
poll_seconds = 1
EOF
# The operator's variables, as `hzn` reads them; HZN_FSS_CSSURL is set once the hub runs.
export HZN_ORG_ID=demo HZN_EXCHANGE_USER_AUTH=operator:operator-password
# The node's variables, as Horizon gives them to a service.
export HZN_ORGANIZATION=demo HZN_NODE_ID=edge-1 HZN_ARCH=amd64
export HZN_ESS_API_PROTOCOL=secure-unix HZN_ESS_API_ADDRESS="$PWD/hub/essapi.sock"
export HZN_ESS_AUTH="$PWD/hub/ess-auth/auth.json" HZN_ESS_CERT="$PWD/hub/ess-cert/cert.pem"

bundle=/etc/ssl/certs/ca-certificates.crt
# An absolute path: a shell tries every directory of PATH, and two of them may be the same one.
update=/usr/sbin/update-ca-certificates
source=$(find /usr/share/ca-certificates -type f -name '*.crt' | LC_ALL=C sort | head -n 1)
begin=$(date +%s)

step() { printf '\n[%2d s] %s\n' $(($(date +%s) - begin)) "$*"; }
fact() { echo "       $*"; }
fail() {
  printf '\nFAILED: %s\n' "$*"
  for log in *.log; do echo "--- $log" && tail -n 20 "$log"; done
  exit 1
}
# must COMMAND...: runs a command that must succeed, and shows its output.
must() { "$@" >must.out || fail "'$*' ended with status $?: $(cat must.out)" && sed 's/^/       /' must.out; }
# within SECONDS COMMAND...: repeats the command until it succeeds.
within() {
  limit=$1 until=$(($(date +%s) + $1))
  shift
  until "$@"; do
    [ "$(date +%s)" -lt $until ] || fail "not within $limit s: $*"
    sleep 0.2
  done
}
# status_has PATTERN: succeeds if the status of a running agent matches; the last status of an earlier agent does not count.
status_has() { agent status --json >status.json 2>&1 && grep -q "$1" status.json; }
enforcing() {
  ! status_has '"State": "degraded"' || fail "the agent cannot enforce: $(agent status)"
  status_has '"State": "enforcing"'
}
# blocked RESOURCE COMMAND: checks that a shell's command is refused for lack of permission, and records that for the table.
blocked() {
  ! said=$(sh -c "$2" 2>&1) || fail "'$2' was not blocked"
  case $said in *"Permission denied"*) ;; *) fail "'$2' failed, but was not blocked: $said" ;; esac
  echo "$(echo "$1" | tr ' ' _) $hub $runs" >>probes
  fact "\$ $2"
  echo "$said" | sed 's/^/       /'
}
start_agent() {
  hzn-armor-agent --config "$work/agent.toml" run >>agent.log 2>&1 &
  agent_pid=$! runs=runs
}
collect() {
  hzn-armor alerts collect --key collector.key --state collector >new 2>collect.log || fail "alerts collect: $(cat collect.log)"
  sed "s/^/$(date -u +%T) /" new >>collected
}
# control WORD: takes the hub down or brings it back up.
control() {
  if command -v wget >/dev/null; then must wget -q -O - "$hub_control/control/$1"; else must curl -fsS "$hub_control/control/$1"; fi
  hub=$1
}
lines() { wc -l <"$1"; }
collected_all() { collect && [ "$(lines collected)" -ge "$(lines probes)" ]; }
certificates() { find /etc/ssl/certs /usr/share/ca-certificates /usr/local/share/ca-certificates -type f -exec sha256sum {} + | sort; }

# Opens the file for writing and writes nothing, which is harmless if it is permitted.
append="printf '' >>"
step "Without a policy, every program of root's may open the root certificates for writing."
fact "\$ $append$bundle"
must sh -c "$append$bundle"
fact permitted

step "The operator makes a key for bundles and one for receipts, and pins the public halves on the node."
must hzn-armor keys generate operator
must hzn-armor keys generate collector
mkdir -p state/trust/trust.d state/trust/receipt.d
cp operator.pem state/trust/trust.d
cp collector.pem state/trust/receipt.d

# Addresses that are for examples alone (RFC 5737).
cat >destination.yaml <<EOF
apiVersion: security.kubearmor.com/v1
kind: KubeArmorHostPolicy
metadata: {name: no-examples}
spec:
  nodeSelector: {matchLabels: {kubearmor.io/hostname: "*"}}
  network: {matchDestinations: [{cidr: 192.0.2.0/24}]}
EOF
step "The operator builds a bundle from protect-certificates.yaml, and a rule that nobody connects to 192.0.2.0/24, and signs it."
must hzn-armor policy check "$policy" destination.yaml
must hzn-armor policy explain destination.yaml --connect 192.0.2.1:80
must hzn-armor bundle build --name certificates --serial 1 --out payload.json "$policy" destination.yaml
must hzn-armor bundle sign --key operator.key --out certificates.bundle payload.json

step "The hub and the node's sync service start; the operator publishes the bundle."
hzn-armor-dev-hub --dir hub --port 0 --control-port 0 --org demo --node edge-1 --service hzn-armor:1.0.0:service-token \
  --user operator:operator-password >hub.log 2>&1 &
hub_pid=$! hub=up
within 20 grep -q ^ready hub.log
HZN_FSS_CSSURL=$(sed -n 's/^ready css=\([^ ]*\).*/\1/p' hub.log) hub_control=$(sed -n 's/^ready.* control=\([^ ]*\).*/\1/p' hub.log)
export HZN_FSS_CSSURL
must hzn-armor bundle publish --service hzn-armor certificates.bundle

step "The agent starts, takes the bundle from the sync service, verifies it and enforces it (loading takes a while, emulated)."
start_agent
within 200 enforcing
must agent status

step "Nobody changes root certificates any more, not even root:"
certificates >before
blocked $update $update
blocked $bundle "$append$bundle"
step "... but everybody reads them,"
must grep -c 'BEGIN CERTIFICATE' $bundle
step "... and the package manager still installs them."
mkdir -p package/DEBIAN package${packaged%/*} admin/info admin/updates
printf 'Package: hzn-armor-demo\nVersion: 1\nArchitecture: all\nMaintainer: demo\nDescription: a certificate\n' >package/DEBIAN/control
echo packaged >package$packaged
: >admin/status
must dpkg-deb --build --root-owner-group -Zgzip package packaged.deb
# Uses a package database of its own, so that the machine's knows nothing of the package.
must dpkg --admindir="$work/admin" --log="$work/dpkg.log" --force-bad-path --install packaged.deb 2>>dpkg.log
grep -q packaged $packaged || fail "$packaged was not written"
certificates | grep -v " $packaged\$" | cmp -s - before || fail "a certificate was changed"
certificates >with_package

step "Nobody connects where the policy forbids it:"
if command -v curl >/dev/null; then visit='curl -svm 5'; else visit='wget -t 1 -O -'; fi
blocked "protocol=TCP type=SOCK_STREAM" "$visit http://192.0.2.1/"

step "The hub goes away."
control down
step "The agent is killed. The kernel goes on enforcing, with no process at all:"
kill -9 "$agent_pid"
wait "$agent_pid" 2>/dev/null
agent_pid='' runs=killed
blocked "$source" "$append$source"

step "The agent starts again, with no hub, and takes over what the kernel enforces and recorded. A further try is blocked:"
start_agent
within 60 enforcing
blocked $update $update
within 30 status_has "\"Last\": $(lines probes)"
status_has '"Records": [1-9]' || fail "nothing is spooled"
# Programs that were loaded again would count from 0 and never get there.
within 30 status_has "\"Blocked\": $(lines probes),"
must agent status

step "The hub comes back; the operator collects, and signed receipts empty the node's spool."
control up
: >collected
within 60 collected_all
within 60 status_has '"Records": 0'
fact "$(lines collected) alerts collected"
step "A second collect prints nothing."
collect
[ ! -s new ] || fail "collected twice: $(cat new)"
certificates | cmp -s - with_package || fail "a certificate was changed"

step "What was blocked where and collected when:"
fact "$(printf '%-2s %-8s %-22s %-9s %-50s %-5s %-7s %s' '#' 'at (UTC)' node operation resource hub agent collected)"
awk '
  function field(name, text) {
    if (!match($0, "\"" name "\":\"?[^\",}]*")) return "?"
    text = substr($0, RSTART, RLENGTH)
    sub(/^"[^"]*":"?/, "", text)
    return text
  }
  {
    getline try <"probes"
    split(try, expected, " ")
    resource = field("Resource")
    to = field("Data")
    sub(/^[^ ]*/, "", to)
    printf "       %-2s %-8s %-22s %-9s %-50s %-5s %-7s %s\n", field("Sequence"), substr(field("UpdatedTime"), 12, 8),
      field("Org") "/" field("NodeID"), field("Operation"), resource to, expected[2], expected[3], $1
    gsub(/ /, "_", resource)
    if (field("Sequence") != NR || resource != expected[1] || field("Action") != "Block") wrong = 1
  }
  END { exit wrong }
' collected || fail "the alerts are not those of the probes, each once and in order: $(cat collected)"
[ "$(lines collected)" -eq "$(lines probes)" ] || fail "$(lines probes) probes, $(lines collected) alerts"
printf '\nAll of it happened: %s probes blocked, %s alerts collected, each exactly once, in %s s.\n' \
  "$(lines probes)" "$(lines collected)" $(($(date +%s) - begin))
