#!/bin/sh
# Starts new containers of a service that a policy selects, each of which begins with a forbidden access.
# shellcheck source=guest.sh
. /node/guest.sh
# shellcheck source=probes.sh
. /node/probes.sh

no_dockerd() { [ ! -e /var/run/docker.pid ]; }

set_up --live-restore
start_agent "$(agreement agent-1)"
publish 1
within 180 status_is '.State == "enforcing" and .Bundles[0].Serial == 1'

# Two at a time, each under its own agreement, without and with the privileges that a container can be given.
new=0
while [ $new -lt 20 ]; do
  case $((new % 8)) in
    0) given_too= ;;
    2) given_too=--privileged ;;
    4) given_too=--pid=host ;;
    6) given_too="--privileged --pid=host" ;;
  esac
  for forbidden in /bin/id "/bin/cat /srv/secret"; do
    new=$((new + 1))
    agreement=$(agreement "web-$new")
    agree "$agreement" web 1.0.0 token
    # shellcheck disable=SC2046,SC2086
    docker run --name "$agreement-web" --network none $given_too $(given "$agreement" web) workload:1 $forbidden >"new-$new" 2>&1 &
  done
  wait
  refused /bin/id "new-$((new - 1))"
  refused /srv/secret "new-$new"
done
within 60 all_collected
held "$new new containers are refused what they begin with, and each has its alert"

# Docker makes a new socket. The agent's container runs on and has the old one bound.
must kill "$(cat /var/run/docker.pid)"
within 60 no_dockerd
start_dockerd --live-restore
within 60 status_is '.Containers.Runtime | startswith("lost") or . == "none" | not'
[ "$(docker inspect --format '{{.RestartCount}}' "$agent")" = 0 ] || fail "the agent's container was started anew"
docker logs "$agent" 2>&1 | grep -q 'the container runtime is lost' || fail "the agent did not see Docker go"
agreement=$(agreement web-anew)
agree "$agreement" web 1.0.0 token
# shellcheck disable=SC2046
denied /bin/id docker run --name "$agreement-web" --network none $(given "$agreement" web) workload:1 /bin/id
within 60 all_collected
jq -es --arg name "$agreement-web" 'any(.ContainerName == $name)' alerts.jsonl >/dev/null || fail "the new container has no name: $(tally)"
held "a Docker that is started anew beside the agent is found again by its new socket"
finished
