# shellcheck shell=dash disable=SC2154
# Makes accesses that must be refused, counts them, and checks their alerts. Sourced after guest.sh.

mkdir -p /srv/web
touch refused /srv/web/tries alerts.jsonl
web_agreement=$(agreement web)
# shellcheck disable=SC2034 # for those that source this
web=$web_agreement-web beside=$(agreement beside)-beside

# start_workload NAME AGREEMENT ARGUMENT...: starts a Horizon service of that name with one container of that name.
start_workload() {
  workload=$1 workload_agreement=$2
  shift 2
  agree "$workload_agreement" "$workload" 1.0.0 token
  start "$workload_agreement" "$workload" "$@"
}

# refused PATH FILE: checks that the output of a command says that it was refused the path, and counts the refusal.
refused() {
  grep -qi "$1.*permission denied" "$2" || fail "$1 was not refused: $(cat "$2")"
  echo "$1" >>refused
}
# denied PATH COMMAND...: checks that the command is refused the path, and counts the refusal.
denied() {
  denied=$1
  shift
  ! "$@" >said 2>&1 || fail "$denied was permitted: $*"
  refused "$denied" said
}

# probes WORD: prints how often the service's container wrote that word.
probes() { grep -c "^$1" /srv/web/tries; }
more() { [ "$(probes "$1")" -gt "$2" ]; }
# be_quiet: lets the container end its last probe and wait.
be_quiet() {
  before=$(probes waits)
  touch /srv/web/quiet
  within 30 more waits "$before"
}
# restart_web: kills the container's process, so that Docker starts it again. While it is quiet it probes once.
restart_web() {
  before=$(probes blocked)
  must kill -9 "$(docker inspect --format '{{.State.Pid}}' "$web")"
  within 60 more blocked "$before"
}

# all_collected: succeeds if every refusal so far has one alert at the hub. It fails the scenario if there are alerts of other
# accesses, or if they are not in the order of their numbers.
all_collected() {
  collect
  expected=$(($(wc -l <refused) + $(probes blocked)))
  found=$(wc -l <alerts.jsonl)
  jq -es 'all(.Resource | IN("/srv/node-secret", "/srv/secret", "/srv/guarded", "/bin/id", "/bin/true")) and map(.Sequence) == [range(1; length + 1)]' \
    alerts.jsonl >/dev/null && [ "$found" -le $expected ] ||
    fail "$expected accesses were refused, the $found alerts are others: $(tally)"
  [ "$found" -eq $expected ]
}
tally() { jq -cs 'group_by([.ContainerName, .Resource, .PolicyName]) | .[] | [length, (.[0] | .ContainerName, .Resource, .PolicyName)]' alerts.jsonl; }
# of_unidentified: succeeds if each alert from a container has the container's id, and those of the one called late have all of its
# details.
of_unidentified() {
  jq -es --arg id "$(docker inspect --format '{{.Id}}' "$late")" --arg name "$late" --arg agreement "$(agreement late)" \
    'all(.Resource == "/srv/node-secret" or (.ContainerID | length) == 64)
      and (map(select(.ContainerID == $id)) | length > 0 and all(.ContainerName == $name and .ContainerImage == "workload:1"
        and .AgreementID == $agreement and .ServiceURL == "myorg/late" and .PolicyName == "web-secret"))' alerts.jsonl
}
# of_web OPERATION RESOURCE: succeeds if such an alert has all details of the service's container.
of_web() {
  jq -es --arg id "$(docker inspect --format '{{.Id}}' "$web")" --arg name "$web" --arg agreement "$web_agreement" \
    --arg operation "$1" --arg resource "$2" \
    'any(.ContainerID == $id and .ContainerName == $name and .ContainerImage == "workload:1" and .AgreementID == $agreement
      and .ServiceURL == "myorg/web" and .ServiceVersion == "1.0.0" and .HostName == "node" and .Operation == $operation
      and .Resource == $resource and .PolicyName == "web-secret" and .Action == "Block")' alerts.jsonl
}
