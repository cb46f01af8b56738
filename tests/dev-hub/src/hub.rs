//! This module runs the hub as a whole and defines the trait that it shares with the real one.

use crate::api::{self, Side};
use crate::auth::{Credential, Credentials, Remembered, Role};
use crate::link;
use crate::policy::Properties;
use crate::server::Server;
use crate::state::{State, lock};
use crate::store::Store;
use crate::tls;
use axum::Router;
use axum::extract::Request;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// A `Hub` is a CSS and an ESS for tests and demos, of whichever implementation.
pub trait Hub: Send + Sync {
    /// Returns the base URL of the CSS, without a slash at the end. It stays the same when the hub goes down
    /// and up.
    fn css_url(&self) -> String;
    /// Returns the unix socket of the ESS, which speaks TLS.
    fn ess_socket(&self) -> PathBuf;
    /// Returns the ESS's certificate.
    ///
    /// # Errors
    /// Fails if it cannot be read.
    fn certificate_pem(&self) -> io::Result<String>;
    /// Returns the org of the node and of everybody else.
    fn org(&self) -> String;
    /// Returns the node id, without the org.
    fn node(&self) -> String;
    /// Adds a caller by the user name of HTTP Basic, or replaces it.
    ///
    /// # Errors
    /// Fails if it cannot be stored.
    fn put_credential(&self, name: &str, credential: Credential) -> io::Result<()>;
    /// Takes the CSS down: it refuses connections, from the ESS too.
    fn hub_down(&self) -> impl Future<Output = io::Result<()>> + Send;
    /// Brings the CSS back at the same URL with everything that it had.
    fn hub_up(&self) -> impl Future<Output = io::Result<()>> + Send;
    /// Takes the ESS down at once; its socket file stays and refuses connections, as while the agent is down.
    fn ess_down(&self) -> impl Future<Output = io::Result<()>> + Send;
    /// Ends the ESS at once, if it runs, and starts it with its store, but without the objects that waited to
    /// be sent.
    fn restart_ess(&self) -> impl Future<Output = io::Result<()>> + Send;
    /// Gives the ESS another key and certificate and restarts it, as an agent does whose files were removed.
    fn replace_certificate(&self) -> impl Future<Output = io::Result<()>> + Send;

    /// Adds the service `org/name` and returns its user name, which is `id` in auth.json.
    ///
    /// # Errors
    /// Fails if it cannot be stored.
    fn add_service(&self, name: &str, version: &str, token: &str) -> io::Result<String> {
        let org = self.org();
        let id = format!("{org}/{name}");
        let identity = format!("{org}/{version}/{name}");
        self.put_credential(&id, Credential { token: token.to_owned(), role: Role::Service, org, identity })?;
        Ok(id)
    }

    /// Adds a user of the org and returns its user name, `org/name`.
    ///
    /// # Errors
    /// Fails if it cannot be stored.
    fn add_user(&self, name: &str, password: &str, role: Role) -> io::Result<String> {
        let org = self.org();
        let id = format!("{org}/{name}");
        self.put_credential(
            &id,
            Credential { token: password.to_owned(), role, org, identity: name.to_owned() },
        )?;
        Ok(id)
    }

    /// Writes `auth.json` and `cert.pem` into `dir` as anax mounts them for the service `id`.
    ///
    /// # Errors
    /// Fails if they cannot be written.
    fn write_horizon_files(&self, dir: &Path, id: &str, token: &str, version: &str) -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        let auth = serde_json::json!({"id": id, "token": token, "version": version});
        std::fs::write(dir.join("auth.json"), auth.to_string())?;
        std::fs::write(dir.join("cert.pem"), self.certificate_pem()?)
    }
}

/// A `DevHubConfig` sets up a [`DevHub`].
#[derive(Clone, Debug)]
pub struct DevHubConfig {
    /// Directory for the ESS's socket `essapi.sock`, created if it is missing.
    pub dir: PathBuf,
    /// Loopback port of the CSS, or 0 for any free one.
    pub css_port: u16,
    /// Org of the node, the services and the users.
    pub org: String,
    /// Node id.
    pub node: String,
    /// The node's properties, against which constraints of objects are evaluated.
    pub properties: Properties,
    /// True if destination policies are evaluated, as an agbot does. Otherwise destinations must be set by
    /// PUT.
    pub agbot: bool,
    /// Longest time between two polls of the ESS. Nearly everything is faster, as a change wakes the poll.
    pub poll: Duration,
}

impl DevHubConfig {
    /// Returns a configuration with org `myorg`, node `node1` with `purpose = security` and privileged
    /// services allowed, an agbot, and a poll every 50 ms.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let properties = [
            ("purpose".to_owned(), "security".into()),
            ("openhorizon.allowPrivileged".to_owned(), true.into()),
        ];
        Self {
            dir: dir.into(),
            css_port: 0,
            org: "myorg".to_owned(),
            node: "node1".to_owned(),
            properties: properties.into(),
            agbot: true,
            poll: Duration::from_millis(50),
        }
    }
}

/// A `StartError` says why the hub does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The ESS's key or certificate cannot be made.
    #[error("the ESS's certificate: {0}")]
    Certificate(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The directory, the socket or a port cannot be used.
    #[error("{what}: {source}")]
    Io {
        /// Path or address.
        what: String,
        /// The system's error.
        source: io::Error,
    },
}

struct Ess {
    /// Sender and poll, kept to be dropped with the server.
    _link: JoinSet<()>,
    server: Server,
}

/// A `DevHub` is a CSS and an ESS in this process. Dropping it ends both.
pub struct DevHub {
    state: Arc<State>,
    socket: PathBuf,
    css_port: u16,
    /// Bound but never listening, so that nobody else gets the port while the hub is down.
    _reserved: TcpSocket,
    identity: Mutex<tls::Identity>,
    css_server: tokio::sync::Mutex<Option<Server>>,
    ess: tokio::sync::Mutex<Option<Ess>>,
}

impl DevHub {
    /// Starts both ends. Nobody has credentials yet.
    ///
    /// # Errors
    /// Fails if the directory, the socket, a port or the certificate cannot be made.
    pub async fn start(config: DevHubConfig) -> Result<Self, StartError> {
        let at = |what: String| move |source| StartError::Io { what, source };
        std::fs::create_dir_all(&config.dir).map_err(at(config.dir.display().to_string()))?;
        let state = Arc::new(State {
            org: config.org,
            node: config.node,
            properties: config.properties,
            agbot: config.agbot,
            poll: config.poll,
            credentials: Mutex::new(Credentials::new()),
            remembered: Default::default(),
            css: Mutex::new(Store::default()),
            ess: Mutex::new(Store::default()),
            send_queue: Mutex::new(None),
            in_flight: Mutex::new(None),
            held: Mutex::default(),
            hub_is_up: watch::Sender::new(false),
            registered: AtomicBool::new(false),
            wake_link: Notify::new(),
        });
        let address = format!("127.0.0.1:{}", config.css_port);
        let (reserved, css_port) = reserve(config.css_port).map_err(at(address.clone()))?;
        let hub = Self {
            state,
            socket: config.dir.join("essapi.sock"),
            css_port,
            _reserved: reserved,
            identity: Mutex::new(tls::identity().map_err(StartError::Certificate)?),
            css_server: tokio::sync::Mutex::new(None),
            ess: tokio::sync::Mutex::new(None),
        };
        let listener = TcpListener::bind(("127.0.0.1", css_port)).await.map_err(at(address))?;
        hub.serve_css(listener).await;
        hub.serve_ess().await.map_err(at(hub.socket.display().to_string()))?;
        Ok(hub)
    }

    async fn serve_css(&self, listener: TcpListener) {
        *self.css_server.lock().await = Some(Server::plain(listener, router(&self.state, Side::Css)));
        self.state.hub_is_up.send_replace(true);
    }

    async fn serve_ess(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&self.socket)?;
        let config = lock(&self.identity).config.clone();
        let server = Server::tls(listener, config, router(&self.state, Side::Ess));
        *self.ess.lock().await = Some(Ess { _link: link::start(&self.state), server });
        Ok(())
    }

    /// Returns whether the CSS answers.
    pub fn is_hub_up(&self) -> bool {
        *self.state.hub_is_up.borrow()
    }
}

/// Listens on the port of a closed listener. Retries while a process that another thread started still has
/// the closed one, until its exec, so that the port is taken.
async fn listen_again(port: u16) -> io::Result<TcpListener> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match TcpListener::bind(("127.0.0.1", port)).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            listener => return listener,
        }
    }
}

/// Holds a loopback port, any free one for 0, to which listeners may still be bound.
///
/// # Errors
/// Fails if somebody listens there.
pub fn reserve(port: u16) -> io::Result<(TcpSocket, u16)> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(([127, 0, 0, 1], port).into())?;
    let port = socket.local_addr()?.port();
    Ok((socket, port))
}

fn router(state: &Arc<State>, side: Side) -> Router {
    let state = state.clone();
    Router::new().fallback(move |request: Request| api::handle(state.clone(), side, request))
}

impl Hub for DevHub {
    fn css_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.css_port)
    }

    fn ess_socket(&self) -> PathBuf {
        self.socket.clone()
    }

    fn certificate_pem(&self) -> io::Result<String> {
        Ok(lock(&self.identity).certificate_pem.clone())
    }

    fn org(&self) -> String {
        self.state.org.clone()
    }

    fn node(&self) -> String {
        self.state.node.clone()
    }

    fn put_credential(&self, name: &str, credential: Credential) -> io::Result<()> {
        lock(&self.state.credentials).insert(name.to_owned(), credential);
        Ok(())
    }

    async fn hub_down(&self) -> io::Result<()> {
        self.state.hub_is_up.send_replace(false);
        if let Some(server) = self.css_server.lock().await.take() {
            server.stop().await;
        }
        *self.state.remembered(Side::Css) = Remembered::default();
        Ok(())
    }

    async fn hub_up(&self) -> io::Result<()> {
        if !self.is_hub_up() {
            self.serve_css(listen_again(self.css_port).await?).await;
            self.state.wake_link.notify_one();
        }
        Ok(())
    }

    async fn ess_down(&self) -> io::Result<()> {
        if let Some(ess) = self.ess.lock().await.take() {
            ess.server.stop().await;
        }
        *self.state.remembered(Side::Ess) = Remembered::default();
        lock(&self.state.held).clear();
        *lock(&self.state.send_queue) = None;
        Ok(())
    }

    async fn restart_ess(&self) -> io::Result<()> {
        self.ess_down().await?;
        self.serve_ess().await
    }

    async fn replace_certificate(&self) -> io::Result<()> {
        *lock(&self.identity) = tls::identity().map_err(io::Error::other)?;
        self.restart_ess().await
    }
}
