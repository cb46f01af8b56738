//! This module builds and runs the real CSS and ESS.

use armor_dev_hub::{Credential, Hub, Role, reserve};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpSocket;

const ORG: &str = "myorg";
const NODE: &str = "node1";
const NODE_TYPE: &str = "openhorizon.edgenode";
const ADMIN: &str = "myorg/hub-admin";
const ADMIN_TOKEN: &str = "hub-admin-token";

/// Time limit until a started process answers.
const START: Duration = Duration::from_secs(30);

/// A `RealHubError` says why the real hub does not run.
#[derive(Debug, thiserror::Error)]
pub enum RealHubError {
    /// Go or a module is missing, or the build fails.
    #[error("cannot build tests/real-hub (install Go, or pass --no-real-hub to leave the real hub out): {0}")]
    Build(String),
    /// A process ended or did not answer in time; with the end of its log.
    #[error("{what} of the real hub does not start: {why}")]
    Start {
        /// `css` or `ess`.
        what: &'static str,
        /// Reason and log.
        why: String,
    },
    /// A file or a port could not be used.
    #[error("the real hub: {0}")]
    Io(#[from] io::Error),
}

/// A `RealHub` is the real CSS and ESS as two processes, which are killed when it is dropped.
pub struct RealHub {
    dir: PathBuf,
    css_port: u16,
    /// Socket that is bound but never listens, so that nobody else gets the port while the hub is down.
    _reserved: TcpSocket,
    credentials: Mutex<BTreeMap<String, Credential>>,
    css: Mutex<Option<Process>>,
    ess: Mutex<Option<Process>>,
}

/// A `Process` is a child that does not outlive its handle. Its standard input is a pipe, so it also ends
/// when this process dies.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Builds the binary, once per process; Go's cache makes this quick if nothing changed.
fn binary() -> Result<&'static Path, RealHubError> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BINARY.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let target = root.join("target/real-hub");
        fs::create_dir_all(&target).map_err(|error| error.to_string())?;
        // Test binaries of several crates may get here at once.
        let lock = File::create(target.join("lock")).map_err(|error| error.to_string())?;
        lock.lock().map_err(|error| error.to_string())?;
        let binary = target.join("real-hub");
        let output = Command::new("go")
            .args(["build", "-o"])
            .arg(&binary)
            .arg(".")
            .current_dir(root.join("tests/real-hub"))
            .output()
            .map_err(|error| format!("go: {error}"))?;
        if output.status.success() {
            Ok(binary)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    });
    built.as_deref().map_err(|why| RealHubError::Build(why.clone()))
}

impl RealHub {
    /// Builds both services if needed, starts them with their state in `dir`, and waits until the node is
    /// registered at the CSS. `dir` must be short: it contains a unix socket.
    ///
    /// # Errors
    /// Fails with a [`RealHubError`].
    pub async fn start(dir: &Path) -> Result<Self, RealHubError> {
        tokio::task::spawn_blocking(binary).await.map_err(io::Error::other)??;
        let node = Credential {
            token: "node-token".to_owned(),
            role: Role::Node,
            org: ORG.to_owned(),
            identity: format!("{NODE_TYPE}/{NODE}"),
        };
        let admin = Credential {
            token: ADMIN_TOKEN.to_owned(),
            role: Role::Admin,
            org: ORG.to_owned(),
            identity: "hub-admin".to_owned(),
        };
        let (reserved, css_port) = reserve(0)?;
        let hub = Self {
            dir: dir.to_owned(),
            css_port,
            _reserved: reserved,
            credentials: Mutex::new([(node_user(), node), (ADMIN.to_owned(), admin)].into()),
            css: Mutex::new(None),
            ess: Mutex::new(None),
        };
        fs::create_dir_all(dir)?;
        hub.write_credentials()?;
        hub.write_configuration()?;
        hub.start_css().await?;
        hub.start_ess().await?;
        hub.wait_for_registration().await?;
        Ok(hub)
    }

    /// Returns the directory of the ESS's key and certificate; the ESS makes new ones if there are none.
    fn certificates(&self) -> PathBuf {
        self.dir.join("ess/sync/certs")
    }

    fn write_configuration(&self) -> io::Result<()> {
        let dir = self.dir.display();
        let port = self.css_port;
        let css = format!(
            "NodeType CSS\nListeningType unsecure\nListeningAddress 127.0.0.1\nUnsecureListeningPort {port}\n\
             CommunicationProtocol http\nStorageProvider bolt\nPersistenceRootPath {dir}/css\n\
             LogTraceDestination stdout\nResendInterval 1\n"
        );
        let ess = format!(
            "NodeType ESS\nDestinationType {NODE_TYPE}\nDestinationId {NODE}\nOrgId {ORG}\nListeningType secure-unix\n\
             ListeningAddress {dir}/essapi.sock\nUnixSocketFilePermissions 0666\nCommunicationProtocol http\n\
             HTTPCSSHost 127.0.0.1\nHTTPCSSPort {port}\nHTTPPollingInterval 1\nStorageProvider bolt\n\
             PersistenceRootPath {dir}/ess\nLogTraceDestination stdout\nResendInterval 1\nEnableDataChunk true\n\
             MaxDataChunkSize 5242880\n"
        );
        for name in ["css", "ess"] {
            fs::create_dir_all(self.dir.join(name))?;
        }
        fs::write(self.dir.join("css.conf"), css)?;
        fs::write(self.dir.join("ess.conf"), ess)
    }

    /// Replaces the file as a whole, because the processes read it at any time.
    fn write_credentials(&self) -> io::Result<()> {
        let credentials = lock(&self.credentials);
        let entries: BTreeMap<_, _> = credentials
            .iter()
            .map(|(name, c)| {
                let entry = serde_json::json!({"token": c.token, "role": c.role.name(), "org": c.org, "identity": c.identity});
                (name, entry)
            })
            .collect();
        let text = serde_json::json!({"hub": node_user(), "credentials": entries}).to_string();
        let new = self.dir.join("credentials.new");
        fs::write(&new, text)?;
        fs::rename(new, self.dir.join("credentials.json"))
    }

    fn spawn(&self, name: &'static str) -> Result<Process, RealHubError> {
        let log = File::options().create(true).append(true).open(self.dir.join(format!("{name}.log")))?;
        let child = Command::new(binary()?)
            .arg("-c")
            .arg(self.dir.join(format!("{name}.conf")))
            .arg("-auth")
            .arg(self.dir.join("credentials.json"))
            .arg("-exit-with-stdin")
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Process(child))
    }

    async fn start_css(&self) -> Result<(), RealHubError> {
        let mut process = self.spawn("css")?;
        let http = crate::Client::plain(&self.css_url()).map_err(io::Error::other)?;
        self.wait("css", &mut process, || async { serves(http.get("api/v1/organizations").await) }).await?;
        *lock(&self.css) = Some(process);
        Ok(())
    }

    async fn start_ess(&self) -> Result<(), RealHubError> {
        let socket = self.ess_socket();
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let mut process = self.spawn("ess")?;
        let answers = || async {
            // Until it has made its certificate there is no client.
            match crate::Client::ess(self, "", "") {
                Ok(http) => serves(http.get("../organizations").await),
                Err(_) => false,
            }
        };
        self.wait("ess", &mut process, answers).await?;
        *lock(&self.ess) = Some(process);
        Ok(())
    }

    async fn wait<F: Future<Output = bool>>(
        &self,
        what: &'static str,
        process: &mut Process,
        answers: impl Fn() -> F,
    ) -> Result<(), RealHubError> {
        let deadline = Instant::now() + START;
        while !answers().await {
            let why = match process.0.try_wait()? {
                Some(status) => format!("it ended with {status}"),
                None if Instant::now() > deadline => format!("no answer within {START:?}"),
                None => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
            return Err(RealHubError::Start { what, why: format!("{why}\n{}", self.log(what)) });
        }
        Ok(())
    }

    async fn wait_for_registration(&self) -> Result<(), RealHubError> {
        let http = crate::Client::css(self, ADMIN, ADMIN_TOKEN).map_err(io::Error::other)?;
        let nodes = || async {
            let answer = http.get(&format!("../../destinations/{ORG}")).await.ok()?;
            (answer.status == 200).then_some(())
        };
        crate::eventually("the node is registered at the CSS", nodes)
            .await
            .map_err(|why| RealHubError::Start { what: "ess", why: format!("{why}\n{}", self.log("ess")) })
    }

    /// Returns the end of a process's log.
    fn log(&self, name: &str) -> String {
        let mut text = String::new();
        if let Ok(mut file) = File::open(self.dir.join(format!("{name}.log"))) {
            let _ = file.read_to_string(&mut text);
        }
        let start = text.char_indices().rev().nth(2000).map_or(0, |(at, _)| at);
        text[start..].to_owned()
    }
}

/// Whether a sync service takes requests: from when it has its port until it is ready it answers 503.
fn serves<E>(answer: Result<crate::Answer, E>) -> bool {
    answer.is_ok_and(|answer| answer.status != 503)
}

fn node_user() -> String {
    format!("{ORG}/{NODE_TYPE}/{NODE}")
}

impl Hub for RealHub {
    fn css_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.css_port)
    }

    fn ess_socket(&self) -> PathBuf {
        self.dir.join("essapi.sock")
    }

    fn certificate_pem(&self) -> io::Result<String> {
        fs::read_to_string(self.certificates().join("cert.pem"))
    }

    fn org(&self) -> String {
        ORG.to_owned()
    }

    fn node(&self) -> String {
        NODE.to_owned()
    }

    fn put_credential(&self, name: &str, credential: Credential) -> io::Result<()> {
        lock(&self.credentials).insert(name.to_owned(), credential);
        self.write_credentials()
    }

    async fn hub_down(&self) -> io::Result<()> {
        lock(&self.css).take();
        Ok(())
    }

    async fn hub_up(&self) -> io::Result<()> {
        let is_up = lock(&self.css).is_some();
        if is_up { Ok(()) } else { self.start_css().await.map_err(io::Error::other) }
    }

    async fn ess_down(&self) -> io::Result<()> {
        lock(&self.ess).take();
        Ok(())
    }

    async fn restart_ess(&self) -> io::Result<()> {
        self.ess_down().await?;
        self.start_ess().await.map_err(io::Error::other)
    }

    async fn replace_certificate(&self) -> io::Result<()> {
        self.ess_down().await?;
        fs::remove_dir_all(self.certificates())?;
        self.start_ess().await.map_err(io::Error::other)
    }
}
