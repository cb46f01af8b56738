//! Decides which policies select this host, by the names that the node has.

use std::fs;
use std::path::Path;

use armor_base::file;
use armor_bundle::NodeIdentity;
use armor_bundle::constraint::Properties;
use armor_policy::Policy;
use armor_policy::model::Kind;
use armor_policy::selector_keys::{
    ARCH, HOSTNAME, HOSTNAME_REGEX, NODE_ID, NODE_ORG, NODE_PROPERTIES, Names, OS,
};
use serde_json::Value;

use crate::hub::horizon::horizon_arch;

/// Maximum size of `/etc/hostname`, in bytes.
const MAX_HOSTNAME: usize = 4 << 10;

/// `NodeNames` are the names by which policies select this node.
#[derive(Debug, Clone, Default)]
pub struct NodeNames {
    /// The host's name.
    pub hostname: String,
    /// The node's id in Horizon.
    pub id: String,
    /// The node's organisation.
    pub org: String,
    /// The architecture, as Horizon names it.
    pub arch: String,
    /// The node's built-in properties.
    pub properties: Properties,
}

impl NodeNames {
    /// Returns the names of this host, which Horizon knows as `node`.
    pub fn of(node: &NodeIdentity) -> Self {
        Self {
            hostname: Self::hostname(),
            id: node.id.clone(),
            org: node.org.clone(),
            arch: if node.arch.is_empty() { horizon_arch().to_owned() } else { node.arch.clone() },
            properties: node.properties.clone(),
        }
    }

    /// Returns the host's name as process 1 sees it, which may differ from that of the agent's container.
    pub fn hostname() -> String {
        let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let uts = |process: &str| fs::read_link(format!("/proc/{process}/ns/uts")).ok();
        if uts("1").is_none() || uts("1") == uts("self") {
            return own;
        }
        let host = file::read(Path::new("/proc/1/root/etc/hostname"), MAX_HOSTNAME).unwrap_or_default();
        let host = String::from_utf8(host).unwrap_or_default();
        if host.trim().is_empty() { own } else { host.trim().to_owned() }
    }

    /// Returns whether a policy is for this host.
    pub fn selected_by(&self, policy: &Policy) -> bool {
        policy.kind == Kind::Host
            && policy.selector.labels.iter().all(|(key, value)| self.carries(key, value))
    }

    fn carries(&self, key: &str, value: &str) -> bool {
        if HOSTNAME_REGEX.contains(&key) {
            return Names::hostname_regex(value).is_ok_and(|names| names.matches(&self.hostname));
        }
        let Ok(names) = Names::exact(value) else { return false };
        let is = |name: &String| !name.is_empty() && names.matches(name);
        match key {
            _ if HOSTNAME.contains(&key) => names.matches(&self.hostname) || is(&self.id),
            NODE_ID => is(&self.id),
            NODE_ORG => is(&self.org),
            ARCH => is(&self.arch),
            OS => names.matches("linux"),
            "openhorizon.arch" => is(&self.arch),
            _ if NODE_PROPERTIES.contains(&key) => {
                self.properties.get(key).is_some_and(|property| match property {
                    Value::String(text) => is(text),
                    other => names.matches(&other.to_string()),
                })
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::testing::host_policy;

    #[test]
    fn a_host_policy_is_for_the_nodes_it_names() {
        let node = NodeNames {
            hostname: "gw-7".into(),
            id: "node1".into(),
            org: "myorg".into(),
            arch: "arm64".into(),
            properties: [
                ("openhorizon.cpu".to_owned(), 4.into()),
                ("openhorizon.hardwareId".to_owned(), "hw".into()),
            ]
            .into(),
        };
        for (selector, yes) in [
            ("kubearmor.io/hostname: gw-7", true),
            ("kubearmor.io/hostname: node1", true),
            ("kubearmor.io/hostname: '*'", true),
            ("kubearmor.io/hostname: 'other, gw-7'", true),
            ("kubernetes.io/hostname: gw-7", true),
            ("kubearmor.io/hostname: gw-70", false),
            ("kubearmor.io/hostname: gw", false),
            ("kubearmor.io/hostnamereg: gw-*", true),
            ("kubearmor.io/hostnamereg: 'gw-[0-9]'", true),
            ("kubearmor.io/hostnamereg: w-*", false),
            ("horizon.node.id: node1", true),
            ("horizon.node.id: gw-7", false),
            ("horizon.node.org: myorg", true),
            ("kubernetes.io/arch: 'amd64, arm64'", true),
            ("kubernetes.io/arch: amd64", false),
            ("openhorizon.arch: arm64", true),
            ("kubernetes.io/os: linux", true),
            ("kubernetes.io/os: windows", false),
            ("openhorizon.cpu: '4'", true),
            ("openhorizon.cpu: '2'", false),
            ("openhorizon.hardwareId: hw", true),
            ("openhorizon.memory: '*'", false),
            ("purpose: security", false),
            ("kubernetes.io/arch: arm64, horizon.node.id: node2", false),
        ] {
            assert_eq!(node.selected_by(&host_policy(selector)), yes, "{selector}");
        }
        let nobody = NodeNames { hostname: "gw-7".into(), ..NodeNames::default() };
        assert!(!nobody.selected_by(&host_policy("horizon.node.id: '*'")));
    }
}
