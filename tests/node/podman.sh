#!/bin/sh
# Runs the agent, with bundles from a directory, on a machine with Podman, whose service lists containers as Docker does.
set -u
exec 2>&1
mkdir -p /var/scenario && cd /var/scenario || exit
# shellcheck source=scenario.sh
. /node/scenario.sh
tell_more() { for log in *.log; do echo "--- $log" && tail -n 40 "$log"; done; }

export PATH=$PATH:/node HZN_ORG_ID=test HZN_NODE_ID=node HZN_ARCH=amd64
export HZN_ARMOR_RUNTIME_SOCKET=/run/podman.sock HZN_ARMOR_POLL_SECONDS=1

status_is() { hzn-armor-agent status --json >status.json 2>&1 && jq -e "$1" status.json >/dev/null; }
podman() { command podman --cgroup-manager=cgroupfs --events-backend=file "$@"; }
run() { podman run --network none "$@"; }
# denied PATH COMMAND...: checks that the command is refused.
denied() {
  denied=$1
  shift
  ! "$@" >said 2>&1 || fail "$denied was permitted: $*"
  grep -qi 'permission denied' said || fail "$denied was not refused: $(cat said)"
}

mkdir -p /var/tmp image/bin image/srv
cp /usr/bin/busybox image/bin/
cp /usr/bin/busybox image/bin/id
for applet in sh cat sleep; do ln -s busybox image/bin/$applet; done
echo secret >image/srv/secret
(podman system service --time=0 unix:///run/podman.sock >>podman.log 2>&1 &)
within 60 test -S /run/podman.sock
tar -c -C image . | podman import - workload:1 >must.out 2>&1 || fail "cannot import the image: $(cat must.out)"
run --detach --name before --label app=web workload:1 /bin/sleep 100000 >must.out 2>&1 || fail "$(cat must.out)"

cat >policy.yaml <<EOF
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  process: {matchPaths: [{path: /bin/id}]}
  file: {matchPaths: [{path: /srv/secret}]}
EOF
must hzn-armor keys generate operator
mkdir -p /var/lib/hzn-armor/trust/trust.d /etc/hzn-armor/bundles
cp operator.pem /var/lib/hzn-armor/trust/trust.d
must hzn-armor bundle build --name web --serial 1 --out payload.json policy.yaml
must hzn-armor bundle sign --key operator.key --out /etc/hzn-armor/bundles/web.bundle payload.json
hzn-armor-agent run >agent.log 2>&1 &
within 180 status_is '.State == "enforcing" and .Bundles[0].Serial == 1'
within 60 status_is '.Containers.Ruled == 1'
denied /bin/id podman exec before /bin/id
denied /srv/secret podman exec before /bin/cat /srv/secret
held "a container of Podman that ran before is under the policy that selects it"

denied /bin/id run --label app=web workload:1 /bin/id
denied /srv/secret run --label app=web workload:1 /bin/cat /srv/secret
held "a new one is from its first instruction on"

within 30 status_is '.Spool.Last == 4 and .Kernel.Dropped == 0'
held "each refusal has one alert"

must podman create --network none --name beside workload:1 /bin/sh -c '/bin/id && /bin/cat /srv/secret'
# As long as the agent has not identified it, it might be any container.
within 60 status_is ".Containers.Known == $(podman ps --all --quiet | wc -l)"
must podman start --attach beside
held "one that no policy selects is not"
finished
