#!/bin/sh
# Plugs USB devices into a machine under rules for them, with an agent and while there is none. scripts/test runs it as root in a
# guest with a controller for USB, whose emulator plugs devices in. It prints its results as a Rust test does, and the agent's
# log when something does not hold.
set -u
exec 2>&1
mkdir /run/usb && cd /run/usb || exit

export HZN_ORG_ID=test HZN_EXCHANGE_USER_AUTH=operator:password HZN_FSS_CSSURL=http://127.0.0.1:8580
export HZN_ORGANIZATION=test HZN_NODE_ID=node HZN_ARCH=amd64
export HZN_ESS_API_PROTOCOL=secure-unix HZN_ESS_API_ADDRESS="$PWD/hub/essapi.sock"
export HZN_ESS_AUTH="$PWD/hub/ess-auth/auth.json" HZN_ESS_CERT="$PWD/hub/ess-cert/cert.pem"
export HZN_ARMOR_POLL_SECONDS=1
devices=/sys/bus/usb/devices later=/sys/module/usbcore/parameters/authorized_default

# shellcheck source=scenario.sh
. /scenarios/scenario.sh
tell_more() {
  for log in *.log; do echo "--- $log" && tail -n 40 "$log" | cut -c 1-300; done
  head $devices/*/authorized $devices/*/authorized_default status.json
}

start_agent() {
  hzn-armor-agent run >agent.log 2>&1 &
  agent=$!
}
end_agent() { kill -s "$1" "$agent" && wait "$agent"; }
status_has() { hzn-armor-agent status --json >status.json 2>&1 && grep -q "$1" status.json; }
enforces_serial() { status_has "\"Serial\": $1," && status_has '"State": "enforcing"'; }
# publish SERIAL OPTION...
publish() {
  serial=$1
  shift
  must hzn-armor bundle build --name usb --serial "$serial" --out payload.json "$@"
  must hzn-armor bundle sign --key operator.key --out usb.bundle payload.json
  must hzn-armor bundle publish --service hzn-armor usb.bundle
}
# plug DEVICE PORT [OPTIONS]: DEVICE is QEMU's name for it.
plug() { echo "device_add usb-$1,id=$1,bus=usb.0,port=$2${3-}" >&9; }
unplug() { echo "device_del $1" >&9; }
is() { [ "$(cat "$devices/$1/authorized" 2>/dev/null)" = "$2" ]; }
defaults() { cat $devices/usb1/authorized_default $devices/usb2/authorized_default $later | tr '\n' ' '; }
is_closed() { [ "$(defaults)" = "0 0 0 " ]; }
# Before the agent, as kernels have it: -1 is the same as 1.
is_open() { defaults | grep -q '^1 1 -\?1 $'; }
is_bound() { [ -e "$devices/$1/$1:1.0/driver" ]; }
# told RESOURCE ACTION TIMES: the alerts that have come to the collector.
told() {
  must hzn-armor alerts collect --key receipts.key --state collector --out alerts.jsonl
  [ "$(grep -c "\"Operation\":\"Device\",\"Resource\":\"USB $1\".*\"Enforcer\":\"USBDeviceHandler\",\"Action\":\"$2\"" alerts.jsonl)" -eq "$3" ]
}

# The emulator's monitor. What it answers is read, as it waits otherwise.
stty -F /dev/ttyS3 raw -echo
exec 9<>/dev/ttyS3
tr -d '\033' <&9 >monitor.log &
# Ends the line that its greeting may have begun, which came back to it until there was no echo.
echo >&9
cat >policy.yaml <<EOF
apiVersion: security.kubearmor.com/v1
kind: KubeArmorHostPolicy
metadata: {name: usb}
spec:
  nodeSelector: {matchLabels: {kubearmor.io/hostname: "*"}}
  device:
    matchDevice:
    - class: MASS-STORAGE
    - class: "0x0A"
    - {class: HID, subClass: 1, protocol: 1, action: Audit}
    - {class: HID, level: 2}
EOF
must hzn-armor keys generate operator
must hzn-armor keys generate receipts
mkdir -p /var/lib/hzn-armor/trust/trust.d /var/lib/hzn-armor/trust/receipt.d collector
cp operator.pem /var/lib/hzn-armor/trust/trust.d
cp receipts.pem /var/lib/hzn-armor/trust/receipt.d
hzn-armor-dev-hub --dir hub --org test --node node --service hzn-armor:1.0.0:token --user operator:password >hub.log 2>&1 &
within 20 grep -q ^ready hub.log

start_agent
publish 1 policy.yaml
within 180 enforces_serial 1
grep -q 'policy.yaml:[0-9]*): the kernel has no USB' status.json || fail "nothing says that the rules are about nothing"
hzn-armor-agent probe | grep -q '^USB *none' || fail "probe does not say so"
held "a rule for devices of a kernel without USB is told by its place"

while read -r module; do insmod "/usr/lib/armor-vm/$module" || fail "cannot load $module"; done </usr/lib/armor-vm/usb.order
within 60 is_closed
hzn-armor-agent probe | grep -q '^USB *devices can be kept out' || fail "probe does not say that devices can be kept out"
held "controllers that come later start with all devices unauthorised"

plug kbd 1
within 60 is 1-1 1
within 30 is_bound 1-1
within 60 told HID_1_1\ 1 Audit 1
held "a permitted device is authorised and reported"

echo "drive_add 0 if=none,id=stick,driver=null-co,size=1048576" >&9
plug storage 2 ,drive=stick
within 60 told MASS-STORAGE_6_80\ 1 Block 1
is 2-2 0 || fail "the device is authorised"
[ ! -e $devices/2-2:1.0 ] && [ ! -e $devices/2-2/2-2:1.0 ] && [ ! -e /sys/block/sda ] || fail "it was bound to a driver"
held "a refused device is not used at all"

plug net 3
within 60 told CDC-DATA_0_0\ 1 Block 1
is 1-3 0 || fail "the device is authorised"
held "a device is refused for one of its interfaces"

plug hub 4
within 60 is 1-4 1
plug mouse 4.1
within 60 told HID_1_2\ 2 Block 1
is 1-4.1 0 || fail "the device is authorised"
unplug mouse
gone() { [ ! -e $devices/1-4.1 ]; }
within 60 gone
plug mouse 5
within 60 is 1-5 1
held "a rule for a level is about devices behind a hub"

policies_say() { hzn-armor-agent status --policies >policies.out 2>&1 && grep -q "$1" policies.out; }
within 30 policies_say 'usb/usb: the host, 3 blocked, 1 audited'
held "device alerts count for their policy"

end_agent KILL
plug tablet 6
plug ccid 7
within 60 is 1-6 0
within 60 is 1-7 0
is 1-1 1 && is 2-2 0 || fail "what the agent has decided does not stay"
start_agent
within 120 is 1-6 1
within 60 is 1-7 1
is 1-1 1 && is 2-2 0 || fail "the next agent decides otherwise"
within 60 told HID_1_1\ 1 Audit 1
within 10 told MASS-STORAGE_6_80\ 1 Block 1
held "without an agent new devices stay unauthorised, until the next one decides"

sed -i 's|- class: MASS-STORAGE|- {class: ALL, action: Allow}\n    - {class: HID, subClass: 0, message: tablets}|' policy.yaml
publish 2 policy.yaml
within 60 enforces_serial 2
within 60 is 2-2 1
within 60 told HID_0_0\ 1 Audit 1
is 1-6 1 || fail "a device from before was cut"
publish 3 --already-held kill policy.yaml
within 60 is 1-6 0
within 60 told HID_0_0\ 1 Block 1
held "a device from before the rules is reported, or cut where the bundle says so"

publish 4 --lift
within 60 is 1-6 1
within 60 is 1-3 1
is_open || fail "it is not as it was before the rules"
held "lifting the bundle authorises what was kept out, and leaves new devices to the kernel"

publish 5 policy.yaml
within 60 enforces_serial 5
within 60 is_closed
end_agent TERM
is_closed || fail "a stop opens what the rules close"
must hzn-armor-agent detach
is_open || fail "detach leaves it closed"
held "detach ends it as it ends everything else"
finished
