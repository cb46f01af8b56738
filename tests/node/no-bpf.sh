#!/bin/sh
# Runs the agent's container on a kernel whose list of security modules lacks bpf.
# shellcheck source=guest.sh
. /node/guest.sh

set_up
start_agent "$(agreement agent-1)"
publish 1
within 120 status_is '.State == "degraded" and .Bundles[0].Serial == 1'
jq -e '.Reasons | any(contains("bpf"))' status.json >/dev/null || fail "the status does not say why: $(cat status.json)"
docker logs "$agent" 2>&1 | grep -q 'NOTHING IS ENFORCED: .*bpf' || fail "the log does not say that nothing is enforced, and why"
held "the agent says that nothing is enforced, and why"

reported() {
  collect
  [ -e findings.jsonl ] && jq -es 'any(.Finding == "Status" and .Node == "node1" and .Agent.State == "degraded"
    and (.Agent.Reasons | any(contains("bpf"))))' findings.jsonl >/dev/null
}
within 60 reported
held "its signed status says so at the hub"

[ "$(docker inspect --format '{{.State.Running}} {{.RestartCount}}' "$agent")" = "true 0" ] ||
  fail "the container did not stay up: $(docker inspect --format '{{.State.Status}}, {{.RestartCount}} restarts' "$agent")"
held "its container stays up"
finished
