//! Finds this machine's identity and its way to the hub: in the variables that the Open Horizon agent sets
//! for its services or, on a machine without that agent, in those that `hzn` reads.

use std::path::Path;

use armor_base::file;
use armor_base::name::check_name;
use armor_bundle::NodeIdentity;
use armor_mms::MmsError;
use armor_mms::css::CssConfig;
use armor_mms::ess::EssConfig;
use serde_json::Value;

use crate::hub::HubConfig;

/// Variables any of which shows that Horizon runs the agent.
const ESS_VARIABLES: [&str; 4] =
    ["HZN_ESS_API_PROTOCOL", "HZN_ESS_API_ADDRESS", "HZN_ESS_AUTH", "HZN_ESS_CERT"];
/// Source of the variables, for messages.
const MEANS: &str = "the Open Horizon agent sets it for the services it starts; on another machine /etc/hzn-armor/hub.env does";

/// A `Property` is a built-in node property with its variable and the parser of its value.
type Property = (&'static str, &'static str, fn(&str) -> Option<Value>);

const PROPERTIES: [Property; 4] = [
    ("openhorizon.cpu", "HZN_CPUS", |text| text.parse::<i64>().ok().map(Value::from)),
    ("openhorizon.memory", "HZN_RAM", |text| text.parse::<i64>().ok().map(Value::from)),
    ("openhorizon.hardwareId", "HZN_HARDWAREID", |text| Some(text.into())),
    ("openhorizon.allowPrivileged", "HZN_PRIVILEGED", |text| text.parse::<bool>().ok().map(Value::from)),
];

/// `Horizon` is this machine's place in Horizon.
#[derive(Debug, Clone)]
pub struct Horizon {
    /// The identity under which bundles and the collector know the machine.
    pub node: NodeIdentity,
    /// The way to the hub; `None` if no variable names one.
    pub hub: Option<HubConfig>,
    /// The agreement that the agent runs under; empty outside one.
    pub agreement: String,
}

impl Horizon {
    /// Reads the process's variables: those that the Open Horizon agent gives its services, or else those
    /// that `hzn` reads. `host_name` is the machine's name if no variable sets another.
    ///
    /// # Errors
    /// Fails with [`MmsError`], which names the missing or invalid variable.
    pub fn from_env(host_name: &str) -> Result<Self, MmsError> {
        Self::from_vars(host_name, |name| std::env::var(name).ok())
    }

    /// Reads the variables like [`Self::from_env`], but from `var`.
    pub fn from_vars(host_name: &str, var: impl Fn(&str) -> Option<String>) -> Result<Self, MmsError> {
        let get = |name: &str| var(name).filter(|value| !value.is_empty());
        let checked = |name: &str, value: Option<String>| {
            let value = value.ok_or_else(|| MmsError::Config(format!("{name} is not set: {MEANS}")))?;
            check_name(&value).map_err(|e| MmsError::Config(format!("{name}: {e}")))?;
            Ok::<_, MmsError>(value)
        };
        let hub = if ESS_VARIABLES.iter().any(|name| get(name).is_some()) {
            Some(HubConfig::Ess(EssConfig::from_vars(&var)?))
        } else if get("HZN_FSS_CSSURL").is_some() {
            Some(HubConfig::Css(CssConfig::from_vars(&var)?))
        } else {
            None
        };
        let id = match &hub {
            Some(HubConfig::Ess(_)) => checked("HZN_NODE_ID", get("HZN_NODE_ID"))?,
            Some(HubConfig::Css(config)) => user_of_its_own(config, get("HZN_NODE_ID"))?,
            None => {
                let id = get("HZN_NODE_ID").unwrap_or_else(|| host_name.to_owned());
                checked("HZN_NODE_ID, or else the host's name", Some(id))?
            }
        };
        let org = match &hub {
            Some(HubConfig::Ess(_)) => checked("HZN_ORGANIZATION", get("HZN_ORGANIZATION"))?,
            _ => checked("HZN_ORG_ID", get("HZN_ORG_ID").or_else(|| get("HZN_ORGANIZATION")))?,
        };
        let properties = PROPERTIES
            .iter()
            .filter_map(|(property, variable, read)| Some(((*property).to_owned(), read(&get(variable)?)?)));
        Ok(Self {
            node: NodeIdentity {
                org,
                id,
                arch: get("HZN_ARCH").unwrap_or_else(|| horizon_arch().to_owned()),
                properties: properties.collect(),
            },
            hub,
            agreement: get("HZN_AGREEMENTID").unwrap_or_default(),
        })
    }
}

/// Returns the machine's name at the CSS, which is that of its user; under another user, it would be another
/// machine to the collector.
fn user_of_its_own(config: &CssConfig, node: Option<String>) -> Result<String, MmsError> {
    let (login, _) = config.login()?;
    let user = login.strip_prefix(&format!("{}/", config.org)).filter(|user| check_name(user).is_ok());
    match (user, node) {
        (Some(user), None) => Ok(user.to_owned()),
        (Some(user), Some(node)) if user == node => Ok(node),
        (Some(user), Some(node)) => Err(MmsError::Config(format!(
            "HZN_NODE_ID={node}, but the hub knows this machine as the user {user}: give it a user {node}, or leave the variable out"
        ))),
        (None, _) => Err(MmsError::Config(format!(
            "HZN_EXCHANGE_USER_AUTH: the user {login} cannot be a machine's: it needs one of the org {} for itself, named with \
             A-Z a-z 0-9 . _ -",
            config.org
        ))),
    }
}

/// Returns Horizon's name for the architecture that this program was built for.
pub(crate) fn horizon_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Maximum size of the credentials file, in bytes.
const MAX_AUTH: usize = 64 << 10;

/// Returns name (`org/url`) and version (dotted numbers) of the service that the agent runs as, from the
/// credentials file. Both are empty while the file is unreadable.
pub fn service(auth_file: &Path) -> (String, String) {
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Auth {
        id: String,
        version: String,
    }
    let text = file::read(auth_file, MAX_AUTH).unwrap_or_default();
    let auth: Auth = serde_json::from_slice(&text).unwrap_or_default();
    (auth.id, auth.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &[(&str, &str)] = &[
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
    const MACHINE: &[(&str, &str)] = &[
        ("HZN_ORG_ID", "myorg"),
        ("HZN_EXCHANGE_USER_AUTH", "gw7:secret"),
        ("HZN_FSS_CSSURL", "https://hub.example.com/edge-css"),
    ];

    fn read(variables: &[(&str, &str)], changes: &[(&str, &str)]) -> Result<Horizon, MmsError> {
        Horizon::from_vars("gateway", |name| {
            let found = changes.iter().chain(variables).find(|(key, _)| *key == name)?;
            Some(found.1.to_owned())
        })
    }

    #[test]
    fn reads_what_the_agent_sets() {
        // The variables of `hzn` may be set too.
        let horizon = read(NODE, MACHINE).unwrap();
        assert!(matches!(horizon.hub, Some(HubConfig::Ess(_))));
        assert_eq!((horizon.node.org.as_str(), horizon.node.id.as_str()), ("myorg", "node1"));
        assert_eq!(horizon.node.arch, "arm64");
        assert_eq!(horizon.node.properties["openhorizon.cpu"], 4);
        assert_eq!(horizon.node.properties["openhorizon.allowPrivileged"], true);
        assert!(horizon.agreement.is_empty());
    }

    #[test]
    fn without_an_ess_the_machine_is_named_by_its_user() {
        for changes in [&[][..], &[("HZN_NODE_ID", "gw7")], &[("HZN_EXCHANGE_USER_AUTH", "myorg/gw7:x")]] {
            let horizon = read(MACHINE, changes).unwrap();
            assert!(matches!(&horizon.hub, Some(HubConfig::Css(config)) if config.org == "myorg"));
            assert_eq!((horizon.node.org.as_str(), horizon.node.id.as_str()), ("myorg", "gw7"));
        }
        let auth = "HZN_EXCHANGE_USER_AUTH";
        for (change, part) in [
            (("HZN_NODE_ID", "node1"), "knows this machine as the user gw7"),
            ((auth, "otherorg/gw7:x"), "the user otherorg/gw7 cannot be a machine's"),
            ((auth, "me@example.com:x"), "cannot be a machine's"),
            ((auth, "gw7"), "no colon"),
            ((auth, ""), auth),
            (("HZN_ORG_ID", ""), "HZN_ORG_ID"),
        ] {
            let error = read(MACHINE, &[change]).unwrap_err().to_string();
            assert!(error.contains(part), "{change:?}: {error}");
        }
    }

    #[test]
    fn without_a_hub_a_machine_has_a_name_all_the_same() {
        let horizon = read(&[("HZN_ORG_ID", "myorg")], &[]).unwrap();
        assert!(horizon.hub.is_none());
        assert_eq!((horizon.node.org.as_str(), horizon.node.id.as_str()), ("myorg", "gateway"));
        assert_eq!(read(&[("HZN_ORG_ID", "myorg")], &[("HZN_NODE_ID", "gw7")]).unwrap().node.id, "gw7");
        assert!(read(&[], &[]).unwrap_err().to_string().contains("HZN_ORG_ID is not set"));
    }

    #[test]
    fn names_what_is_missing() {
        for name in ["HZN_ORGANIZATION", "HZN_NODE_ID", "HZN_ESS_API_ADDRESS", "HZN_ESS_AUTH"] {
            assert!(read(NODE, &[(name, "")]).unwrap_err().to_string().contains(name), "{name}");
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
