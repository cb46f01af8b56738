#!/bin/sh
# Prints the memory of the kernel's maps and of the agent with a bundle of 100 rules in force, and of the agent after it refused
# a hostile bundle, as lines `NAME KIB`. scripts/bench runs it as root in a guest, with a hub that brings the bundles.
set -eu
mkdir /run/agent-memory && cd /run/agent-memory

export HZN_ORG_ID=test HZN_EXCHANGE_USER_AUTH=operator:password HZN_FSS_CSSURL=http://127.0.0.1:8580
export HZN_ORGANIZATION=test HZN_NODE_ID=node HZN_ARCH=amd64
export HZN_ESS_API_PROTOCOL=secure-unix HZN_ESS_API_ADDRESS="$PWD/hub/essapi.sock"
export HZN_ESS_AUTH="$PWD/hub/ess-auth/auth.json" HZN_ESS_CERT="$PWD/hub/ess-cert/cert.pem"
export HZN_ARMOR_POLL_SECONDS=1

within() {
  until=$(($(date +%s) + $1))
  shift
  until "$@"; do
    [ "$(date +%s)" -lt $until ] || { echo "not in time: $*" >&2 && tail -n 20 agent.log >&2 && exit 1; }
    sleep 0.2
  done
}
publish() { hzn-armor bundle publish --service hzn-armor "$1" >/dev/null; }
enforces() { hzn-armor-agent status --json 2>/dev/null | grep -q '"State": "enforcing"'; }

hzn-armor keys generate operator >/dev/null
mkdir -p /var/lib/hzn-armor/trust/trust.d
cp operator.pem /var/lib/hzn-armor/trust/trust.d
hzn-armor-dev-hub --dir hub --org test --node node --service hzn-armor:1.0.0:token --user operator:password >hub.log 2>&1 &
within 20 grep -q ^ready hub.log
armor-guest-tests policy 100 >policy.yaml
hzn-armor bundle build --name edge --serial 1 --out payload.json policy.yaml
hzn-armor bundle sign --key operator.key --out good.bundle payload.json
publish good.bundle
hzn-armor-agent run >agent.log 2>&1 &
agent=$!
within 120 enforces
armor-guest-tests memory $agent

# The largest policies that a payload may have, wrong only at the end of each file. `bundle sign` would not sign them; a
# publisher that signs the bare payload does.
hzn-armor keys generate --type rsa publisher >/dev/null
cp publisher.pem /var/lib/hzn-armor/trust/trust.d
awk 'BEGIN {
  printf "{\"format\":\"horizon-armor.bundle/1\",\"name\":\"edge\",\"serial\":2,\"created\":\"2026-01-01T00:00:00Z\","
  printf "\"expires\":\"2099-01-01T00:00:00Z\",\"target\":{\"org\":\"test\"},\"policies\":["
  for (file = 0; file < 3; file++) {
    printf "%s{\"file\":\"%d.yaml\",\"text\":\"", file ? "," : "", file
    for (word = 0; word < 262144; word++) printf "- a\\n"
    printf "\"}"
  }
  print "]}"
}' >hostile.json
hzn-armor bundle publish --plain-key publisher.key --service hzn-armor hostile.json >/dev/null
refused() { hzn-armor-agent status --json 2>/dev/null | grep -q bad-policy; }
within 60 refused
armor-guest-tests memory $agent | sed -n 's/^agent/refusing-agent/p'
