//! What the Open Horizon agent tells a service it starts: who the node is and how the ESS is reached.

use std::path::Path;

use armor_hub_client::bundle::NodeIdentity;
use armor_hub_client::ess::EssConfig;
use armor_hub_client::mms::{MmsError, check_name};
use serde_json::Value;

/// A built-in node property, the variable that carries it, and how that reads.
type Property = (&'static str, &'static str, fn(&str) -> Option<Value>);

const PROPERTIES: [Property; 4] = [
    ("openhorizon.cpu", "HZN_CPUS", |text| text.parse::<i64>().ok().map(Value::from)),
    ("openhorizon.memory", "HZN_RAM", |text| text.parse::<i64>().ok().map(Value::from)),
    ("openhorizon.hardwareId", "HZN_HARDWAREID", |text| Some(text.into())),
    ("openhorizon.allowPrivileged", "HZN_PRIVILEGED", |text| text.parse::<bool>().ok().map(Value::from)),
];

/// The service's place in Horizon.
#[derive(Debug, Clone)]
pub struct Horizon {
    /// The node.
    pub node: NodeIdentity,
    /// How to reach the ESS.
    pub ess: EssConfig,
    /// Agreement that the agent runs under; empty outside one.
    pub agreement: String,
}

impl Horizon {
    /// Reads the process's variables.
    ///
    /// # Errors
    /// [`MmsError`] naming the variable that is missing or of no use.
    pub fn from_env() -> Result<Self, MmsError> {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    /// As [`Self::from_env`], with the variables from `var`.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self, MmsError> {
        let get = |name: &str| var(name).filter(|value| !value.is_empty());
        let name = |name: &str| {
            let value = get(name).ok_or_else(|| {
                MmsError::Config(format!(
                    "{name} is not set: the Open Horizon agent sets it for the services it starts"
                ))
            })?;
            check_name(&value).map_err(|e| MmsError::Config(format!("{name}: {e}")))?;
            Ok::<_, MmsError>(value)
        };
        let properties = PROPERTIES
            .iter()
            .filter_map(|(property, variable, read)| Some(((*property).to_owned(), read(&get(variable)?)?)));
        Ok(Self {
            node: NodeIdentity {
                org: name("HZN_ORGANIZATION")?,
                id: name("HZN_NODE_ID")?,
                arch: get("HZN_ARCH").unwrap_or_else(|| horizon_arch().to_owned()),
                properties: properties.collect(),
            },
            ess: EssConfig::from_vars(&var)?,
            agreement: get("HZN_AGREEMENTID").unwrap_or_default(),
        })
    }
}

/// Horizon's word for the architecture this program was built for.
pub(crate) fn horizon_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Name and version of the service as which the agent runs, `org/url` and dotted numbers, from the credentials file. Both
/// empty while the file does not read.
pub fn service(auth_file: &Path) -> (String, String) {
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Auth {
        id: String,
        version: String,
    }
    let text = std::fs::read(auth_file).unwrap_or_default();
    let auth: Auth = serde_json::from_slice(&text).unwrap_or_default();
    (auth.id, auth.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VARIABLES: [(&str, &str); 9] = [
        ("HZN_ORGANIZATION", "myorg"),
        ("HZN_NODE_ID", "node1"),
        ("HZN_ARCH", "arm64"),
        ("HZN_CPUS", "4"),
        ("HZN_PRIVILEGED", "true"),
        ("HZN_ESS_API_PROTOCOL", "secure-unix"),
        ("HZN_ESS_API_ADDRESS", "/run/ess.sock"),
        ("HZN_ESS_AUTH", "/ess-auth/auth.json"),
        ("HZN_ESS_CERT", "/ess-cert/cert.pem"),
    ];

    fn without(missing: &str) -> Result<Horizon, MmsError> {
        Horizon::from_vars(|name| {
            let found = VARIABLES.iter().find(|(key, _)| *key == name && name != missing)?;
            Some(found.1.to_owned())
        })
    }

    #[test]
    fn reads_what_the_agent_sets() {
        let horizon = without("").unwrap();
        assert_eq!((horizon.node.org.as_str(), horizon.node.id.as_str()), ("myorg", "node1"));
        assert_eq!(horizon.node.arch, "arm64");
        assert_eq!(horizon.node.properties["openhorizon.cpu"], 4);
        assert_eq!(horizon.node.properties["openhorizon.allowPrivileged"], true);
        assert!(horizon.agreement.is_empty());
    }

    #[test]
    fn names_what_is_missing() {
        for name in ["HZN_ORGANIZATION", "HZN_NODE_ID", "HZN_ESS_API_ADDRESS", "HZN_ESS_AUTH"] {
            assert!(without(name).unwrap_err().to_string().contains(name), "{name}");
        }
    }

    #[test]
    fn the_service_is_named_by_its_credentials() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        assert_eq!(service(&path), (String::new(), String::new()));
        std::fs::write(&path, r#"{"id":"org/armor","token":"secret","version":"1.2.0"}"#).unwrap();
        assert_eq!(service(&path), ("org/armor".to_owned(), "1.2.0".to_owned()));
    }
}
