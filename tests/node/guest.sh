# shellcheck shell=dash
# A node in a guest: functions for what its operator, Open Horizon's agent and its hub do, for the scenarios beside this file.
# They source it as root; /node has what tests/node/run brought, /var/scenario what must outlive a reboot.
set -u
exec 2>&1
mkdir -p /var/scenario && cd /var/scenario || exit

export PATH=$PATH:/node
org=myorg node=node1 css=http://127.0.0.1:8580
# The operator's variables, as `hzn` reads them.
export HZN_ORG_ID=$org HZN_EXCHANGE_USER_AUTH=operator:operator-password HZN_FSS_CSSURL=$css
# Directories of Open Horizon's agent.
horizon=/var/horizon auth=/var/horizon/ess-auth socket_dir=/var/run/horizon

# shellcheck source=scenario.sh
. /node/scenario.sh
tell_more() {
  for agent in $(docker ps --all --quiet --filter label=openhorizon.anax.service_name=hzn-armor-agent); do
    echo "--- the agent's log, container $agent" && docker logs --tail 40 "$agent"
  done
  for log in *.log; do echo "--- $log" && tail -n 20 "$log"; done
}

# start_dockerd [OPTION]...: starts dockerd. Daemons are not children of the scenario, which waits for its children. No scenario
# is about networks, and iptables takes seconds, emulated.
start_dockerd() {
  (dockerd "$@" --iptables=false --ip6tables=false >>dockerd.log 2>&1 &)
  within 120 docker_answers
}
docker_answers() { docker version >/dev/null 2>&1; }

# credential ID ROLE IDENTITY TOKEN: adds a caller to those that the hub knows. The file is replaced as a whole, as the hub may
# read it at any time.
credential() {
  [ -e credentials.json ] || echo "{\"hub\":\"$org/openhorizon.edgenode/$node\",\"credentials\":{}}" >credentials.json
  jq --arg id "$1" --arg role "$2" --arg identity "$3" --arg token "$4" --arg org $org \
    '.credentials[$id] = {$token, $role, $org, $identity}' credentials.json >credentials.new
  mv credentials.new credentials.json
}

# start_hub: starts the CSS, and the node's ESS with state, socket and certificate where Open Horizon's agent has them.
start_hub() {
  credential "$org/openhorizon.edgenode/$node" node "openhorizon.edgenode/$node" node-token
  credential "$org/hub-admin" admin hub-admin hub-admin-token
  credential "$org/operator" user operator operator-password
  mkdir -p $horizon/css $horizon/ess-store $auth/SSL/cert $socket_dir
  rm -f $socket_dir/essapi.sock
  cat >css.conf <<CONF
NodeType CSS
ListeningType unsecure
ListeningAddress 127.0.0.1
UnsecureListeningPort 8580
CommunicationProtocol http
StorageProvider bolt
PersistenceRootPath $horizon/css
LogTraceDestination stdout
ResendInterval 1
CONF
  cat >ess.conf <<CONF
NodeType ESS
DestinationType openhorizon.edgenode
DestinationId $node
OrgId $org
ListeningType secure-unix
ListeningAddress $socket_dir/essapi.sock
UnixSocketFilePermissions 0666
CommunicationProtocol http
HTTPCSSHost 127.0.0.1
HTTPCSSPort 8580
HTTPPollingInterval 1
StorageProvider bolt
PersistenceRootPath $horizon/ess-store
LogTraceDestination stdout
ResendInterval 1
EnableDataChunk true
MaxDataChunkSize 5242880
CONF
  (/node/real-hub -c css.conf -auth credentials.json >>css.log 2>&1 &)
  within 60 css_answers
  (/node/real-hub -c ess.conf -auth credentials.json >>ess.log 2>&1 &)
  within 60 test -S $socket_dir/essapi.sock
  must cp $horizon/ess-store/sync/certs/cert.pem $auth/SSL/cert/cert.pem
}
css_answers() { admin -O /dev/null "$css/api/v1/health" 2>/dev/null; }
admin() { wget -q --header "Authorization: Basic $(printf %s "$org/hub-admin:hub-admin-token" | base64)" "$@"; }

# set_up [OPTION_OF_DOCKERD]...: sets up a node and its hub, the images, and the operator's keys, whose public halves are pinned
# on the node.
set_up() {
  start_dockerd "$@"
  start_hub
  load_images
  must hzn-armor keys generate operator
  must hzn-armor keys generate receipts
  mkdir -p /var/lib/hzn-armor/trust/trust.d /var/lib/hzn-armor/trust/receipt.d
  cp operator.pem /var/lib/hzn-armor/trust/trust.d
  cp receipts.pem /var/lib/hzn-armor/trust/receipt.d
}
# publish SERIAL: publishes a bundle as the operator; the destination is the one that Open Horizon's agbot finds.
publish() {
  must hzn-armor bundle build --name edge --serial "$1" --out payload.json /node/policies.yaml
  must hzn-armor bundle sign --key operator.key --out edge.bundle payload.json
  must hzn-armor bundle publish --service hzn-armor edge.bundle
  object=$(sed -n 's/^published //p' must.out)
  within 30 placed "$object"
}
# publish_by_hzn SERIAL: publishes, as a publisher, a plain payload that hzn signs. The key is pinned as any other.
publish_by_hzn() {
  must hzn-armor keys generate --type rsa publisher
  cp publisher.pem /var/lib/hzn-armor/trust/trust.d
  must hzn-armor bundle build --name edge --serial "$1" --out payload.json /node/policies.yaml
  export HZN_EXCHANGE_URL=http://127.0.0.1:1/v1 SERVICE_NAME=hzn-armor BUNDLE_NAME=edge BUNDLE_SERIAL="$1"
  BUNDLE_ID=edge.$1.$(sha256sum payload.json | cut -c1-12) && export BUNDLE_ID
  must hzn mms object publish --def /node/bundle.object.json --object payload.json --disableChunkUpload --hashAlgo SHA256 \
    --private-key-file publisher.key
  within 30 placed "hzn-armor.bundle/$BUNDLE_ID"
}
placed() {
  admin -O /dev/null --post-data "{\"action\":\"add\",\"destinations\":[\"openhorizon.edgenode:$node\"]}" \
    "$css/api/v1/objects/$org/$1/destinations"
}
# collect: collects what is at the hub, each alert once into alerts.jsonl, the nodes' statuses and other findings into
# findings.jsonl.
collect() { must hzn-armor alerts collect --key receipts.key --state collector --out alerts.jsonl --report findings.jsonl; }

# load_images: loads the agent's images, and makes one of a workload with a program and a file that web.sh must not get at.
load_images() {
  must docker load --input /node/agent.tar
  mkdir -p /run/web/bin /run/web/srv
  cp /usr/bin/busybox /node/web.sh /run/web/bin/
  # The program that must not run is not a link to the others.
  for program in id true; do cp /usr/bin/busybox /run/web/bin/$program; done
  for applet in sh cat sleep; do ln -s busybox /run/web/bin/$applet; done
  echo secret | tee /run/web/srv/secret >/run/web/srv/guarded
  tar -c -C /run/web . | docker import - workload:1 >must.out || fail "cannot import the workload's image"
}

# agreement WORD: prints the id of the agreement.
agreement() { printf %s "$1" | sha256sum | cut -c1-64; }
# agree AGREEMENT URL VERSION TOKEN: writes the service's credentials under an agreement.
agree() {
  mkdir -p "$auth/$1"
  printf '{"id":"%s/%s","token":"%s","version":"%s"}' $org "$2" "$4" "$3" >"$auth/$1/auth.json"
}
# given AGREEMENT NAME: prints what Open Horizon's agent adds to a container, as docker's arguments.
given() {
  for label in service_name="$2" agreement_id="$1" variation= deployment_description_hash=; do
    echo "--label=openhorizon.anax.$label"
  done
  for variable in AGREEMENTID="$1" NODE_ID=$node DEVICE_ID=$node ORGANIZATION=$org PATTERN= EXCHANGE_URL=http://127.0.0.1:1/v1 \
    ESS_API_PROTOCOL=secure-unix ESS_API_ADDRESS=$socket_dir/essapi.sock ESS_API_PORT=0 ESS_AUTH=/ess-auth/auth.json \
    ESS_CERT=/ess-cert/cert.pem ARCH=amd64 CPUS=2 RAM=2048 HARDWAREID=node1 PRIVILEGED=true HOST_IPS=127.0.0.1; do
    echo "--env=HZN_$variable"
  done
  echo "--volume=$socket_dir:$socket_dir"
  echo "--volume=$auth/$1:/ess-auth:ro"
  echo "--volume=$auth/SSL/cert:/ess-cert:ro"
}
# start AGREEMENT NAME ARGUMENT...: starts a container as Open Horizon's agent does.
start() {
  id=$1 name=$2
  shift 2
  # shellcheck disable=SC2046
  must docker run --detach --name "$id-$name" --restart always --log-driver json-file $(given "$id" "$name") "$@"
}
# start_agent AGREEMENT [DEFINITION]: starts the agent as the service's definition says. The token of an earlier agreement ends.
start_agent() {
  agree "$1" hzn-armor 0.1.0 "token-of-$1"
  credential "$org/hzn-armor" service "$org/0.1.0/hzn-armor" "token-of-$1"
  # shellcheck disable=SC2046
  start "$1" hzn-armor-agent $(cat "/node/${2-definition}")
  agent=$1-hzn-armor-agent
}
# end_agreement CONTAINER: ends an agreement as Open Horizon's agent does.
end_agreement() {
  must docker kill "$1"
  must docker rm "$1"
}
# status_is FILTER: succeeds if the jq filter holds for the status of a running agent.
status_is() { docker exec "$agent" /hzn-armor-agent status --json >status.json 2>&1 && jq -e "$1" status.json >/dev/null; }
