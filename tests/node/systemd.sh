#!/bin/sh
# Runs the agent as a service of a machine, as scripts/install installs it and with the rights that its unit leaves it.
set -u
exec 2>&1
mkdir -p /var/scenario && cd /var/scenario || exit
# shellcheck source=scenario.sh
. /node/scenario.sh
tell_more() {
  echo "--- the journal" && journalctl --no-pager --lines 60
}

export PATH=$PATH:/node HZN_ORG_ID=test
agent=/usr/local/sbin/hzn-armor-agent
status_is() { $agent status --json >status.json 2>&1 && jq -e "$1" status.json >/dev/null; }
denied() {
  ! said=$(cat /srv/secret 2>&1) || fail "$1: permitted"
  case $said in *"Permission denied"*) ;; *) fail "$1: $said" ;; esac
}
# systemd only answers processes of its own pid namespace.
systemctl() { nsenter -t 1 -p systemctl "$@"; }
takes_over() { journalctl --unit hzn-armor-agent --output cat | grep -q 'took_over=true'; }

echo secret >/srv/secret
cat >policy.yaml <<EOF
apiVersion: security.kubearmor.com/v1
kind: KubeArmorHostPolicy
metadata: {name: secret}
spec:
  nodeSelector: {matchLabels: {kubearmor.io/hostname: node}}
  file: {matchPaths: [{path: /srv/secret}]}
EOF
cp -a /node/machine/. /
must hzn-armor keys generate operator
cp operator.pem /var/lib/hzn-armor/trust/trust.d
must hzn-armor bundle build --name machine --serial 1 --out payload.json policy.yaml
must hzn-armor bundle sign --key operator.key --out /etc/hzn-armor/bundles/machine.bundle payload.json
cat >>/etc/hzn-armor/hub.env <<EOF
HZN_ORG_ID=test
HZN_NODE_ID=node
EOF

# Process 1 of the guest is not systemd, which therefore is process 1 of a new pid namespace, whose processes /proc shows from
# here on.
touch /etc/machine-id
(container=guest unshare -p -f sh -c 'mount -t proc none /proc && exec /usr/lib/systemd/systemd --unit=hzn-armor-agent.service' &)
within 180 status_is '.State == "enforcing" and .Bundles[0].Serial == 1'
denied "under the unit"
within 30 status_is '.Kernel.Blocked == 1 and .Spool.Last == 1'
held "systemd's agent enforces a bundle from a directory, and has the alert"

must systemctl restart hzn-armor-agent
denied "while it starts again"
within 120 takes_over
within 60 status_is '.State == "enforcing"'
held "started again it takes over"

must systemctl stop hzn-armor-agent
denied "without an agent"
must $agent detach
must cat /srv/secret
held "stopped, it leaves enforcement until it is detached"
finished
