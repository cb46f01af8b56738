#!/bin/sh
# New containers of a service that a policy is for, which begin with what is forbidden.
. /node/guest.sh
. /node/tries.sh

set_up
start_agent "$(agreement agent-1)"
publish 1
within 180 status_is '.State == "enforcing" and .BundleSerial == 1'

# Two at a time, each under an agreement of its own, and with all that a container can be given.
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
finished
