//! Turns the kernel's events into alerts in KubeArmor's format.
//!
//! An event carries the index of the deciding rule in the tables of its generation. Names are looked up in
//! that generation's own table, so an alert never names a rule of a later bundle.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use armor_alerts::alert::{ALERT_THRESHOLD, Alert};
use armor_bpf::{Access, Event, Guard, HOST_DOMAIN, Hook, SocketAccess, SyscallAccess};
use armor_policy::Domain;
use armor_policy::decision::{RuleInfo, Verdict};
use armor_policy::path::Permission;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::workloads::workload::Workload;

/// KubeArmor's name for the namespace of containers outside Kubernetes.
const NAMESPACE: &str = "container_namespace";

/// `Origin` is what all alerts of a node have in common.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The host's name.
    pub host_name: String,
    /// The Horizon organisation.
    pub org: String,
    /// The node's id in Horizon.
    pub node: String,
    /// The agent's own service: url, version and agreement. Only the agent's own alerts carry them.
    pub service: [String; 3],
}

/// A `RuleTable` holds the names of one generation's rules and the owners of its domains.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RuleTable {
    /// The serial of each bundle with policies; empty for `try`.
    pub bundles: BTreeMap<String, u64>,
    /// Lists of rules by rule index; domains with the same tables share one.
    pub rules: Vec<Vec<RuleInfo>>,
    /// The domains with rules.
    pub domains: Vec<DomainNames>,
}

/// `DomainNames` describes a domain of a [`RuleTable`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DomainNames {
    /// The domain's number.
    pub number: u32,
    /// Index of the domain's list in [`RuleTable::rules`].
    pub rules: usize,
    /// The domain's container, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Arc<Workload>>,
}

impl RuleTable {
    /// Returns the table of a generation with a single domain, which belongs to no container.
    pub fn of(number: u32, tables: &Domain) -> Self {
        let domains = vec![DomainNames { number, ..DomainNames::default() }];
        Self { bundles: BTreeMap::new(), rules: vec![tables.rules.clone()], domains }
    }

    /// Returns name and serial of the bundle whose rule or posture decided on an event. If no bundle decided
    /// alone, returns the only bundle with policies, or `None` if there are several.
    pub fn bundle(&self, event: &Event) -> Option<(&str, u64)> {
        let of_rule =
            event.guard().is_none().then(|| self.rule(event.domain, event.decision.rule())).flatten();
        let found = match of_rule.map(|rule| &rule.bundle).filter(|bundle| !bundle.is_empty()) {
            Some(bundle) => self.bundles.get_key_value(bundle),
            None => self.bundles.first_key_value().filter(|_| self.bundles.len() == 1),
        };
        found.map(|(name, serial)| (name.as_str(), *serial))
    }

    fn domain(&self, number: u32) -> Option<&DomainNames> {
        self.domains.iter().find(|domain| domain.number == number)
    }

    fn rule(&self, domain: u32, index: u32) -> Option<&RuleInfo> {
        self.rules.get(self.domain(domain)?.rules)?.get(index as usize)
    }
}

/// `AlertCounts` counts alerts about one policy since the agent started. Suppressed and dropped alerts are counted
/// by the kernel alone, and not per policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AlertCounts {
    /// Number of refused accesses.
    pub blocked: u64,
    /// Number of accesses permitted with an alert.
    pub audited: u64,
}

/// `Clocks` are both clocks read at one moment, to convert an event's time.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    wall: Timestamp,
    boot_ns: u64,
}

impl Clocks {
    /// Reads both clocks.
    pub fn now() -> Self {
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let boot_ns = u64::try_from(boot.tv_sec).unwrap_or(0) * 1_000_000_000
            + u64::try_from(boot.tv_nsec).unwrap_or(0);
        Self { wall: Timestamp::now(), boot_ns }
    }

    /// Returns the wall clock's time for `boot_ns` of the boot clock.
    fn wall_at(&self, boot_ns: u64) -> Timestamp {
        let ago = Duration::from_nanos(self.boot_ns.saturating_sub(boot_ns));
        self.wall.checked_sub(ago).unwrap_or(self.wall)
    }
}

/// Returns the alert for an event. `table` is that of the event's generation, if it is still known, and
/// `unidentified` is the container that only the event names.
pub fn alert(
    event: Event,
    table: Option<&RuleTable>,
    unidentified: Option<&Workload>,
    origin: &Origin,
    clocks: &Clocks,
) -> Alert {
    let (bundle, bundle_serial) = table.and_then(|table| table.bundle(&event)).unwrap_or_default();
    let blocked = event.decision.verdict() == Verdict::Block;
    let guard = event.guard();
    let task = event.task;
    let Shown { operation, resource, data, started, refused } = shown(event.hook, event.access);
    let unknown;
    let rule = match (guard, table.and_then(|table| table.rule(event.domain, event.decision.rule()))) {
        (Some(guard), _) => {
            unknown = rule_of(guard);
            &unknown
        }
        (None, Some(rule)) => rule,
        (None, None) => {
            let message = format!(
                "the names of rule {} of generation {} are no longer known on the node",
                event.decision.rule(),
                event.generation
            );
            unknown = RuleInfo { message, ..RuleInfo::default() };
            &unknown
        }
    };
    // The program that has become another one is gone. As in KubeArmor, that one's parent started it.
    let source = match event.hook {
        Hook::BprmCommittedCreds => task.parent_program.clone(),
        _ => task.program.clone(),
    };
    // As in KubeArmor, the process of a refused exec is the program that would have been started.
    let (process, parent) = match started {
        Some(program) => (program, task.program.clone()),
        None => (task.program.clone(), task.parent_program),
    };
    let container = table.and_then(|table| table.domain(event.domain)?.container.as_deref()).or(unidentified);
    Alert {
        host_ppid: task.parent_tgid,
        host_pid: task.tgid,
        ppid: task.ns_parent,
        pid: task.ns_pid,
        uid: task.uid,
        parent_process_name: parent,
        process_name: process,
        policy_name: rule.policy.clone(),
        severity: if rule.severity == 0 { String::new() } else { rule.severity.to_string() },
        tags: rule.tags.join(","),
        atags: rule.tags.clone(),
        message: rule.message.clone(),
        kind: if event.domain == HOST_DOMAIN { "MatchedHostPolicy" } else { "MatchedPolicy" }.to_owned(),
        source,
        operation: operation.to_owned(),
        resource,
        data,
        enforcer: "BPFLSM".to_owned(),
        action: if blocked { "Block" } else { "Audit" }.to_owned(),
        result: if blocked { refused } else { "Passed" }.to_owned(),
        bundle: bundle.to_owned(),
        bundle_serial,
        ..of_container(container, of_node(origin, clocks.wall_at(event.time_ns)))
    }
}

/// The name in alerts about a device of which it cannot be told what it is.
pub const UNKNOWN_DEVICE: &str = "UnknownDevice";

/// Names in alerts that no policy decided: those of `armor_policy`, then those of the guards.
pub(crate) const RESERVED: [&str; 7] = [
    "DefaultPosture",
    "UnresolvedPath",
    UNKNOWN_DEVICE,
    "AgentProtection",
    "OutsideDomain",
    "KernelHelper",
    "SourceProtection",
];

/// Returns the rule that stands for a guard's decision.
fn rule_of(guard: Guard) -> RuleInfo {
    let (policy, message) = match guard {
        Guard::Agent => ("AgentProtection", "what belongs to the agent is kept from everybody else"),
        Guard::Outside => {
            ("OutsideDomain", "a workload under rules may not look into processes that are not its own")
        }
        Guard::Helper => (
            "KernelHelper",
            "a program that the kernel starts for a workload would be under none of its rules",
        ),
        Guard::Source => (
            "SourceProtection",
            "what takes the place of a program with rights by fromSource, by a mount or by its process's own word, would have its rights",
        ),
    };
    RuleInfo { policy: policy.to_owned(), message: message.to_owned(), severity: 10, ..RuleInfo::default() }
}

/// A `Shown` is what an alert says of an access.
struct Shown {
    operation: &'static str,
    resource: String,
    data: String,
    /// The program that the access would have started.
    started: Option<String>,
    /// The result if it is refused, as strerror(3) has it, or what became of the process.
    refused: &'static str,
}

fn shown(hook: Hook, access: Access) -> Shown {
    let mut data = hook.data().to_owned();
    let access = match access {
        Access::Path(access) => access,
        Access::Capability(name) => {
            return Shown {
                operation: "Capabilities",
                resource: name,
                data,
                started: None,
                refused: "Operation not permitted",
            };
        }
        Access::Syscall(SyscallAccess { call, path }) => {
            return Shown {
                operation: "Syscall",
                data: format!("{data}=SYS_{}", call.to_uppercase()),
                resource: path.unwrap_or(call),
                started: None,
                refused: "Permission denied",
            };
        }
        Access::Dns(_) => {
            let resource = access.object().to_owned();
            return Shown {
                operation: "Network",
                data: format!("{data} domain={resource}"),
                resource,
                started: None,
                refused: "Operation not permitted",
            };
        }
        Access::Socket(SocketAccess { socket, address, own_port, descriptor }) => {
            if let Some(address) = address {
                let relation = match hook {
                    _ if own_port.is_some() => "from",
                    Hook::SocketBind | Hook::SocketListen | Hook::SocketAccept => "at",
                    _ => "to",
                };
                data.push_str(&format!(" {relation}={address}"));
            }
            data.push_str(&own_port.map_or_else(String::new, |port| format!(" port={port}")));
            data.push_str(&descriptor.map_or_else(String::new, |number| format!(" fd={number}")));
            return Shown {
                operation: "Network",
                resource: socket,
                data,
                started: None,
                refused: "Permission denied",
            };
        }
    };
    if !access.new_path.is_empty() {
        // The resource is the path that the rule is about; the other path goes into `data`.
        let (relation, other) =
            if access.about_new_path { (" from=", &access.path) } else { (" to=", &access.new_path) };
        data.push_str(relation);
        data.push_str(other);
    }
    if let Some(descriptor) = access.descriptor {
        data.push_str(&format!(" fd={descriptor}"));
    }
    // An interpreter's name has no blanks in it, but a script's path may: nothing stands behind that.
    for (relation, file) in [(" interpreter=", &access.interpreter), (" script=", &access.script)] {
        if !file.is_empty() {
            data.push_str(relation);
            data.push_str(file);
        }
    }
    let runs_already = hook == Hook::BprmCommittedCreds;
    let started = access.permission == Permission::Exec && !runs_already;
    Shown {
        operation: operation(hook, access.permission),
        data,
        started: started.then(|| access.path.clone()),
        resource: match access.about_new_path {
            true => access.new_path,
            false if access.arguments.is_empty() => access.path,
            false => format!("{} {}", access.path, access.arguments),
        },
        refused: if runs_already { "Killed" } else { "Permission denied" },
    }
}

fn operation(hook: Hook, permission: Permission) -> &'static str {
    match hook {
        Hook::PtraceAccessCheck
        | Hook::PtraceTraceme
        | Hook::TaskKill
        | Hook::TaskSetrlimit
        | Hook::TaskSetscheduler
        | Hook::TaskSetioprio
        | Hook::TaskPrctl => "Process",
        Hook::Bpf | Hook::BpfMap | Hook::BpfProg => "Syscall",
        _ => match permission {
            Permission::Exec | Permission::Map => "Process",
            Permission::Read | Permission::Write => "File",
        },
    }
}

/// Adds a container's names and Horizon service to `alert`.
fn of_container(container: Option<&Workload>, alert: Alert) -> Alert {
    let Some(container) = container else { return alert };
    let labels: Vec<String> = container.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let horizon = container.horizon.clone().unwrap_or_default();
    let service = horizon.service.unwrap_or_default();
    Alert {
        namespace_name: NAMESPACE.to_owned(),
        container_id: container.id.clone(),
        container_name: container.name.clone(),
        container_image: container.image.clone(),
        labels: labels.join(","),
        service_url: if service.url.is_empty() {
            String::new()
        } else {
            format!("{}/{}", service.org, service.url)
        },
        service_version: service.version,
        agreement_id: horizon.agreement,
        ..alert
    }
}

/// A `Fate` is what happens to a preexisting handle that the rules refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The process keeps it.
    Left,
    /// It was closed before the process began.
    Closed,
    /// The process was killed.
    Killed,
}

/// Returns the alert about a preexisting handle, which was not refused when it was obtained.
pub fn preexisting(alert: Alert, fate: Fate) -> Alert {
    let (action, result) = match fate {
        Fate::Left => ("Audit", "Passed"),
        Fate::Closed => ("Block", "Closed"),
        Fate::Killed => ("Block", "Killed"),
    };
    Alert { action: action.to_owned(), result: result.to_owned(), ..alert }
}

/// Returns the alert about suppressed and lost alerts, with their exact numbers since the last such alert.
pub fn threshold(origin: &Origin, suppressed: u64, dropped: u64) -> Alert {
    Alert {
        suppressed,
        dropped,
        message: format!(
            "{suppressed} alerts kept back by the rate limit, {dropped} lost: the kernel's buffer was full, or what was refused has no name"
        ),
        ..system_event(origin, ALERT_THRESHOLD)
    }
}

/// Returns the alert about BPF programs that the kernel skipped since the last such alert.
pub fn skipped(origin: &Origin, times: u64) -> Alert {
    Alert {
        severity: "10".to_owned(),
        message: format!(
            "{times} times the kernel did not run a program that decides, and permitted what that might have refused"
        ),
        ..system_event(origin, "ProgramsSkipped")
    }
}

/// Returns the alert about an expired bundle, which stays in force.
pub fn expired(origin: &Origin, bundle: &str, serial: u64, expires: Timestamp) -> Alert {
    Alert {
        bundle: bundle.to_owned(),
        bundle_serial: serial,
        severity: "5".to_owned(),
        message: format!(
            "bundle {bundle} expired at {expires} and goes on being enforced: publish a newer one"
        ),
        ..system_event(origin, "BundleExpired")
    }
}

fn system_event(origin: &Origin, operation: &str) -> Alert {
    let [service_url, service_version, agreement_id] = origin.service.clone();
    Alert {
        kind: "SystemEvent".to_owned(),
        operation: operation.to_owned(),
        service_url,
        service_version,
        agreement_id,
        ..of_node(origin, Timestamp::now())
    }
}

/// Returns an alert that says nothing but whose it is.
pub(crate) fn of_node(origin: &Origin, at: Timestamp) -> Alert {
    Alert {
        host_name: origin.host_name.clone(),
        org: origin.org.clone(),
        node_id: origin.node.clone(),
        ..Alert::at(at)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use armor_bpf::{Hook, PathAccess, Task, UNIDENTIFIED_DOMAIN};
    use armor_policy::decision::Decision;

    use std::num::NonZero;

    use crate::workloads::workload::{HorizonService, ServiceName};

    pub(crate) fn event(verdict: Verdict, permission: Permission) -> Event {
        Event {
            time_ns: 0,
            generation: 3,
            domain: HOST_DOMAIN,
            decision: Decision::new(verdict, 2),
            hook: if permission == Permission::Exec { Hook::BprmCheckSecurity } else { Hook::PathRename },
            task: Task {
                pid: 12,
                tgid: 11,
                parent_tgid: 10,
                ns_pid: 2,
                ns_parent: 1,
                uid: 1000,
                cgroup: 1,
                comm: "bash".into(),
                program: "/usr/bin/bash".into(),
                parent_program: "/sbin/init".into(),
                container: None,
            },
            access: Access::Path(PathAccess {
                permission,
                path: "/usr/bin/sleep".into(),
                new_path: String::new(),
                about_new_path: false,
                arguments: String::new(),
                script: String::new(),
                interpreter: String::new(),
                descriptor: None,
            }),
        }
    }

    fn table() -> RuleTable {
        let rule = RuleInfo {
            bundle: "edge".into(),
            policy: "no-sleep".into(),
            location: "p.yaml:3".into(),
            severity: 7,
            tags: vec!["A".into(), "B".into()],
            message: "stay awake".into(),
        };
        let rules = vec![RuleInfo::default(), RuleInfo::default(), rule];
        let web = Workload {
            id: "a".repeat(64),
            name: "web".into(),
            image: "shop/web:2".into(),
            labels: [("app".to_owned(), "web".to_owned()), ("tier".to_owned(), "front".to_owned())].into(),
            horizon: Some(HorizonService {
                agreement: "f1".into(),
                container: "frontend".into(),
                service: Some(ServiceName {
                    org: "myorg".into(),
                    url: "shop".into(),
                    version: "1.2.0".into(),
                }),
            }),
            ..Workload::default()
        };
        let domains = vec![
            DomainNames { number: HOST_DOMAIN, ..DomainNames::default() },
            DomainNames { number: 7, rules: 0, container: Some(Arc::new(web)) },
        ];
        RuleTable { bundles: [("edge".to_owned(), 4)].into(), rules: vec![rules], domains }
    }

    fn origin() -> Origin {
        Origin { host_name: "gw".into(), org: "myorg".into(), node: "node1".into(), ..Origin::default() }
    }

    #[test]
    fn a_blocked_exec_reads_as_kubearmor_writes_it() {
        let event = event(Verdict::Block, Permission::Exec);
        let mut alert = alert(event, Some(&table()), None, &origin(), &Clocks::now());
        (alert.timestamp, alert.updated_time) = (0, String::new());
        let json = String::from_utf8(alert.to_line().unwrap()).unwrap();
        assert_eq!(
            json,
            r#"{"Timestamp":0,"HostName":"gw","HostPPID":10,"HostPID":11,"PPID":1,"PID":2,"UID":1000,"ParentProcessName":"/usr/bin/bash","ProcessName":"/usr/bin/sleep","PolicyName":"no-sleep","Severity":"7","Tags":"A,B","ATags":["A","B"],"Message":"stay awake","Type":"MatchedHostPolicy","Source":"/usr/bin/bash","Operation":"Process","Resource":"/usr/bin/sleep","Data":"lsm=SECURITY_BPRM_CHECK","Enforcer":"BPFLSM","Action":"Block","Result":"Permission denied","Org":"myorg","NodeID":"node1","Bundle":"edge","BundleSerial":4}"#
        );
    }

    #[test]
    fn refused_arguments_are_told_as_a_command_line_and_the_parent_as_their_source() {
        let mut event = event(Verdict::Block, Permission::Exec);
        let Access::Path(access) = &mut event.access else { unreachable!() };
        access.arguments = "-m pydoc".into();
        event.hook = Hook::BprmCommittedCreds;
        event.task.program = "/usr/bin/sleep".into();
        event.task.parent_program = "/usr/bin/bash".into();
        let alert = alert(event, Some(&table()), None, &origin(), &Clocks::now());
        assert_eq!(
            (alert.resource.as_str(), alert.operation.as_str()),
            ("/usr/bin/sleep -m pydoc", "Process")
        );
        assert_eq!((alert.process_name.as_str(), alert.source.as_str()), ("/usr/bin/sleep", "/usr/bin/bash"));
        assert_eq!((alert.parent_process_name.as_str(), alert.result.as_str()), ("/usr/bin/bash", "Killed"));
        assert_eq!(alert.data, "lsm=BPRM_COMMITTED_CREDS");
    }

    #[test]
    fn a_start_through_a_script_names_the_other_file_behind_the_hook() {
        for (interpreter, script, data) in [
            ("", "", "lsm=SECURITY_BPRM_CHECK"),
            ("/usr/bin/env", "", "lsm=SECURITY_BPRM_CHECK interpreter=/usr/bin/env"),
            ("", "/t/a b", "lsm=SECURITY_BPRM_CHECK script=/t/a b"),
            (
                "/bin/sh",
                "/t/a interpreter=b",
                "lsm=SECURITY_BPRM_CHECK interpreter=/bin/sh script=/t/a interpreter=b",
            ),
        ] {
            let mut event = event(Verdict::Audit, Permission::Exec);
            let Access::Path(access) = &mut event.access else { unreachable!() };
            (access.interpreter, access.script) = (interpreter.into(), script.into());
            let alert = alert(event, Some(&table()), None, &origin(), &Clocks::now());
            assert_eq!(alert.data, data);
            assert_eq!((alert.operation.as_str(), alert.resource.as_str()), ("Process", "/usr/bin/sleep"));
            assert_eq!(
                (alert.process_name.as_str(), alert.source.as_str()),
                ("/usr/bin/sleep", "/usr/bin/bash")
            );
        }
    }

    #[test]
    fn of_several_bundles_the_one_that_decided_is_named() {
        let mut table = table();
        let of = |table: &RuleTable, event: &Event| -> (String, u64) {
            let alert = alert(event.clone(), Some(table), None, &origin(), &Clocks::now());
            (alert.bundle, alert.bundle_serial)
        };
        let by_rule = event(Verdict::Block, Permission::Exec);
        let by_nothing =
            Event { decision: Decision::new(Verdict::Block, Decision::RULE_UNRESOLVED), ..by_rule.clone() };
        assert_eq!(of(&table, &by_nothing), ("edge".to_owned(), 4), "there is no other");
        table.bundles.insert("fleet".to_owned(), 9);
        assert_eq!(of(&table, &by_rule), ("edge".to_owned(), 4));
        assert_eq!(of(&table, &by_nothing), (String::new(), 0));
        table.rules[0][2].bundle = "fleet".to_owned();
        assert_eq!(of(&table, &by_rule), ("fleet".to_owned(), 9));
    }

    #[test]
    fn an_audited_rename_names_both_paths_and_the_program() {
        let mut event = event(Verdict::Audit, Permission::Write);
        let Access::Path(access) = &mut event.access else { unreachable!() };
        access.new_path = "/tmp/x".into();
        event.domain = 1;
        let alert = alert(event, Some(&table()), None, &origin(), &Clocks::now());
        assert_eq!((alert.action.as_str(), alert.result.as_str()), ("Audit", "Passed"));
        assert_eq!((alert.operation.as_str(), alert.kind.as_str()), ("File", "MatchedPolicy"));
        assert_eq!(alert.data, "lsm=PATH_RENAME to=/tmp/x");
        assert_eq!((alert.process_name.as_str(), alert.source.as_str()), ("/usr/bin/bash", "/usr/bin/bash"));
        // Domain 1 is not in the table, but the access is reported all the same.
        assert!(alert.policy_name.is_empty() && alert.message.contains("generation 3"), "{alert:?}");
    }

    #[test]
    fn a_system_call_is_told_as_kubearmor_writes_it() {
        let event = Event {
            hook: Hook::SyscallEnter,
            access: Access::Syscall(SyscallAccess { call: "unlink".to_owned(), path: None }),
            ..event(Verdict::Audit, Permission::Exec)
        };
        let alert = alert(event, Some(&table()), None, &origin(), &Clocks::now());
        assert_eq!((alert.operation.as_str(), alert.resource.as_str()), ("Syscall", "unlink"));
        assert_eq!((alert.result.as_str(), alert.data.as_str()), ("Passed", "syscall=SYS_UNLINK"));
    }

    #[test]
    fn a_system_call_with_a_path_is_told_with_it() {
        let event = Event {
            hook: Hook::SyscallEnter,
            access: Access::Syscall(SyscallAccess { call: "unlink".to_owned(), path: Some("/a".to_owned()) }),
            ..event(Verdict::Audit, Permission::Exec)
        };
        let alert = alert(event, Some(&table()), None, &origin(), &Clocks::now());
        assert_eq!((alert.resource.as_str(), alert.data.as_str()), ("/a", "syscall=SYS_UNLINK"));
    }

    #[test]
    fn a_refused_capability_is_named_with_the_program_that_used_it() {
        let event = Event {
            hook: Hook::Capable,
            access: Access::Capability("CAP_NET_RAW".to_owned()),
            ..event(Verdict::Block, Permission::Exec)
        };
        let alert = alert(event, Some(&table()), None, &origin(), &Clocks::now());
        assert_eq!((alert.operation.as_str(), alert.resource.as_str()), ("Capabilities", "CAP_NET_RAW"));
        assert_eq!((alert.process_name.as_str(), alert.source.as_str()), ("/usr/bin/bash", "/usr/bin/bash"));
        assert_eq!((alert.result.as_str(), alert.data.as_str()), ("Operation not permitted", "lsm=CAPABLE"));
    }

    #[test]
    fn a_refused_connection_is_told_with_its_socket_and_address() {
        let access = SocketAccess {
            socket: "protocol=TCP type=SOCK_STREAM".to_owned(),
            address: Some("[2001:db8::1]:443".parse().unwrap()),
            own_port: None,
            descriptor: None,
        };
        let event = Event {
            hook: Hook::SocketConnect,
            access: Access::Socket(access),
            ..event(Verdict::Block, Permission::Exec)
        };
        let alert = alert(event, Some(&table()), None, &origin(), &Clocks::now());
        assert_eq!((alert.operation.as_str(), alert.result.as_str()), ("Network", "Permission denied"));
        assert_eq!(alert.resource, "protocol=TCP type=SOCK_STREAM");
        assert_eq!(alert.data, "lsm=SOCKET_CONNECT to=[2001:db8::1]:443");
    }

    #[test]
    fn a_refused_visitor_is_told_with_its_address_and_the_port_that_it_came_to() {
        let access = SocketAccess {
            socket: "protocol=UDP type=SOCK_DGRAM".to_owned(),
            address: Some("10.0.0.1:40000".parse().unwrap()),
            own_port: NonZero::new(53),
            descriptor: None,
        };
        let event = Event {
            hook: Hook::CgroupIngress,
            access: Access::Socket(access),
            ..event(Verdict::Block, Permission::Exec)
        };
        let alert = alert(event, Some(&table()), None, &origin(), &Clocks::now());
        assert_eq!(alert.data, "cgroup_skb=INGRESS from=10.0.0.1:40000 port=53");
    }

    #[test]
    fn what_a_container_does_is_told_with_its_names() {
        let event = Event { domain: 7, ..event(Verdict::Block, Permission::Exec) };
        let alert = alert(event, Some(&table()), None, &origin(), &Clocks::now());
        assert_eq!((alert.policy_name.as_str(), alert.kind.as_str()), ("no-sleep", "MatchedPolicy"));
        assert_eq!((alert.container_name.as_str(), alert.container_image.as_str()), ("web", "shop/web:2"));
        assert_eq!((alert.container_id.len(), alert.labels.as_str()), (64, "app=web,tier=front"));
        assert_eq!((alert.service_url.as_str(), alert.service_version.as_str()), ("myorg/shop", "1.2.0"));
        assert_eq!((alert.agreement_id.as_str(), alert.host_name.as_str()), ("f1", "gw"));
        assert_eq!(alert.namespace_name, "container_namespace");
    }

    #[test]
    fn an_unidentified_container_is_reported_with_its_present_names() {
        let event = Event { domain: UNIDENTIFIED_DOMAIN, ..event(Verdict::Block, Permission::Exec) };
        let late = Workload { id: "c".repeat(64), name: "late".into(), ..Workload::default() };
        let mut table = table();
        table.domains.push(DomainNames { number: UNIDENTIFIED_DOMAIN, ..DomainNames::default() });
        let alert = alert(event, Some(&table), Some(&late), &origin(), &Clocks::now());
        assert_eq!((alert.policy_name.as_str(), alert.kind.as_str()), ("no-sleep", "MatchedPolicy"));
        assert_eq!((alert.container_id, alert.container_name), (late.id, late.name));
    }

    #[test]
    fn what_a_guard_refused_is_named_with_a_table_or_without() {
        for (below, hook, policy, operation) in [
            (0, Hook::BpfMap, "AgentProtection", "Syscall"),
            (1, Hook::PtraceAccessCheck, "OutsideDomain", "Process"),
            (2, Hook::FileOpen, "KernelHelper", "File"),
            (3, Hook::SbMount, "SourceProtection", "File"),
        ] {
            for table in [None, Some(&table())] {
                let decision = Decision::new(Verdict::Block, (1 << 30) - 1 - below);
                let event = Event { hook, decision, ..event(Verdict::Block, Permission::Write) };
                let alert = alert(event, table, None, &origin(), &Clocks::now());
                assert_eq!((alert.policy_name.as_str(), alert.operation.as_str()), (policy, operation));
                assert!(!alert.message.is_empty() && RESERVED.contains(&alert.policy_name.as_str()));
            }
        }
    }

    #[test]
    fn times_are_counted_back_from_now() {
        let clocks = Clocks { wall: "2026-01-01T00:00:10Z".parse().unwrap(), boot_ns: 15_000_000_000 };
        assert_eq!(clocks.wall_at(12_500_000_000).to_string(), "2026-01-01T00:00:07.5Z");
        assert_eq!(clocks.wall_at(20_000_000_000), clocks.wall);
        let now = Clocks::now();
        assert!(now.boot_ns > 0);
    }

    #[test]
    fn what_nobody_saw_is_counted_in_an_alert_of_highest_rank() {
        let alert = threshold(&origin(), 5, 2);
        assert_eq!((alert.suppressed, alert.dropped, alert.rank()), (5, 2, 10));
        assert_eq!((alert.operation.as_str(), alert.kind.as_str()), (ALERT_THRESHOLD, "SystemEvent"));
    }
}
