#!/bin/sh
# Runs on the node of life.sh after a power failure, at first without a hub.
# shellcheck source=guest.sh
. /node/guest.sh
# shellcheck source=probes.sh
. /node/probes.sh
agent=$(agreement agent-3)-hzn-armor-agent

start_dockerd
within 180 status_is '.State == "offline" and .Bundles[0].Serial >= 1 and .Generation > 0'
denied /srv/node-secret cat /srv/node-secret
held "after a reboot without a hub, the agent's container enforces what was in force"

permitted=$(probes permitted)
restart_web
[ "$(probes permitted)" -eq "$permitted" ] || fail "the workload was permitted something"
denied /bin/id docker exec "$web" /bin/id
must docker exec "$beside" /bin/id
held "the policy holds in the workload from its start on"

start_hub
within 60 all_collected
held "with the hub back, no alert is lost or doubled"
finished
