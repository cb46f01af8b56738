//! An alert reports a blocked or audited access. It has KubeArmor's field names (as in its gRPC and in
//! `karmor logs --json`), so that KubeArmor's consumers read it unchanged, and Horizon's own.
//!
//! As in KubeArmor, empty fields are omitted, except `PPID` and `UID`. Unknown fields are ignored when an
//! alert is read.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// `Operation` of the alert that contains the number of suppressed or dropped alerts.
pub const ALERT_THRESHOLD: &str = "AlertThreshold";

/// Maximum size of one alert's JSON line in bytes; [`Alert::to_line`] shortens texts until the line fits.
pub const MAX_LINE: usize = 64 * 1024;

/// Lengths in bytes to which texts are cut; the first with which the whole alert fits [`MAX_LINE`] is used.
const CUTS: [usize; 3] = [4096, 1024, 128];

/// Maximum number of `ATags` entries in a shortened alert.
const MAX_ATAGS: usize = 16;

macro_rules! alert {
    ($($(#[$meta:meta])* $name:ident: $kind:ty = $json:literal $(, skip $skip:literal)?;)*) => {
        /// An `Alert` reports a blocked or audited access. Field names on the wire are KubeArmor's.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Alert {
            $($(#[$meta])* #[serde(rename = $json $(, skip_serializing_if = $skip)?)] pub $name: $kind,)*
        }
    };
}

alert! {
    /// Seconds since the Unix epoch.
    timestamp: i64 = "Timestamp";
    /// `Timestamp` in RFC 3339, UTC with microseconds.
    updated_time: String = "UpdatedTime", skip "String::is_empty";
    /// Host name of the node.
    host_name: String = "HostName", skip "String::is_empty";
    /// KubeArmor's namespace; `container_namespace` outside Kubernetes, empty for the host.
    namespace_name: String = "NamespaceName", skip "String::is_empty";
    /// Container id, 64 hex digits; empty for the host.
    container_id: String = "ContainerID", skip "String::is_empty";
    /// Container name; empty for the host.
    container_name: String = "ContainerName", skip "String::is_empty";
    /// Container image reference; empty for the host.
    container_image: String = "ContainerImage", skip "String::is_empty";
    /// Labels as `key=value`, comma separated.
    labels: String = "Labels", skip "String::is_empty";
    /// Parent's thread group id in the initial pid namespace.
    host_ppid: u32 = "HostPPID", skip "is_zero";
    /// Thread group id in the initial pid namespace.
    host_pid: u32 = "HostPID", skip "is_zero";
    /// Parent's thread group id in the process's own pid namespace.
    ppid: u32 = "PPID";
    /// Thread group id in the process's own pid namespace.
    pid: u32 = "PID", skip "is_zero";
    /// User id in the initial user namespace.
    uid: u32 = "UID";
    /// Path of the parent's executable; for a kernel thread, its name in brackets, `[kworker/0:1]`.
    parent_process_name: String = "ParentProcessName", skip "String::is_empty";
    /// Path of the executable.
    process_name: String = "ProcessName", skip "String::is_empty";
    /// Policy that decided; `DefaultPosture` if an allow-list decided, `UnresolvedPath` if a path could not
    /// be resolved, `UnknownDevice` if it could not be told what a device is, `AgentProtection`, `OutsideDomain`, `KernelHelper` or `SourceProtection` for an access
    /// that is refused to workloads without any rule.
    policy_name: String = "PolicyName", skip "String::is_empty";
    /// `1` (least) to `10`, a string as in KubeArmor; empty if a posture decided.
    severity: String = "Severity", skip "String::is_empty";
    /// Tags, comma separated.
    tags: String = "Tags", skip "String::is_empty";
    /// `Tags` as a list.
    atags: Vec<String> = "ATags", skip "Vec::is_empty";
    /// The policy's message.
    message: String = "Message", skip "String::is_empty";
    /// `MatchedPolicy` or `MatchedHostPolicy`; `SystemEvent` on the agent's own alerts.
    kind: String = "Type", skip "String::is_empty";
    /// Path of the executable that acted; for arguments, that of the parent.
    source: String = "Source", skip "String::is_empty";
    /// `Process`, `File`, `Network` or `Capabilities`; `Syscall` for system calls, and for bpf(2); on the agent's own alerts [`ALERT_THRESHOLD`],
    /// `ProgramsSkipped` or `BundleExpired`.
    operation: String = "Operation", skip "String::is_empty";
    /// Object of the access: a path, a command line for `allowedArgs`, a capability (`CAP_NET_RAW`), a socket
    /// (`protocol=TCP type=SOCK_STREAM`), a system call (`unlink`) or the path that it names, the program of another process, or the
    /// kernel's name of an object of bpf(2).
    resource: String = "Resource", skip "String::is_empty";
    /// The deciding hook, for example `lsm=FILE_OPEN` (`lsm=UNIX_STREAM_CONNECT` and `lsm=UNIX_MAY_SEND` for
    /// a socket's name, `lsm=PATH_NOTIFY` for a watch, `lsm=QUOTA_ON` for a future quota file,
    /// `lsm=SB_KERN_MOUNT` for a device whose filesystem is mounted, `lsm=INODE_SETATTR`,
    /// `lsm=INODE_SETXATTR` and the like for attributes, `lsm=CAPABLE` for capabilities, `lsm=BPRM_COMMITTED_CREDS` for arguments, `syscall=SYS_UNLINK` for system calls, `lsm=SOCKET_CONNECT to=192.0.2.1:443` and the like for sockets, `cgroup_skb=INGRESS from=192.0.2.1:40000 port=443` for who comes to one). For preexisting handles it is `iter=TASK_FILE` with
    /// the descriptor's number, `fd=9`, or `iter=TASK_VMA`. For a start through `#!` the other file follows: `interpreter=/usr/bin/env` is what
    /// the script that `Resource` names says of its interpreter; `script=/srv/job.sh`, always last, is the path of the script that was
    /// started, and `Resource` names what runs it. A file that binfmt_misc hands to an interpreter counts as a script.
    data: String = "Data", skip "String::is_empty";
    /// `BPFLSM`; empty on the agent's own alerts.
    enforcer: String = "Enforcer", skip "String::is_empty";
    /// `Block` or `Audit`.
    action: String = "Action", skip "String::is_empty";
    /// `Permission denied`, for a capability `Operation not permitted`, or `Passed`; `Killed` if the process was killed for a preexisting handle that the
    /// policies refuse, or for its arguments, `Closed` if `try` closed such a handle of its command.
    result: String = "Result", skip "String::is_empty";
    /// Working directory: read from KubeArmor's alerts, but empty in this project's.
    cwd: String = "Cwd", skip "String::is_empty";
    /// Controlling terminal: read from KubeArmor's alerts, but empty in this project's.
    tty: String = "TTY", skip "String::is_empty";
    /// Horizon organisation of the node.
    org: String = "Org", skip "String::is_empty";
    /// Horizon node id, without the organisation.
    node_id: String = "NodeID", skip "String::is_empty";
    /// `org/url` of the Horizon service that the container belongs to, or of the agent's service on the
    /// agent's own alerts; the url as Horizon names credentials: without scheme, `-` for `/`. Otherwise
    /// empty.
    service_url: String = "ServiceURL", skip "String::is_empty";
    /// Version of that service.
    service_version: String = "ServiceVersion", skip "String::is_empty";
    /// Agreement under which the service runs; for a service that others depend on, the key of its instance.
    agreement_id: String = "AgreementID", skip "String::is_empty";
    /// Name of the bundle whose rule or posture decided; of several equally strict postures, the first bundle by name. If none decided alone, the only bundle with policies, or empty if there are several. On `BundleExpired`, the bundle that expired.
    bundle: String = "Bundle", skip "String::is_empty";
    /// That bundle's serial.
    bundle_serial: u64 = "BundleSerial", skip "is_zero";
    /// Number of the alert on its node: gapless, from 1, assigned by the spool; 0 before that.
    sequence: u64 = "Sequence", skip "is_zero";
    /// On [`ALERT_THRESHOLD`]: number of alerts that a rate limit suppressed since the last one.
    suppressed: u64 = "Suppressed", skip "is_zero";
    /// On [`ALERT_THRESHOLD`]: number of alerts lost in the kernel (ring buffer full, or what was
    /// refused has no name) since the last one.
    dropped: u64 = "Dropped", skip "is_zero";
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

impl Alert {
    /// Returns an alert with the time `moment` and all other fields empty.
    pub fn at(moment: Timestamp) -> Self {
        Self { timestamp: moment.as_second(), updated_time: format!("{moment:.6}"), ..Self::default() }
    }

    /// Returns the importance when the spool must make room, 1 to 10. An alert about lost alerts counts as
    /// 10. An alert without a valid severity counts as 1, which is KubeArmor's default.
    pub fn rank(&self) -> u8 {
        if self.operation == ALERT_THRESHOLD {
            return 10;
        }
        self.severity.parse().ok().filter(|rank| (1..=10).contains(rank)).unwrap_or(1)
    }

    /// Returns the alert as one JSON line without the newline, at most [`MAX_LINE`] bytes. Texts of an alert
    /// that is too large are cut, to the longest length that fits, and end in `…`.
    pub fn to_line(&self) -> Result<Vec<u8>, serde_json::Error> {
        let line = serde_json::to_vec(self)?;
        if line.len() <= MAX_LINE {
            return Ok(line);
        }
        let mut short = self.clone();
        short.atags.truncate(MAX_ATAGS);
        let mut line = line;
        for cut in CUTS {
            short.cut_texts(cut);
            line = serde_json::to_vec(&short)?;
            if line.len() <= MAX_LINE {
                break;
            }
        }
        Ok(line)
    }

    fn cut_texts(&mut self, limit: usize) {
        let texts = [
            &mut self.updated_time,
            &mut self.host_name,
            &mut self.namespace_name,
            &mut self.container_id,
            &mut self.container_name,
            &mut self.container_image,
            &mut self.labels,
            &mut self.parent_process_name,
            &mut self.process_name,
            &mut self.policy_name,
            &mut self.severity,
            &mut self.tags,
            &mut self.message,
            &mut self.kind,
            &mut self.source,
            &mut self.operation,
            &mut self.resource,
            &mut self.data,
            &mut self.enforcer,
            &mut self.action,
            &mut self.result,
            &mut self.cwd,
            &mut self.tty,
            &mut self.org,
            &mut self.node_id,
            &mut self.service_url,
            &mut self.service_version,
            &mut self.agreement_id,
            &mut self.bundle,
        ];
        for text in texts.into_iter().chain(self.atags.iter_mut()) {
            if text.len() > limit {
                let end = (0..=limit).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
                text.truncate(end);
                text.push('…');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_kubearmors_own_example() {
        let text = r#"{"Timestamp":1717259989,"UpdatedTime":"2024-06-01T16:39:49.360067Z","HostName":"kubearmor-dev","HostPPID":1582,"HostPID":2420,"PPID":1582,"PID":2420,"UID":1000,"ParentProcessName":"/usr/bin/bash","ProcessName":"/usr/bin/sleep","PolicyName":"hsp-kubearmor-dev-proc-path-block","Severity":"1","Type":"MatchedHostPolicy","Source":"/usr/bin/bash","Operation":"Process","Resource":"/usr/bin/sleep","Data":"lsm=SECURITY_BPRM_CHECK","Enforcer":"BPFLSM","Action":"Block","Result":"Permission denied","Cwd":"/"}"#;
        let alert: Alert = serde_json::from_str(text).unwrap();
        assert_eq!(alert.policy_name, "hsp-kubearmor-dev-proc-path-block");
        assert_eq!(String::from_utf8(alert.to_line().unwrap()).unwrap(), text);
    }

    #[test]
    fn leaves_out_what_is_empty_except_ppid_and_uid() {
        let line = Alert::default().to_line().unwrap();
        assert_eq!(line, br#"{"Timestamp":0,"PPID":0,"UID":0}"#);
    }

    #[test]
    fn ignores_a_field_it_does_not_know() {
        let alert: Alert = serde_json::from_str(r#"{"UID":7,"EventData":{"a":"b"}}"#).unwrap();
        assert_eq!(alert, Alert { uid: 7, ..Alert::default() });
    }

    #[test]
    fn stamps_both_times() {
        let alert = Alert::at("2024-06-01T16:39:49.360067Z".parse().unwrap());
        assert_eq!(
            (alert.timestamp, alert.updated_time.as_str()),
            (1717259989, "2024-06-01T16:39:49.360067Z")
        );
    }

    #[test]
    fn ranks_by_severity() {
        let ranked = |severity: &str| Alert { severity: severity.into(), ..Alert::default() }.rank();
        assert_eq!(["", "0", "1", "7", "10", "11", "high"].map(ranked), [1, 1, 1, 7, 10, 1, 1]);
        assert_eq!(Alert { operation: ALERT_THRESHOLD.into(), ..Alert::default() }.rank(), 10);
    }

    #[test]
    fn cuts_an_alert_that_is_too_large_on_a_character_boundary() {
        let alert = Alert {
            resource: "é\u{1}".repeat(200_000),
            labels: "x".repeat(100_000),
            atags: vec!["tag".into(); 100_000],
            ..Alert::default()
        };
        let line = alert.to_line().unwrap();
        assert!(line.len() <= MAX_LINE);
        let read: Alert = serde_json::from_slice(&line).unwrap();
        assert!(read.resource.starts_with('é') && read.resource.ends_with('…'));
        assert_eq!(read.atags.len(), MAX_ATAGS);
    }
}
