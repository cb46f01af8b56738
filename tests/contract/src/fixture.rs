//! What most tests need on a hub, and tests that run on each hub: [`both_hubs!`](crate::both_hubs), [`dev_hub!`](crate::dev_hub),
//! [`no_hub!`](crate::no_hub) and [`run_all`] make a `harness = false` test of them.

use crate::{Client, DevHub, DevHubConfig, Hub, RealHub, Role};
use armor_hub_client::css::{CssClient, CssConfig};
use armor_hub_client::ess::{EssAddress, EssClient, EssConfig};
use armor_hub_client::mms::MmsError;
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

/// A hub with one service on its node and one operator, each with a bare client and with the product's own.
pub struct Fixture<H> {
    /// The hub itself.
    pub hub: H,
    /// The service `myorg/hzn-armor`, version 1.5.0, at the ESS.
    pub service: Client,
    /// An ordinary user of the org at the CSS.
    pub operator: Client,
    /// Last, for the hub writes into it.
    dir: TempDir,
}

impl Fixture<DevHub> {
    /// On a development hub, which has no agbot here, as the real one has none.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn on_dev_hub() -> Result<Self, Error> {
        Self::on_dev_hub_with(|config| DevHubConfig { agbot: false, ..config }).await
    }

    /// On a development hub set up otherwise.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn on_dev_hub_with(change: impl FnOnce(DevHubConfig) -> DevHubConfig) -> Result<Self, Error> {
        let dir = TempDir::new()?;
        let config =
            DevHubConfig { poll: Duration::from_millis(20), ..DevHubConfig::new(dir.path().join("hub")) };
        Self::new(DevHub::start(change(config)).await?, dir)
    }
}

impl Fixture<RealHub> {
    /// On the real services.
    ///
    /// # Errors
    /// When they cannot be built or do not start.
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

    /// An empty directory of the test's own, gone with the fixture.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where the service's `auth.json` and `cert.pem` lie.
    pub fn horizon_files(&self) -> PathBuf {
        self.dir.path().join("horizon")
    }

    /// Writes both as anax does, with another token perhaps.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write_horizon_files(&self, token: &str) -> io::Result<()> {
        self.hub.write_horizon_files(&self.horizon_files(), "myorg/hzn-armor", token, "1.5.0")
    }

    /// How the service reaches the ESS.
    pub fn ess_config(&self) -> EssConfig {
        EssConfig {
            address: EssAddress::Unix(self.hub.ess_socket()),
            auth_file: self.horizon_files().join("auth.json"),
            cert_file: self.horizon_files().join("cert.pem"),
            timeout: Duration::from_secs(5),
        }
    }

    /// The service's client.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn ess(&self) -> Result<EssClient, MmsError> {
        EssClient::new(self.ess_config())
    }

    /// How the operator reaches the CSS.
    pub fn css_config(&self) -> CssConfig {
        CssConfig {
            url: self.hub.css_url(),
            org: self.hub.org(),
            user: format!("operator:{OPERATOR_PASSWORD}"),
            ca_file: None,
            timeout: Duration::from_secs(10),
        }
    }

    /// The operator's client.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn css(&self) -> Result<CssClient, MmsError> {
        CssClient::new(&self.css_config())
    }

    /// How a machine of the node's name reaches the CSS that is no Horizon node: as a user of that name.
    ///
    /// # Errors
    /// When the user cannot be kept.
    pub fn machine_config(&self) -> io::Result<CssConfig> {
        let name = self.hub.node();
        self.hub.add_user(&name, MACHINE_PASSWORD, Role::User)?;
        Ok(CssConfig { user: format!("{name}:{MACHINE_PASSWORD}"), ..self.css_config() })
    }

    /// The node as a destination of objects: its type and its id.
    pub fn destination(&self) -> (String, String) {
        ("openhorizon.edgenode".to_owned(), self.hub.node())
    }
}

/// What a test may return.
pub trait Outcome {
    /// Whether it passed.
    ///
    /// # Errors
    /// When it did not.
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
/// When the test fails.
pub fn run(test: impl Future<Output = Result<(), Failed>>) -> Result<(), Failed> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(test)
}

/// Each `async fn name<H: Hub>(t: Fixture<H>)` as two tests, `dev::name` and `real::name`, each with a hub of its own.
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

/// Each `async fn name(t: Fixture<DevHub>)` as a test `dev::name`.
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

/// Each `async fn name()` as a test `name`.
#[macro_export]
macro_rules! no_hub {
    ($($name:ident),* $(,)?) => {
        vec![$($crate::Trial::test(stringify!($name), || {
            $crate::run(async { $crate::Outcome::outcome($name().await) })
        })),*]
    };
}

/// Runs what the arguments ask for. `ARMOR_NO_REAL_HUB=1` leaves the real hub out, for people without Go, and names the tests.
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
