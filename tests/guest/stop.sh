#!/bin/sh
# Checks enforcement after the agent ends, in each way in which it can; preexisting handles of processes; and the agent on a
# machine that is no Horizon node. scripts/test runs it as root in a guest, with a hub that brings the bundles. It prints its
# results as a Rust test does, and the agent's log when something does not hold.
set -u
exec 2>&1
mkdir /run/agent-stop && cd /run/agent-stop || exit

export HZN_ORG_ID=test HZN_EXCHANGE_USER_AUTH=operator:password HZN_FSS_CSSURL=http://127.0.0.1:8580
export HZN_ORGANIZATION=test HZN_NODE_ID=node HZN_ARCH=amd64
export HZN_ESS_API_PROTOCOL=secure-unix HZN_ESS_API_ADDRESS="$PWD/hub/essapi.sock"
export HZN_ESS_AUTH="$PWD/hub/ess-auth/auth.json" HZN_ESS_CERT="$PWD/hub/ess-cert/cert.pem"
export HZN_ARMOR_POLL_SECONDS=1
secret=$PWD/secret

# shellcheck source=scenario.sh
. /scenarios/scenario.sh
tell_more() { for log in *.log; do echo "--- $log" && tail -n 40 "$log"; done; }

start_agent() {
  hzn-armor-agent run >agent.log 2>&1 &
  agent=$!
}
# end_agent SIGNAL STATUS: sends the signal to the agent, which must end with the status.
end_agent() {
  kill -s "$1" "$agent"
  wait "$agent"
  status=$?
  [ $status -eq "$2" ] || fail "the agent ended with status $status on $1"
}
status_has() { hzn-armor-agent status --json >status.json 2>&1 && grep -q "$1" status.json; }
enforces_serial() { status_has "\"Serial\": $1," && status_has '"State": "enforcing"'; }
blocked() {
  ! said=$(cat "$secret" 2>&1) || fail "$1: permitted"
  case $said in *"Permission denied"*) ;; *) fail "$1: $said" ;; esac
}
permitted() { must cat "$secret"; }
# publish SERIAL STOP [OPTION...]: publishes a bundle of the policy with `--on-agent-stop STOP`.
publish() {
  serial=$1 stop=$2
  shift 2
  must hzn-armor bundle build --name stop --serial "$serial" --on-agent-stop "$stop" "$@" --out payload.json policy.yaml
  must hzn-armor bundle sign --key operator.key --out stop.bundle payload.json
  must hzn-armor bundle publish --service hzn-armor stop.bundle
}

echo secret >"$secret"
cat >policy.yaml <<EOF
apiVersion: security.kubearmor.com/v1
kind: KubeArmorHostPolicy
metadata: {name: secret}
spec:
  nodeSelector: {matchLabels: {kubearmor.io/hostname: "*"}}
  file: {matchPaths: [{path: $secret}]}
EOF
must hzn-armor keys generate operator
mkdir -p /var/lib/hzn-armor/trust/trust.d
cp operator.pem /var/lib/hzn-armor/trust/trust.d
hzn-armor-dev-hub --dir hub --org test --node node --service hzn-armor:1.0.0:token --user operator:password --user gateway:password \
  >hub.log 2>&1 &
within 20 grep -q ^ready hub.log

start_agent
within 120 grep -q 'programs attached' agent.log
end_agent KILL 137
publish 1 lift
start_agent
within 60 enforces_serial 1
grep -q 'took_over=true generation=0' agent.log || fail "the programs of the killed agent were not taken over"
held "programs of an agent that was killed before it enforced anything are proven anew"

blocked "while the agent runs"
within 30 status_has '"Blocked": 1,'
within 30 status_has '"Last": 1,'
held "the proof is neither counted nor told"

end_agent TERM 0
permitted
grep -q 'enforcement lifted' agent.log || fail "nothing says that enforcement was lifted"
hzn-armor-agent status --json >status.json
grep -q '"Pinned": false' status.json || fail "something is still pinned"
held "lift: a stop in good order ends enforcement"

publish 2 keep
start_agent
within 120 enforces_serial 2
blocked "while the agent runs"
end_agent TERM 0
blocked "after SIGTERM"
held "keep: a stop in good order leaves enforcement"

start_agent
within 60 enforces_serial 2
end_agent KILL 137
blocked "after SIGKILL"
held "keep: a killed agent leaves enforcement"

start_agent
within 60 enforces_serial 2
HZN_ARMOR_STATE_DIR=$PWD/other hzn-armor-agent run >other.log 2>&1 &
other=$!
within 20 grep -q "/sys/fs/bpf/hzn-armor belongs to the agent with pid $agent: standing by" other.log
end_agent KILL 137
agent=$other
within 20 grep -q 'took_over=true' other.log
blocked "after another agent took over"
! said=$(hzn-armor-agent detach 2>&1) || fail "detach under an agent with another state directory"
end_agent TERM 0
blocked "after the other agent"
held "a second agent leaves the tables to the first, and takes over from it"

must hzn-armor-agent detach
permitted
held "detach ends what a stopped agent left"

publish 3 lift
start_agent
within 120 enforces_serial 3
end_agent KILL 137
blocked "after SIGKILL"
held "lift: a killed agent leaves enforcement"
must hzn-armor-agent detach

# Four preexisting handles: a descriptor to read, one to write, a shared mapping, and a running program that must not run.
cp /bin/busybox sleep
echo "  process: {matchPaths: [{path: $PWD/sleep}]}" >>policy.yaml
holders=
hold() {
  "$@" &
  holders="$holders $!"
}
hold sh -c 'exec 3<"$0" && touch reads && while :; do busybox sleep 1; done' "$secret"
hold sh -c 'exec 3>>"$0" && touch writes && while :; do busybox sleep 1; done' "$secret"
hold armor-guest-tests 'do' hold-mapping "$secret" maps
hold ./sleep 1000
holding() { [ -e reads ] && [ -e writes ] && [ -e maps ]; }
within 10 holding
running() { for holder in $holders; do ! kill -0 "$holder" 2>/dev/null || echo "$holder"; done; }
told() { [ "$(grep -c 'holds what the policies refuse' agent.log)" -ge "$1" ]; }

publish 4 keep
start_agent
within 120 enforces_serial 4
within 30 told 4
blocked "while others hold it"
[ "$(running | wc -l)" -eq 4 ] || fail "of the processes $holders only these go on: $(running)"
held "what processes hold from before a policy is reported"

end_agent KILL 137
start_agent
within 60 enforces_serial 4
within 30 status_has '"Pinned": true'
end_agent TERM 0
! told 1 || fail "what processes hold is reported again by the next agent"
held "it is reported once"

publish 5 keep --already-held kill
start_agent
within 60 enforces_serial 5
gone() { [ -z "$(running)" ]; }
within 30 gone
kill -0 1 || fail "process 1 is gone"
held "where the bundle says so, the holders are killed"
end_agent TERM 0
must hzn-armor-agent detach

# A machine that is no Horizon node acts as a user of the org, whose password systemd would read from a file. The agent starts
# with an empty state directory.
for name in $(env | sed -n 's/^\(HZN_ESS[A-Z_]*\|HZN_ORGANIZATION\|HZN_NODE_ID\)=.*/\1/p'); do unset "$name"; done
export HZN_ARMOR_STATE_DIR="$PWD/machine" HZN_EXCHANGE_USER_AUTH=gateway:password
must hzn-armor keys generate receipts
mkdir -p machine/trust/trust.d machine/trust/receipt.d
cp operator.pem machine/trust/trust.d && cp receipts.pem machine/trust/receipt.d
operator() { HZN_EXCHANGE_USER_AUTH=operator:password must "$@"; }
build_for() {
  must hzn-armor bundle build --name "$1" --serial "$2" --node "$1" --out payload.json policy.yaml
  must hzn-armor bundle sign --key operator.key --out "$1.bundle" payload.json
}
build_for elsewhere 1 && operator hzn-armor bundle publish --service hzn-armor elsewhere.bundle
build_for gateway 1 && operator hzn-armor bundle publish --service hzn-armor gateway.bundle
start_agent
within 120 enforces_serial 1
status_has '"Name": "gateway"' || fail "not the machine's own bundle: $(cat status.json)"
! grep -q elsewhere status.json || fail "a bundle for another node is reported: $(cat status.json)"
blocked "on a machine without an ESS"
collected() {
  operator hzn-armor alerts collect --key receipts.key --state collector --out alerts.jsonl
  grep -q '"NodeID":"gateway"' alerts.jsonl && status_has '"Receipted": 1,'
}
mkdir collector
within 60 collected
held "a machine without an ESS is served by the CSS, and so are its alerts"

build_for gateway 2
mkdir -p /etc/hzn-armor/bundles && cp gateway.bundle /etc/hzn-armor/bundles
within 30 enforces_serial 2
blocked "under a bundle from a file"
held "bundles come from a directory too"

second=$PWD/second-secret
echo more >"$second"
sed "s|{name: secret}|{name: more}|; s|$secret|$second|" policy.yaml >more.yaml
sleep 120 9<"$second" &
holder=$!
# build_second SERIAL OPTION...: a bundle beside the machine's own and the one for all nodes.
build_second() {
  serial=$1
  shift
  must hzn-armor bundle build --name second --serial "$serial" --node gateway "$@" --out payload.json
  must hzn-armor bundle sign --key operator.key --out /etc/hzn-armor/bundles/second.bundle payload.json
}
build_second 7 --already-held kill more.yaml
within 60 enforces_serial 7
blocked "under two bundles"
! cat "$second" 2>cat.out || fail "the rule of the second bundle does not hold"
policies_say() { hzn-armor-agent status --policies >policies.out 2>&1 && grep -q "$1" policies.out; }
within 30 policies_say 'second/more: the host, [1-9]'
within 30 policies_say 'gateway/secret: the host, [1-9]'
wait $holder
[ $? -eq 137 ] || fail "what holds what the second bundle refuses is not killed"
build_second 8 --lift
within 30 policies_say 'second serial 8, lifted'
must cat "$second"
blocked "after another bundle was lifted"
held "two bundles are in force together, and lifting one leaves the other"
end_agent TERM 0
must hzn-armor-agent detach
finished
