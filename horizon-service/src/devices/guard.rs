//! Decides on the USB devices that are there, and authorises or cuts them accordingly.
//!
//! Invariants:
//! - A device that appears under rules is used only after it was decided on, and not if that is refused.
//! - The agent authorises no device that would be unauthorised without it.
//! - A pass looks at all that there is; nothing depends on every message of the kernel being heard.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use armor_alerts::alert::Alert;
use armor_bundle::payload::AlreadyHeld;
use armor_policy::Domain;
use armor_policy::decision::{Decision, RuleInfo, Verdict};
use armor_policy::device::{DeviceTable, Function};
use jiff::Timestamp;

use crate::base::disk::DiskError;
use crate::devices::descriptors::functions;
use crate::devices::record::{Before, Record, RecordFile, Seen};
use crate::devices::sysfs::{
    ALL, Authorization, BUILT_IN, DEVICES, Device, NONE, Present, SysfsError, UsbTree,
};
use crate::events::alerts::{self, Origin, UNKNOWN_DEVICE};

/// `DeviceRules` are the rules for devices in force.
#[derive(Clone, Default)]
pub struct DeviceRules {
    /// The host's domain; `None` if it has no rules.
    pub domain: Option<Arc<Domain>>,
    /// Serial of each bundle with policies, and what it says of what was there before.
    pub bundles: BTreeMap<String, (u64, AlreadyHeld)>,
    /// Maximum number of alerts per second and rule; 0 for no limit.
    pub alerts_per_second: u32,
}

impl PartialEq for DeviceRules {
    fn eq(&self, other: &Self) -> bool {
        let is_same_domain = match (&self.domain, &other.domain) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (own, other) => own.is_none() && other.is_none(),
        };
        is_same_domain && (&self.bundles, self.alerts_per_second) == (&other.bundles, other.alerts_per_second)
    }
}

impl DeviceRules {
    fn table(&self) -> Option<&DeviceTable> {
        self.domain.as_ref().map(|domain| &domain.devices).filter(|table| !table.is_empty())
    }

    /// Returns whether the bundle of a rule has what was there before ended. What no bundle has decided alone counts as decided
    /// by each.
    fn kill(&self, rule: &RuleInfo) -> bool {
        let kills = |held: &AlreadyHeld| *held == AlreadyHeld::Kill;
        match self.bundles.get(&rule.bundle) {
            Some((_, held)) => kills(held),
            None => self.bundles.values().any(|(_, held)| kills(held)),
        }
    }

    /// Returns the names of the policies with such rules, for messages.
    pub fn policies(&self) -> String {
        let rules = self.domain.iter().flat_map(|domain| {
            let decisions =
                domain.devices.decisions().filter(|decision| decision.verdict() != Verdict::Allow);
            decisions.filter_map(|decision| domain.rules.get(decision.rule() as usize))
        });
        let names: BTreeSet<&str> = rules.map(|rule| rule.policy.as_str()).collect();
        names.into_iter().collect::<Vec<_>>().join(", ")
    }
}

/// A `DeviceError` is the reason why rules for devices do not hold for all of them.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// A device or controller cannot be read or changed.
    #[error(transparent)]
    Sysfs(#[from] SysfsError),
    /// What was there before cannot be kept, so nothing was changed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// An `Outcome` is what a pass has found.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The alerts.
    pub alerts: Vec<Alert>,
    /// The first failure. The pass has gone on with the other devices.
    pub failure: Option<DeviceError>,
    /// True if alerts were kept back, of which a later pass reports the number.
    pub kept_back: bool,
}

/// A `Decided` is a decision on a device.
struct Decided {
    verdict: Verdict,
    /// The function that it is about.
    function: Function,
    rule: RuleInfo,
}

/// A `Sight` is what is known of a device besides what sysfs shows.
#[derive(Clone, Copy)]
struct Sight {
    /// What was made of it before; `None` if it has appeared under rules.
    known: Option<Seen>,
    /// True if it was not reported under these bundles.
    is_news: bool,
}

/// A `DeviceGuard` keeps devices out.
pub struct DeviceGuard {
    tree: UsbTree,
    file: RecordFile,
    /// What was found at the last pass; `None` while there are no rules.
    record: Option<Record>,
    /// The rules of the last pass; `None` before the first one.
    last: Option<DeviceRules>,
    origin: Origin,
    /// A second since the start, and how often each rule decided in it.
    rates: (u64, BTreeMap<String, u32>),
    /// Number of alerts kept back since the last pass.
    kept_back: u64,
    started: Instant,
}

impl DeviceGuard {
    /// Takes over what an earlier agent has left in a state directory.
    pub fn new(tree: UsbTree, state_dir: &Path, origin: Origin) -> Self {
        let (file, record) = RecordFile::open(state_dir);
        let (rates, started) = ((0, BTreeMap::new()), Instant::now());
        Self { tree, file, record, last: None, origin, rates, kept_back: 0, started }
    }

    /// Makes the rules hold for the devices that are there and, if they may refuse one, for those that will be. Without rules,
    /// authorises the devices that were kept out, and leaves new ones to the kernel again. May take seconds.
    pub fn pass(&mut self, rules: &DeviceRules) -> Outcome {
        let mut outcome = Outcome::default();
        if self.kept_back > 0 {
            outcome.alerts.push(alerts::threshold(&self.origin, std::mem::take(&mut self.kept_back), 0));
        }
        if let Err(error) = self.enforce(rules, &mut outcome) {
            outcome.failure.get_or_insert(error);
        }
        outcome.kept_back = self.kept_back > 0;
        outcome
    }

    /// Ends the rules.
    ///
    /// # Errors
    /// Fails with [`DeviceError`] if devices are still kept out.
    pub fn lift(&mut self) -> Result<(), DeviceError> {
        let Outcome { failure, .. } = self.pass(&DeviceRules::default());
        failure.map_or(Ok(()), Err)?;
        Ok(self.keep()?)
    }

    /// Stores what passes have found, once their alerts are durable. If that fails, the next agent reports it again.
    ///
    /// # Errors
    /// Fails with [`DiskError::Io`] if the state directory cannot be written to.
    pub fn keep(&mut self) -> Result<(), DiskError> {
        self.file.store(self.record.as_ref())
    }

    fn enforce(&mut self, rules: &DeviceRules, outcome: &mut Outcome) -> Result<(), DeviceError> {
        if rules.table().is_none() && self.record.is_none() {
            return Ok(());
        }
        let first = self.present()?;
        let mut record = self.record.take().unwrap_or_else(|| {
            // Under the first rules, what is there is from before. That is on disk before anything is changed, for an agent that
            // goes on.
            let mut record = Record::default();
            let old =
                |device: &Device| (device.name.clone(), Seen { id: device.id, held: false, pending: true });
            record.devices = first.devices.iter().map(old).collect();
            record
        });
        let before = record.before.clone();
        let settled = match rules.table().is_some_and(DeviceTable::refuses) {
            true => self.close(&first.controllers, &mut record),
            false => self.open(&first.controllers, &mut record),
        };
        outcome.failure = settled.err();
        let before = record.before.clone().or(before);

        let serials = rules.bundles.iter().map(|(name, (serial, _))| (name.clone(), *serial)).collect();
        let are_others = record.bundles != serials;
        let are_same = self.last.as_ref() == Some(rules);
        let mut seen = BTreeMap::new();
        let devices = match self.present() {
            Ok(present) => present.devices,
            Err(error) => {
                self.record = Some(record);
                return Err(error.into());
            }
        };
        for device in devices {
            let known = record.devices.get(&device.name).filter(|known| known.id == device.id).copied();
            if let Some(known) = known.filter(|known| are_same && !known.pending) {
                seen.insert(device.name, known);
                continue;
            }
            let sight = Sight { known, is_news: are_others || known.is_none_or(|known| known.pending) };
            match self.judge(rules, before.as_ref(), &device, sight, &mut outcome.alerts) {
                Ok(now) => drop(seen.insert(device.name, now)),
                // What is gone cannot be judged, and need not be.
                Err(_) if !self.tree.has(&device) => {}
                Err(error) => {
                    outcome.failure.get_or_insert(error.into());
                    seen.extend(known.map(|known| (device.name, Seen { pending: true, ..known })));
                }
            }
        }
        (record.devices, record.bundles) = (seen, serials);
        let is_over = rules.table().is_none() && outcome.failure.is_none();
        self.record = (!is_over).then_some(record);
        self.last = Some(rules.clone());
        Ok(())
    }

    fn present(&self) -> Result<Present, SysfsError> {
        if self.tree.exists() { self.tree.look() } else { Ok(Present::default()) }
    }

    /// Has new devices start unauthorised.
    fn close(&mut self, controllers: &[String], record: &mut Record) -> Result<(), DeviceError> {
        if !self.tree.exists() {
            return Ok(());
        }
        let mut before = match record.before.clone() {
            Some(before) => before,
            None => Before { later: self.tree.authorization_of_later()?, ..Before::default() },
        };
        before.controllers.retain(|name, _| controllers.contains(name));
        for name in controllers {
            if before.controllers.contains_key(name) {
                continue;
            }
            let authorization = match self.tree.authorization(name)? {
                // One that was made since would have had another.
                NONE if record.before.is_some() => of_controller(before.later),
                authorization => authorization,
            };
            before.controllers.insert(name.clone(), authorization);
        }
        record.before = Some(before);
        self.file.store(Some(record))?;
        self.tree.set_authorization_of_later(NONE)?;
        for name in controllers {
            self.tree.set_authorization(name, NONE)?;
        }
        Ok(())
    }

    /// Leaves new devices to the kernel again, as it was before.
    fn open(&self, controllers: &[String], record: &mut Record) -> Result<(), DeviceError> {
        let Some(before) = &record.before else { return Ok(()) };
        if self.tree.exists() {
            self.tree.set_authorization_of_later(before.later)?;
        }
        for name in controllers {
            let before = before.controllers.get(name).copied().unwrap_or(of_controller(before.later));
            self.tree.set_authorization(name, before)?;
        }
        record.before = None;
        Ok(())
    }

    /// Makes the rules hold for a device, and reports what came of it.
    fn judge(
        &mut self,
        rules: &DeviceRules,
        before: Option<&Before>,
        device: &Device,
        sight: Sight,
        alerts: &mut Vec<Alert>,
    ) -> Result<Seen, SysfsError> {
        let decided = self.decide(rules, device)?;
        let authorized = self.tree.is_authorized(device)?;
        let mut held = !authorized && sight.known.is_none_or(|known| known.held);
        // Whether it is reported, and as refused.
        let refused = match (decided.verdict, authorized) {
            (Verdict::Block, true) if sight.known.is_none() || rules.kill(&decided.rule) => {
                self.tree.authorize(device, false)?;
                held = true;
                Some(true)
            }
            (Verdict::Block, true) => Some(false),
            (Verdict::Block, false) => held.then_some(true),
            (verdict, mut is_used) => {
                if held && self.would_be_authorized(before, device) {
                    held = false;
                    let outcome = self.tree.authorize(device, true);
                    is_used = outcome.is_ok();
                    if let Err(error) = outcome {
                        tracing::warn!(
                            device = device.name,
                            "{error}: permitted, but it does not work; plug it in again"
                        );
                    }
                }
                (verdict == Verdict::Audit && is_used).then_some(false)
            }
        };
        if let Some(refused) = refused.filter(|_| sight.is_news)
            && self.is_within_rate(rules.alerts_per_second, &decided.rule)
        {
            let serial = rules.bundles.get(&decided.rule.bundle).map_or(0, |(serial, _)| *serial);
            alerts.push(alert(&self.origin, device, decided, serial, refused));
        }
        Ok(Seen { id: device.id, held, pending: false })
    }

    fn decide(&self, rules: &DeviceRules, device: &Device) -> Result<Decided, SysfsError> {
        let (Some(domain), Some(table)) = (&rules.domain, rules.table()) else {
            let (verdict, function) = (Verdict::Allow, Function::default());
            return Ok(Decided { verdict, function, rule: RuleInfo::default() });
        };
        Ok(match functions(&self.tree.descriptors(device)?) {
            Ok(functions) => {
                let (decision, function) = table.strictest(&functions, device.level());
                let rule = domain.rules.get(decision.rule() as usize).cloned().unwrap_or_default();
                Decided { verdict: decision.verdict(), function, rule }
            }
            Err(error) => Decided {
                verdict: table.decisions().map(Decision::verdict).max().unwrap_or(Verdict::Block),
                function: Function::default(),
                rule: RuleInfo {
                    policy: UNKNOWN_DEVICE.to_owned(),
                    message: format!("what the device is cannot be told: {error}"),
                    severity: 10,
                    ..RuleInfo::default()
                },
            },
        })
    }

    /// Returns whether the kernel would have authorised a device, had the agent not had it authorise none.
    fn would_be_authorized(&self, before: Option<&Before>, device: &Device) -> bool {
        match before.and_then(|before| before.controllers.get(&device.controller())) {
            None | Some(&NONE) => false,
            Some(&BUILT_IN) => self.tree.is_built_in(device),
            Some(_) => true,
        }
    }

    /// Counts a decision of a rule, and returns whether its rate leaves room for an alert.
    fn is_within_rate(&mut self, per_second: u32, rule: &RuleInfo) -> bool {
        let second = self.started.elapsed().as_secs();
        if self.rates.0 != second {
            self.rates = (second, BTreeMap::new());
        }
        let count =
            self.rates.1.entry(format!("{} {} {}", rule.bundle, rule.policy, rule.location)).or_default();
        *count += 1;
        let is_within = per_second == 0 || *count <= per_second;
        self.kept_back += u64::from(!is_within);
        is_within
    }
}

/// Returns what a controller has of what is set for all that are made later, which knows one name more for the same.
const fn of_controller(later: Authorization) -> Authorization {
    match later {
        NONE | BUILT_IN => later,
        _ => ALL,
    }
}

/// Returns the alert about a device, in KubeArmor's words.
fn alert(origin: &Origin, device: &Device, decided: Decided, serial: u64, refused: bool) -> Alert {
    let Decided { function, rule, .. } = decided;
    let Function { class, sub_class, protocol } = function;
    let (level, name) = (device.level(), &device.name);
    Alert {
        policy_name: rule.policy,
        severity: if rule.severity == 0 { String::new() } else { rule.severity.to_string() },
        tags: rule.tags.join(","),
        atags: rule.tags,
        message: rule.message,
        kind: "MatchedHostPolicy".to_owned(),
        operation: "Device".to_owned(),
        resource: format!("USB {function} {level}"),
        data: format!(
            "Class={class} SubClass={sub_class} Protocol={protocol} Level={level} SysPath={DEVICES}/{name}"
        ),
        enforcer: "USBDeviceHandler".to_owned(),
        action: if refused { "Block" } else { "Audit" }.to_owned(),
        result: if refused { "Permission denied" } else { "Passed" }.to_owned(),
        bundle: rule.bundle,
        bundle_serial: serial,
        ..alerts::of_node(origin, Timestamp::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::descriptors::tests::descriptors;
    use armor_policy::{Links, PolicySet, Posture, Postures, compile};
    use std::fs;

    const HID: [u8; 3] = [3, 1, 1];
    const STORAGE: [u8; 3] = [8, 6, 80];

    /// A tree of files like those of sysfs, in which a device stays as it is authorised.
    struct Fake(tempfile::TempDir);

    impl Fake {
        fn new() -> Self {
            let fake = Self(tempfile::tempdir().unwrap());
            fake.write("module/usbcore/parameters/authorized_default", b"-1\n");
            fake.controller("usb1", "1");
            fake
        }

        fn write(&self, attribute: &str, content: &[u8]) {
            let path = self.0.path().join("sys").join(attribute);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        fn read(&self, attribute: &str) -> String {
            fs::read_to_string(self.0.path().join("sys").join(attribute)).unwrap().trim().to_owned()
        }

        fn controller(&self, name: &str, authorization: &str) {
            self.write(&format!("bus/usb/devices/{name}/authorized_default"), authorization.as_bytes());
        }

        /// Plugs a device in, which is authorised as its controller says.
        fn plug(&self, name: &str, interfaces: &[[u8; 3]]) {
            let controller = format!("usb{}", name.split('-').next().unwrap());
            let authorized = self.defaults(&controller) != "0";
            self.write(&format!("bus/usb/devices/{name}/descriptors"), &descriptors([0; 3], interfaces));
            self.write(&format!("bus/usb/devices/{name}/authorized"), if authorized { b"1" } else { b"0" });
        }

        /// Takes a device out. Its directory is kept elsewhere, as sysfs does not give numbers again so soon.
        fn unplug(&self, name: &str) {
            let device = self.0.path().join(format!("sys/bus/usb/devices/{name}"));
            fs::rename(device, self.0.path().join(format!("{name}.gone"))).unwrap();
        }

        fn defaults(&self, controller: &str) -> String {
            self.read(&format!("bus/usb/devices/{controller}/authorized_default"))
        }

        fn later(&self) -> String {
            self.read("module/usbcore/parameters/authorized_default")
        }

        fn is_used(&self, device: &str) -> bool {
            self.read(&format!("bus/usb/devices/{device}/authorized")) == "1"
        }

        /// Returns a guard as an agent has it after its start.
        fn guard(&self) -> DeviceGuard {
            DeviceGuard::new(UsbTree::below(self.0.path()), self.0.path(), Origin::default())
        }
    }

    fn rules(spec: &str, serial: u64, held: AlreadyHeld) -> DeviceRules {
        let text = format!(
            "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {{name: usb}}\nspec:\n  nodeSelector: \
             {{matchLabels: {{a: b}}}}\n  severity: 3\n  device: {{matchDevice: [{spec}]}}\n"
        );
        let policies = armor_policy::parse("usb.yaml", &text).unwrap();
        let postures = Some(Postures::all(Posture::Block));
        let set = PolicySet { bundle: "edge", postures, policies: policies.iter().collect() };
        DeviceRules {
            domain: Some(Arc::new(compile(&[set], &Links::new()).unwrap())),
            bundles: [("edge".to_owned(), (serial, held))].into(),
            alerts_per_second: 0,
        }
    }

    /// Makes a pass, and returns its alerts in short.
    fn pass(guard: &mut DeviceGuard, rules: &DeviceRules) -> Vec<String> {
        let Outcome { alerts, failure, .. } = guard.pass(rules);
        assert!(failure.is_none(), "{failure:?}");
        guard.keep().unwrap();
        let short = |alert: Alert| format!("{} {} {}", alert.policy_name, alert.action, alert.resource);
        alerts.into_iter().map(short).collect()
    }

    #[test]
    fn a_device_that_appears_is_used_only_if_no_rule_refuses_it() {
        let (fake, rules) = (
            Fake::new(),
            rules("{class: MASS-STORAGE}, {class: HID, action: Audit}", 1, AlreadyHeld::Report),
        );
        let mut guard = fake.guard();
        assert!(pass(&mut guard, &rules).is_empty());
        assert_eq!((fake.defaults("usb1"), fake.later()), ("0".to_owned(), "0".to_owned()));
        fake.plug("1-1", &[STORAGE]);
        fake.plug("1-2", &[HID]);
        fake.plug("1-3.4", &[HID, STORAGE]);
        fake.plug("1-4", &[[7, 1, 2]]);
        let said = pass(&mut guard, &rules);
        let expected = [
            "usb Block USB MASS-STORAGE_6_80 1",
            "usb Audit USB HID_1_1 1",
            "usb Block USB MASS-STORAGE_6_80 2",
        ];
        assert_eq!(said, expected);
        assert_eq!(["1-1", "1-2", "1-3.4", "1-4"].map(|name| fake.is_used(name)), [false, true, false, true]);
        assert!(pass(&mut guard, &rules).is_empty(), "each is reported once");
        // A controller that comes meanwhile, and a device that is replaced.
        fake.controller("usb2", "0");
        fake.unplug("1-2");
        fake.plug("1-2", &[STORAGE]);
        assert_eq!(pass(&mut guard, &rules), ["usb Block USB MASS-STORAGE_6_80 1"]);

        // Another agent goes on, with what has appeared while there was none.
        fake.plug("2-1", &[STORAGE]);
        fake.plug("2-2", &[HID]);
        let mut guard = fake.guard();
        assert_eq!(
            pass(&mut guard, &rules),
            ["usb Block USB MASS-STORAGE_6_80 1", "usb Audit USB HID_1_1 1"]
        );
        assert_eq!(["1-1", "2-1", "2-2"].map(|name| fake.is_used(name)), [false, false, true]);

        assert!(pass(&mut guard, &DeviceRules::default()).is_empty());
        assert_eq!(
            (fake.defaults("usb1"), fake.defaults("usb2"), fake.later()),
            ("1".to_owned(), "1".to_owned(), "-1".to_owned())
        );
        assert!(["1-1", "1-2", "1-3.4", "2-1"].iter().all(|name| fake.is_used(name)));
        assert!(!fake.0.path().join("devices.json").exists());
    }

    #[test]
    fn what_was_there_before_is_reported_or_cut_as_its_bundle_says() {
        for (held, used, said) in [(AlreadyHeld::Report, true, "Audit"), (AlreadyHeld::Kill, false, "Block")]
        {
            let fake = Fake::new();
            fake.plug("1-1", &[STORAGE]);
            let mut guard = fake.guard();
            let first = rules("{class: HID, action: Allow}", 1, held);
            assert_eq!(pass(&mut guard, &first), [format!("DefaultPosture {said} USB MASS-STORAGE_6_80 1")]);
            assert_eq!(fake.is_used("1-1"), used, "{held:?}");
            assert!(pass(&mut fake.guard(), &first).is_empty(), "it is reported once");
            // It is reported again under another serial, and authorised once it is permitted.
            assert_eq!(pass(&mut guard, &rules("{class: HID, action: Allow}", 2, held)).len(), 1);
            assert!(pass(&mut guard, &rules("{class: '8', action: Allow}", 3, held)).is_empty());
            assert!(fake.is_used("1-1"));
        }
    }

    #[test]
    fn what_was_there_before_is_not_cut_by_an_agent_that_goes_on() {
        let fake = Fake::new();
        fake.plug("1-1", &[STORAGE]);
        let rules = rules("{class: MASS-STORAGE}", 1, AlreadyHeld::Report);
        // Nothing is kept of the first pass, as if its agent had died.
        assert_eq!(fake.guard().pass(&rules).alerts.len(), 1);
        let mut guard = fake.guard();
        assert_eq!(pass(&mut guard, &rules), ["usb Audit USB MASS-STORAGE_6_80 1"]);
        assert!(fake.is_used("1-1") && fake.defaults("usb1") == "0");
    }

    #[test]
    fn what_cannot_be_judged_for_a_moment_does_not_count_as_new() {
        let fake = Fake::new();
        fake.plug("1-1", &[STORAGE]);
        let rules = rules("{class: MASS-STORAGE}", 1, AlreadyHeld::Report);
        let authorized = fake.0.path().join("sys/bus/usb/devices/1-1/authorized");
        fs::remove_file(&authorized).unwrap();
        let mut guard = fake.guard();
        assert!(guard.pass(&rules).failure.is_some());
        fake.write("bus/usb/devices/1-1/authorized", b"1");
        assert_eq!(pass(&mut guard, &rules), ["usb Audit USB MASS-STORAGE_6_80 1"]);
        assert!(pass(&mut guard, &rules).is_empty());
        assert!(fake.is_used("1-1"));
    }

    #[test]
    fn what_somebody_else_keeps_out_stays_out() {
        let (fake, rules) = (Fake::new(), rules("{class: MASS-STORAGE}", 1, AlreadyHeld::Report));
        fake.controller("usb2", "0");
        fake.controller("usb3", "2");
        fake.plug("1-1", &[HID]);
        fake.write("bus/usb/devices/1-1/authorized", b"0");
        let mut guard = fake.guard();
        pass(&mut guard, &rules);
        fake.plug("2-1", &[HID]);
        fake.plug("3-1", &[HID]);
        fake.plug("3-2", &[HID]);
        fake.write("bus/usb/devices/3-2/removable", b"fixed\n");
        pass(&mut guard, &rules);
        let used = || ["1-1", "2-1", "3-1", "3-2"].map(|name| fake.is_used(name));
        assert_eq!(used(), [false, false, false, true]);
        pass(&mut guard, &DeviceRules::default());
        assert_eq!(used(), [false, false, false, true]);
        assert_eq!(["usb1", "usb2", "usb3"].map(|name| fake.defaults(name)), ["1", "0", "2"]);
    }

    #[test]
    fn rules_that_refuse_nothing_leave_new_devices_to_the_kernel() {
        let (fake, audit) = (Fake::new(), rules("{class: HID, action: Audit}", 1, AlreadyHeld::Report));
        let mut guard = fake.guard();
        pass(&mut guard, &audit);
        fake.plug("1-1", &[HID]);
        assert_eq!(pass(&mut guard, &audit), ["usb Audit USB HID_1_1 1"]);
        assert_eq!((fake.defaults("usb1"), fake.later()), ("1".to_owned(), "-1".to_owned()));
        assert!(fake.is_used("1-1"));
        pass(&mut guard, &rules("{class: HID}", 2, AlreadyHeld::Report));
        assert_eq!(fake.defaults("usb1"), "0");
        fake.plug("1-2", &[HID]);
        pass(&mut guard, &audit);
        assert!(fake.is_used("1-2") && fake.defaults("usb1") == "1");
    }

    #[test]
    fn a_device_that_cannot_be_told_is_refused_where_rules_refuse_any() {
        for (spec, used, action) in
            [("{class: HID}", false, "Block"), ("{class: HID, action: Audit}", true, "Audit")]
        {
            let (fake, rules) = (Fake::new(), rules(spec, 1, AlreadyHeld::Report));
            let mut guard = fake.guard();
            pass(&mut guard, &rules);
            fake.plug("1-1", &[STORAGE]);
            fake.write("bus/usb/devices/1-1/descriptors", &[18, 1]);
            assert_eq!(pass(&mut guard, &rules), [format!("UnknownDevice {action} USB 0_0_0 1")]);
            assert_eq!(fake.is_used("1-1"), used);
        }
    }

    #[test]
    fn a_failure_is_told_and_what_it_was_about_tried_again() {
        let (fake, rules) = (Fake::new(), rules("{class: MASS-STORAGE}", 1, AlreadyHeld::Report));
        let mut guard = fake.guard();
        pass(&mut guard, &rules);
        fake.plug("1-1", &[STORAGE]);
        fake.plug("1-2", &[STORAGE]);
        fs::remove_file(fake.0.path().join("sys/bus/usb/devices/1-1/authorized")).unwrap();
        let outcome = guard.pass(&rules);
        assert!(outcome.failure.unwrap().to_string().contains("1-1/authorized") && outcome.alerts.len() == 1);
        fake.write("bus/usb/devices/1-1/authorized", b"1");
        assert_eq!(pass(&mut guard, &rules), ["usb Block USB MASS-STORAGE_6_80 1"]);
        assert!(!fake.is_used("1-1"));
    }

    #[test]
    fn alerts_are_kubearmors_and_no_more_than_the_rate_permits() {
        let (fake, mut rules) = (Fake::new(), rules("{class: MASS-STORAGE}", 7, AlreadyHeld::Report));
        rules.alerts_per_second = 1;
        let mut guard = fake.guard();
        pass(&mut guard, &rules);
        (1..9).for_each(|port| fake.plug(&format!("1-{port}"), &[STORAGE]));
        let outcome = guard.pass(&rules);
        assert!(outcome.kept_back);
        let alert = &outcome.alerts[0];
        assert_eq!(alert.data, "Class=8 SubClass=6 Protocol=80 Level=1 SysPath=/sys/bus/usb/devices/1-1");
        assert_eq!(
            (&*alert.kind, &*alert.enforcer, &*alert.operation),
            ("MatchedHostPolicy", "USBDeviceHandler", "Device")
        );
        assert_eq!(
            (&*alert.result, &*alert.severity, &*alert.bundle, alert.bundle_serial),
            ("Permission denied", "3", "edge", 7)
        );
        // The second may have ended in between.
        let told = outcome.alerts.len() as u64;
        let later = guard.pass(&rules);
        assert_eq!(
            (later.alerts[0].operation.as_str(), later.alerts[0].suppressed),
            ("AlertThreshold", 8 - told)
        );
        assert!(!later.kept_back);
    }

    #[test]
    fn without_usb_there_is_nothing_to_do_and_later_there_is() {
        let (fake, rules) = (Fake::new(), rules("{class: MASS-STORAGE}", 1, AlreadyHeld::Report));
        let hidden = fake.0.path().join("hidden");
        fs::rename(fake.0.path().join("sys"), &hidden).unwrap();
        let mut guard = fake.guard();
        assert!(pass(&mut guard, &rules).is_empty());
        fs::rename(&hidden, fake.0.path().join("sys")).unwrap();
        assert!(pass(&mut guard, &rules).is_empty());
        assert_eq!(fake.defaults("usb1"), "0");
    }
}
