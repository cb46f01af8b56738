#!/bin/sh
# The agent's life on a node: it is placed, enforces in the workloads that its bundle selects, is killed when its agreement
# ends, and is placed again under another agreement. reboot.sh goes on where this ends.
# shellcheck source=guest.sh
. /node/guest.sh
# shellcheck source=probes.sh
. /node/probes.sh

names_unidentified() { docker logs "$agent" 2>&1 | grep -q 'of containers are under their rules from here on'; }

# read_by CONTAINER: succeeds if the container can read the guarded file; otherwise it checks and records the refusal.
# not_read_by: the opposite.
read_by() { docker exec "$1" /bin/cat /srv/guarded >said 2>&1 || { refused /srv/guarded said && false; }; }
not_read_by() { ! read_by "$1"; }
# next_alone: succeeds if only the programs of the next image are pinned.
next_alone() { [ "$(ls /sys/fs/bpf/hzn-armor | sed 's/^[0-9a-f]*-//')" = 0123456789abcdef ]; }

set_up
echo secret >/srv/secret
echo secret >/srv/node-secret
start_agent "$(agreement agent-1)"
start_workload web "$web_agreement" --tty --volume /srv/web:/data workload:1 /bin/sh /bin/web.sh
start_workload beside "$(agreement beside)" workload:1 /bin/sleep 100000
publish 1
within 180 status_is '.State == "enforcing" and .Bundles[0].Serial == 1'
held "the agent's container enforces the bundle from the hub"

denied /srv/node-secret cat /srv/node-secret
before=$(probes blocked)
within 30 more blocked $((before + 2))
permitted=$(probes permitted)
denied /bin/id docker exec "$web" /bin/id
denied /srv/secret docker exec "$web" /bin/cat /srv/secret
held "a policy for a Horizon service blocks a program and a file in its container, also for docker exec"

# The container's own programs have a terminal, as their probes show.
denied /bin/true docker exec --tty "$web" /bin/true
must docker exec "$web" /bin/true
must docker exec --tty "$beside" /bin/true
held "with the preset exec, nobody gets a terminal in its container"

must docker exec "$beside" /bin/sh -c '/bin/id && /bin/cat /srv/secret'
must id
must cat /srv/secret
held "it blocks neither in the container beside it nor on the node"

# The policy selects it by its name, which changes while it runs.
must docker exec "$beside" /bin/cat /srv/guarded
must docker rename "$beside" guarded
within 30 not_read_by guarded
must docker rename guarded "$beside"
within 30 read_by "$beside"
held "a container that is renamed comes under a policy for its new name as it runs, and leaves it so"

be_quiet
within 60 all_collected
for forbidden in "Process /bin/id" "File /srv/secret"; do
  of_web "${forbidden% *}" "${forbidden#* }" >/dev/null || fail "no alert of $forbidden names the container and its service"
done
jq -es 'any(.Resource == "/srv/guarded" and .ContainerName == "guarded" and .PolicyName == "guarded-by-name")' alerts.jsonl \
  >/dev/null || fail "no alert names the container that was renamed: $(tally)"
held "alerts name the container, its image and its service"

# The workload goes on trying while the agent is killed.
rm /srv/web/quiet
before=$(probes blocked)
within 30 more blocked $((before + 2))
end_agreement "$agent"
before=$(probes blocked)
within 30 more blocked $((before + 2))
denied /srv/node-secret cat /srv/node-secret
denied /bin/id docker exec "$web" /bin/id
be_quiet
restart_web
[ "$(probes permitted)" -eq "$permitted" ] || fail "the workload was permitted something"
held "without an agent, all of it stays blocked, also for a container that starts again"

# shellcheck disable=SC2046
denied /bin/id docker run --rm --name new $(given "$(agreement new)" web) workload:1 /bin/id
start_workload late "$(agreement late)" workload:1 /bin/sleep 100000
late=$(agreement late)-late
denied /bin/id docker exec "$late" /bin/id
held "a container that is made without an agent is under the policies for all containers from its first instruction on"

# It also goes on while another agent takes over.
rm /srv/web/quiet
start_agent "$(agreement agent-2)"
within 180 status_is '.State == "enforcing" and .Bundles[0].Serial == 1'
before=$(probes blocked)
within 30 more blocked $((before + 2))
be_quiet
[ "$(probes permitted)" -eq "$permitted" ] || fail "the workload was permitted something while the agent was renewed"
docker logs "$agent" 2>&1 | grep -q 'took_over=true' || fail "the new container did not take over what was enforced"
within 60 all_collected
held "under another agreement the agent takes over, and no alert of meanwhile is lost"
of_unidentified >/dev/null || fail "alerts of containers that were made without an agent do not name them: $(tally)"
held "alerts name containers that were made meanwhile"

within 60 names_unidentified
must docker exec "$late" /bin/sh -c '/bin/id && /bin/cat /srv/secret'
held "a container that was made meanwhile is under its own policies then"

# Another image, while the workload goes on trying: its programs are loaded beside those that enforce, which then end.
rm /srv/web/quiet
end_agreement "$agent"
start_agent "$(agreement agent-3)" definition-of-next
within 180 status_is '.State == "enforcing" and .Bundles[0].Serial == 1'
within 60 next_alone
before=$(probes blocked)
within 30 more blocked $((before + 2))
be_quiet
[ "$(probes permitted)" -eq "$permitted" ] || fail "the workload was permitted something while the agent was upgraded"
docker logs "$agent" 2>&1 | grep -q 'took_over=false' || fail "the other image did not load its own programs"
denied /bin/id docker exec "$web" /bin/id
must docker exec "$beside" /bin/id
within 60 all_collected
held "an upgrade to an image with other programs permits nothing meanwhile, and no alert is lost"

if [ -e /node/hzn ]; then
  publish_by_hzn 2
  within 60 status_is '.State == "enforcing" and .Bundles[0].Serial == 2'
  denied /srv/node-secret cat /srv/node-secret
  denied /bin/id docker exec "$web" /bin/id
  within 60 all_collected
  held "a bundle that hzn signed and published comes into force"
fi

sync
finished
