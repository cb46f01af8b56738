//! This module sets up what most tests need on a hub. [`both_hubs!`](crate::both_hubs),
//! [`dev_hub!`](crate::dev_hub), [`no_hub!`](crate::no_hub) and [`run_all`] make a `harness = false` test of
//! functions that run on each hub.

use crate::{Client, DevHub, DevHubConfig, Hub, RealHub, Role};
use armor_mms::MmsError;
use armor_mms::css::{CssClient, CssConfig};
use armor_mms::ess::{EssAddress, EssClient, EssConfig};
use libtest_mimic::{Arguments, Failed, Trial};
use std::fmt::Display;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tempfile::TempDir;

type Error = Box<dyn std::error::Error + Send + Sync>;

const SERVICE_TOKEN: &str = "service-token";
const OPERATOR_PASSWORD: &str = "operator-password";
const MACHINE_PASSWORD: &str = "machine-password";

/// A `Fixture` is a hub with one service on its node and one operator; each has a bare client and the
/// product's client.
pub struct Fixture<H> {
    /// The hub itself.
    pub hub: H,
    /// The service `myorg/hzn-armor`, version 1.5.0, at the ESS.
    pub service: Client,
    /// A user of the org without special rights, at the CSS.
    pub operator: Client,
    /// Directory of the test; last in this struct, because it must be dropped after the hub, which writes
    /// into it.
    dir: TempDir,
}

impl Fixture<DevHub> {
    /// Starts a fixture on a development hub. Its agbot is off, because the real hub has none here.
    ///
    /// # Errors
    /// Fails if the hub does not start.
    pub async fn on_dev_hub() -> Result<Self, Error> {
        Self::on_dev_hub_with(|config| DevHubConfig { agbot: false, ..config }).await
    }

    /// Starts a fixture on a development hub with a changed configuration.
    ///
    /// # Errors
    /// Fails if the hub does not start.
    pub async fn on_dev_hub_with(change: impl FnOnce(DevHubConfig) -> DevHubConfig) -> Result<Self, Error> {
        let dir = TempDir::new()?;
        let config =
            DevHubConfig { poll: Duration::from_millis(20), ..DevHubConfig::new(dir.path().join("hub")) };
        Self::new(DevHub::start(change(config)).await?, dir)
    }
}

impl Fixture<RealHub> {
    /// Starts a fixture on the real services.
    ///
    /// # Errors
    /// Fails if the services cannot be built or do not start.
    pub async fn on_real_hub() -> Result<Self, Error> {
        let dir = TempDir::new()?;
        Self::new(RealHub::start(&dir.path().join("hub")).await?, dir)
    }
}

impl<H: Hub> Fixture<H> {
    fn new(hub: H, dir: TempDir) -> Result<Self, Error> {
        let service = hub.add_service("hzn-armor", "1.5.0", SERVICE_TOKEN)?;
        let operator = hub.add_user("operator", OPERATOR_PASSWORD, Role::User)?;
        let fixture = Self {
            service: Client::ess(&hub, &service, SERVICE_TOKEN)?,
            operator: Client::css(&hub, &operator, OPERATOR_PASSWORD)?,
            hub,
            dir,
        };
        fixture.write_horizon_files(SERVICE_TOKEN)?;
        Ok(fixture)
    }

    /// Returns the test's own directory, which is removed with the fixture.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the directory of the service's `auth.json` and `cert.pem`.
    pub fn horizon_files(&self) -> PathBuf {
        self.dir.path().join("horizon")
    }

    /// Writes both files as anax does, with the given token.
    ///
    /// # Errors
    /// Fails if they cannot be written.
    pub fn write_horizon_files(&self, token: &str) -> io::Result<()> {
        self.hub.write_horizon_files(&self.horizon_files(), "myorg/hzn-armor", token, "1.5.0")
    }

    /// Returns the configuration with which the service reaches the ESS.
    pub fn ess_config(&self) -> EssConfig {
        EssConfig {
            address: EssAddress::Unix(self.hub.ess_socket()),
            auth_file: self.horizon_files().join("auth.json"),
            cert_file: self.horizon_files().join("cert.pem"),
            timeout: Duration::from_secs(5),
        }
    }

    /// Returns the service's client.
    ///
    /// # Errors
    /// Fails if it cannot be made.
    pub fn ess(&self) -> Result<EssClient, MmsError> {
        EssClient::new(self.ess_config())
    }

    /// Returns the configuration with which the operator reaches the CSS.
    pub fn css_config(&self) -> CssConfig {
        CssConfig {
            url: self.hub.css_url(),
            org: self.hub.org(),
            user: format!("operator:{OPERATOR_PASSWORD}"),
            ca_file: None,
            timeout: Duration::from_secs(10),
        }
    }

    /// Returns the operator's client.
    ///
    /// # Errors
    /// Fails if it cannot be made.
    pub fn css(&self) -> Result<CssClient, MmsError> {
        CssClient::new(&self.css_config())
    }

    /// Returns the configuration with which a machine that is not a Horizon node reaches the CSS: as a user
    /// with the node's name.
    ///
    /// # Errors
    /// Fails if the user cannot be added.
    pub fn machine_config(&self) -> io::Result<CssConfig> {
        let name = self.hub.node();
        self.hub.add_user(&name, MACHINE_PASSWORD, Role::User)?;
        Ok(CssConfig { user: format!("{name}:{MACHINE_PASSWORD}"), ..self.css_config() })
    }

    /// Returns the node as a destination of objects: its type and its id.
    pub fn destination(&self) -> (String, String) {
        ("openhorizon.edgenode".to_owned(), self.hub.node())
    }
}

/// An `Outcome` is a value that a test may return.
pub trait Outcome {
    /// Returns whether the test passed.
    ///
    /// # Errors
    /// Fails if it did not.
    fn outcome(self) -> Result<(), Failed>;
}

impl Outcome for () {
    fn outcome(self) -> Result<(), Failed> {
        Ok(())
    }
}

impl<E: Display> Outcome for Result<(), E> {
    fn outcome(self) -> Result<(), Failed> {
        Ok(self?)
    }
}

/// Runs one test on a runtime of its own.
///
/// # Errors
/// Fails if the test fails.
pub fn run(test: impl Future<Output = Result<(), Failed>>) -> Result<(), Failed> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(test)
}

/// Makes each `async fn name<H: Hub>(t: Fixture<H>)` into two tests, `dev::name` and `real::name`, each with
/// its own hub.
#[macro_export]
macro_rules! both_hubs {
    ($($name:ident),* $(,)?) => {{
        let mut trials = $crate::dev_hub![$($name),*];
        trials.extend([$($crate::Trial::test(concat!("real::", stringify!($name)), || {
            $crate::run(async {
                $crate::Outcome::outcome($name($crate::Fixture::on_real_hub().await?).await)
            })
        })),*]);
        trials
    }};
}

/// Makes each `async fn name(t: Fixture<DevHub>)` into a test `dev::name`.
#[macro_export]
macro_rules! dev_hub {
    ($($name:ident),* $(,)?) => {
        vec![$($crate::Trial::test(concat!("dev::", stringify!($name)), || {
            $crate::run(async {
                $crate::Outcome::outcome($name($crate::Fixture::on_dev_hub().await?).await)
            })
        })),*]
    };
}

/// Makes each `async fn name()` into a test `name`.
#[macro_export]
macro_rules! no_hub {
    ($($name:ident),* $(,)?) => {
        vec![$($crate::Trial::test(stringify!($name), || {
            $crate::run(async { $crate::Outcome::outcome($name().await) })
        })),*]
    };
}

/// Runs the tests that the arguments select. `ARMOR_NO_REAL_HUB=1` skips the real hub, for people without Go,
/// and lists the skipped tests.
pub fn run_all(trials: impl IntoIterator<Item = Vec<Trial>>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Tests mostly wait for polls, so more of them run at once than there are processors.
    arguments.test_threads.get_or_insert(8);
    let (mut left_out, mut kept): (Vec<_>, Vec<_>) = (Vec::new(), trials.into_iter().flatten().collect());
    if std::env::var_os("ARMOR_NO_REAL_HUB").is_some_and(|value| value == "1") {
        (left_out, kept) = kept.into_iter().partition(|trial| trial.name().starts_with("real::"));
    }
    for trial in left_out {
        eprintln!("left out (no real hub): {}", trial.name());
    }
    libtest_mimic::run(&arguments, kept).exit_code()
}
