# shellcheck shell=dash disable=SC2154
# Accesses that must be refused, counted, and their alerts. Sourced after guest.sh.

mkdir -p /srv/web
touch refused /srv/web/tries alerts.jsonl
web_agreement=$(agreement web)
web=$web_agreement-web beside=$(agreement beside)-beside

# start_workload NAME AGREEMENT ARGUMENT...: a Horizon service of that name, and its one container of that name.
start_workload() {
  workload=$1 workload_agreement=$2
  shift 2
  agree "$workload_agreement" "$workload" 1.0.0 token
  start "$workload_agreement" "$workload" "$@"
}

# refused PATH FILE: what a command said, which must be that it was refused the path.
refused() {
  grep -qi "$1.*permission denied" "$2" || fail "$1 was not refused: $(cat "$2")"
  echo "$1" >>refused
}
# denied PATH COMMAND...
denied() {
  denied=$1
  shift
  ! "$@" >said 2>&1 || fail "$denied was permitted: $*"
  refused "$denied" said
}

# tries WORD: how often the service's container wrote that.
probes() { grep -c "^$1" /srv/web/tries; }
more() { [ "$(probes "$1")" -gt "$2" ]; }
# be_quiet: lets it end its last try.
be_quiet() {
  before=$(probes waits)
  touch /srv/web/quiet
  within 30 more waits "$before"
}
# restart_web: Docker starts it again, as it ended by itself. While it is quiet it tries once.
restart_web() {
  before=$(probes blocked)
  must kill -9 "$(docker inspect --format '{{.State.Pid}}' "$web")"
  within 60 more blocked "$before"
}

# all_collected: every refusal so far has one alert at the hub, nobody else was refused anything, and the alerts are there in the
# order of their numbers.
all_collected() {
  collect
  expected=$(($(wc -l <refused) + $(probes blocked)))
  found=$(wc -l <alerts.jsonl)
  jq -es 'all(.Resource | IN("/srv/node-secret", "/srv/secret", "/srv/guarded", "/bin/id")) and map(.Sequence) == [range(1; length + 1)]' \
    alerts.jsonl >/dev/null && [ "$found" -le $expected ] ||
    fail "$expected accesses were refused, the $found alerts are others: $(tally)"
  [ "$found" -eq $expected ]
}
tally() { jq -cs 'group_by([.ContainerName, .Resource, .PolicyName]) | .[] | [length, (.[0] | .ContainerName, .Resource, .PolicyName)]' alerts.jsonl; }
# of_strangers: whether each alert from a container says which, and those of the one called late all of it.
of_strangers() {
  jq -es --arg id "$(docker inspect --format '{{.Id}}' "$late")" --arg name "$late" --arg agreement "$(agreement late)" \
    'all(.Resource == "/srv/node-secret" or (.ContainerID | length) == 64)
      and (map(select(.ContainerID == $id)) | length > 0 and all(.ContainerName == $name and .ContainerImage == "workload:1"
        and .AgreementID == $agreement and .ServiceURL == "myorg/late" and .PolicyName == "web-secret"))' alerts.jsonl
}
# of_web OPERATION RESOURCE: whether such an alert says all of the service's container.
of_web() {
  jq -es --arg id "$(docker inspect --format '{{.Id}}' "$web")" --arg name "$web" --arg agreement "$web_agreement" \
    --arg operation "$1" --arg resource "$2" \
    'any(.ContainerID == $id and .ContainerName == $name and .ContainerImage == "workload:1" and .AgreementID == $agreement
      and .ServiceURL == "myorg/web" and .ServiceVersion == "1.0.0" and .HostName == "node" and .Operation == $operation
      and .Resource == $resource and .PolicyName == "web-secret" and .Action == "Block")' alerts.jsonl
}
