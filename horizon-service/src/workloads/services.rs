//! Finds the Horizon service that a container belongs to.
//!
//! The Open Horizon agent labels containers with an agreement, but with no service. The service's name is in
//! the credentials that the agent writes for the service. Reading that file of the host takes no further
//! right than enforcement does, while asking the agent would take the host's network. Only the service's name
//! is used, never its token.
//!
//! Services once found are kept in a file, for restarts while the credentials are not readable.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use armor_base::file;
use serde::{Deserialize, Serialize};

use crate::base::disk::{DiskError, read_json, replace, to_json};
use crate::workloads::root::Root;
use crate::workloads::workload::{HorizonService, ServiceName};

const FORMAT: &str = "horizon-armor.services/1";
/// The Open Horizon agent's default directory of credentials.
const CREDENTIALS: &str = "/var/horizon/ess-auth";
/// Mount point of the credentials in a service's container.
pub const CREDENTIALS_MOUNT: &str = "/ess-auth";
/// Maximum size of a credentials file, in bytes.
const MAX_CREDENTIALS: usize = 64 << 10;
/// Maximum number of services kept.
const MAX_REMEMBERED: usize = 4096;

const AGREEMENT_LABEL: &str = "openhorizon.anax.agreement_id";
const CONTAINER_LABEL: &str = "openhorizon.anax.service_name";

#[derive(Debug, Default, Serialize, Deserialize)]
struct Remembered {
    format: String,
    /// Services by agreement or instance key.
    services: BTreeMap<String, ServiceName>,
}

/// `Services` finds services by their agreements.
pub struct Services {
    file: PathBuf,
    host: Root,
    remembered: Remembered,
    changed: bool,
}

impl Services {
    /// Opens the services stored in the state directory.
    pub fn open(state_dir: &Path) -> Self {
        Self::on_host(state_dir, Root::of_host())
    }

    fn on_host(state_dir: &Path, host: Root) -> Self {
        let file = state_dir.join("services.json");
        let remembered = read_json::<Remembered>(&file, |all| &all.format, FORMAT).unwrap_or_else(|error| {
            tracing::warn!("{error}: which Horizon service a container is must be found anew");
            None
        });
        Self { file, host, remembered: remembered.unwrap_or_default(), changed: false }
    }

    /// Returns the service of a container with these labels, or `None` if Horizon did not start it.
    /// `credentials` is the host directory mounted at [`CREDENTIALS_MOUNT`], if it is known.
    pub fn of(
        &mut self,
        labels: &BTreeMap<String, String>,
        credentials: Option<&Path>,
    ) -> Option<HorizonService> {
        let container = labels.get(CONTAINER_LABEL)?.clone();
        let of_mount = || credentials?.file_name()?.to_str().map(str::to_owned);
        let agreement = labels.get(AGREEMENT_LABEL).cloned().or_else(of_mount).unwrap_or_default();
        if !is_file_name(&agreement) {
            return Some(HorizonService { container, ..HorizonService::default() });
        }
        let dir = credentials.map_or_else(|| Path::new(CREDENTIALS).join(&agreement), Path::to_owned);
        let service = match self.read(&dir.join("auth.json")) {
            Some(service) => {
                self.remember(&agreement, &service);
                Some(service)
            }
            None => self.remembered.services.get(&agreement).cloned(),
        };
        Some(HorizonService { agreement, container, service })
    }

    fn read(&self, file: &Path) -> Option<ServiceName> {
        #[derive(Deserialize)]
        struct Credentials {
            id: String,
            #[serde(default)]
            version: String,
        }
        let path = self.host.find(&self.host.resolve(file.to_str()?, true))?;
        let text = file::read(&path, MAX_CREDENTIALS).ok()?;
        let Credentials { id, version } = serde_json::from_slice(&text).ok()?;
        let (org, url) = id.split_once('/')?;
        Some(ServiceName { org: org.to_owned(), url: url.to_owned(), version })
    }

    fn remember(&mut self, agreement: &str, service: &ServiceName) {
        let services = &mut self.remembered.services;
        if services.get(agreement) != Some(service)
            && (services.len() < MAX_REMEMBERED || services.contains_key(agreement))
        {
            services.insert(agreement.to_owned(), service.clone());
            self.changed = true;
        }
    }

    /// Forgets services without a container, and stores what changed.
    ///
    /// # Errors
    /// Fails with [`DiskError`] if the file cannot be written; the next call tries again.
    pub fn keep<'a>(&mut self, present: impl Iterator<Item = &'a HorizonService>) -> Result<(), DiskError> {
        let present: BTreeSet<&str> = present.map(|service| service.agreement.as_str()).collect();
        let before = self.remembered.services.len();
        self.remembered.services.retain(|agreement, _| present.contains(agreement.as_str()));
        self.changed |= self.remembered.services.len() != before;
        self.save()
    }

    /// Stores what changed.
    ///
    /// # Errors
    /// Fails with [`DiskError`] if the file cannot be written; the next call tries again.
    pub fn save(&mut self) -> Result<(), DiskError> {
        if self.changed {
            self.remembered.format = FORMAT.to_owned();
            replace(&self.file, &to_json(&self.file, &self.remembered)?)?;
            self.changed = false;
        }
        Ok(())
    }
}

/// Returns whether a label, which anybody may have written, is a single file name.
fn is_file_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && !name.starts_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn labels(agreement: &str) -> BTreeMap<String, String> {
        [(AGREEMENT_LABEL, agreement), (CONTAINER_LABEL, "web")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    fn write(host: &Path, dir: &str, text: &str) {
        let dir = host.join(dir);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("auth.json"), text).unwrap();
    }

    fn url(service: Option<HorizonService>) -> Option<String> {
        service?.service.map(|service| format!("{}/{} {}", service.org, service.url, service.version))
    }

    #[test]
    fn a_service_is_found_by_its_agreement_and_remembered() {
        let (host, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open = || Services::on_host(state.path(), Root::at(host.path().to_owned()));
        write(
            host.path(),
            "var/horizon/ess-auth/a1",
            r#"{"id":"org/x.com-web","token":"secret","version":"1.2.0"}"#,
        );
        write(host.path(), "elsewhere/b2", r#"{"id":"org/db","token":"secret","version":""}"#);
        let mut services = open();
        let found = services.of(&labels("a1"), None).unwrap();
        assert_eq!((found.agreement.as_str(), found.container.as_str()), ("a1", "web"));
        assert_eq!(url(Some(found.clone())).unwrap(), "org/x.com-web 1.2.0");
        assert_eq!(url(services.of(&labels("b2"), None)), None);
        let mut shared = labels("");
        shared.remove(AGREEMENT_LABEL);
        let dependency = services.of(&shared, Some(Path::new("/elsewhere/b2"))).unwrap();
        assert_eq!(
            (url(Some(dependency.clone())).unwrap().as_str(), dependency.agreement.as_str()),
            ("org/db ", "b2")
        );
        services.keep([&found, &dependency].into_iter()).unwrap();
        let written = fs::read_to_string(state.path().join("services.json")).unwrap();
        assert!(!written.contains("secret"), "{written}");

        fs::remove_dir_all(host.path().join("var")).unwrap();
        let mut services = open();
        assert_eq!(url(services.of(&labels("a1"), None)).unwrap(), "org/x.com-web 1.2.0");
        services.keep([&dependency].into_iter()).unwrap();
        assert_eq!(url(open().of(&labels("a1"), None)), None);
        fs::write(state.path().join("services.json"), "{").unwrap();
        assert_eq!(url(open().of(&labels("b2"), None)), None);
    }

    #[test]
    fn a_label_leads_nowhere_else() {
        let (host, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut services = Services::on_host(state.path(), Root::at(host.path().to_owned()));
        write(host.path(), "var/horizon", r#"{"id":"org/evil","token":"","version":"1"}"#);
        for agreement in ["..", "../../horizon", "", "a/b", ".hidden"] {
            let found = services.of(&labels(agreement), None).unwrap();
            assert_eq!((found.service, found.agreement.as_str()), (None, ""), "{agreement}");
        }
        assert_eq!(services.of(&BTreeMap::new(), None), None);
        write(host.path(), "var/horizon/ess-auth/x", r#"{"id":"no-org"}"#);
        assert_eq!(services.of(&labels("x"), None).unwrap().service, None);
    }
}
