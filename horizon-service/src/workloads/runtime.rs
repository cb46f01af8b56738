//! Follows the containers of Docker, or of Podman through the API that it shares with Docker.
//!
//! The runtime is trusted: write access to its socket makes a process root anyway. A node may have no
//! runtime, or one that comes and goes; known containers stay known meanwhile.
//!
//! A container's first program must find its policy. It runs some 200 ms after the event of the container's
//! creation, and an inspection may take longer, because the runtime answers none while it starts the
//! container. So the workload is made from the event itself, which has name, image and labels, and the layers
//! of its root are read from Docker's files. An inspection is waited for only [`DEBOUNCE`] long.

mod known;
mod layers;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use armor_policy::escaped_path;
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, ContainerSummary, EventMessage};
use bollard::query_parameters::{EventsOptions, InspectContainerOptions, ListContainersOptions};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

pub use known::{MAX_WORKLOADS, Workloads};

use crate::base::backoff::Backoff;
use crate::workloads::root::Root;
use crate::workloads::services::Services;
use crate::workloads::workload::HorizonService;
use known::{Host, Known, Labels};
use layers::LayerStore;

/// Time that a change waits for inspections that may add to it.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Time that the first list waits in the same way; until it is published, the previous run's list is used.
const FIRST_DEBOUNCE: Duration = Duration::from_secs(5);
/// Interval at which everything is listed again, because Docker silently drops events for slow listeners.
const RESYNC: Duration = Duration::from_secs(60);
/// Maximum wait for an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// First wait before a new attempt to connect to the socket.
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_LIMIT: Duration = Duration::from_secs(5);
/// Seconds before the connection from which events are requested, because the first list may be older than
/// the first new event.
const LOOK_BACK: i64 = 2;

/// A `RuntimeState` is the state of the connection to the runtime.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RuntimeState {
    /// Not connected yet.
    #[default]
    Starting,
    /// There is no socket: the node has no containers, or the runtime has not started yet.
    Absent,
    /// Connected, and all containers are known.
    Connected {
        /// The runtime's name and version.
        engine: String,
        /// Number of containers beyond [`MAX_WORKLOADS`], which are not followed.
        left_out: usize,
    },
    /// The runtime does not answer; its known containers are kept.
    Lost {
        /// Time of the loss.
        since: Timestamp,
        /// The reason for the loss.
        reason: String,
    },
}

/// A `Runtime` follows a container runtime.
pub struct Runtime {
    socket: PathBuf,
    /// True if the socket was the host's of the same path when it last answered.
    is_hosts: bool,
    known: Known,
    host: Surroundings,
    workloads: watch::Sender<Arc<Workloads>>,
    is_published: bool,
    state: watch::Sender<RuntimeState>,
}

/// `Surroundings` are the sources of information beside the runtime.
struct Surroundings {
    services: Services,
    layers: LayerStore,
}

impl Host for Surroundings {
    fn service(&mut self, labels: &Labels, credentials: Option<&Path>) -> Option<HorizonService> {
        self.services.of(labels, credentials)
    }

    fn layers(&mut self, id: &str) -> Vec<PathBuf> {
        self.layers.of(id).unwrap_or_default()
    }
}

/// A `Lost` is the reason why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("there is no {}", escaped_path(.0))]
    Absent(PathBuf),
    #[error(transparent)]
    Api(#[from] Error),
    #[error("no answer within {} s", ANSWER.as_secs())]
    Silent,
    #[error("it closed the connection")]
    Closed,
}

type Inspection = (String, Result<ContainerInspectResponse, Error>);

impl Runtime {
    /// Creates a follower of the runtime at `socket`. The Horizon services of its containers are stored in
    /// `state_dir`.
    pub fn new(socket: &Path, state_dir: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            is_hosts: false,
            known: Known::default(),
            host: Surroundings { services: Services::open(state_dir), layers: LayerStore::default() },
            workloads: watch::Sender::default(),
            is_published: false,
            state: watch::Sender::default(),
        }
    }

    /// Returns the runtime's containers, running or not; empty until they are known.
    pub fn workloads(&self) -> watch::Receiver<Arc<Workloads>> {
        self.workloads.subscribe()
    }

    /// Returns the state of the connection.
    pub fn state(&self) -> watch::Receiver<RuntimeState> {
        self.state.subscribe()
    }

    /// Follows the runtime until the future is dropped.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(BACKOFF, BACKOFF_LIMIT);
        loop {
            let Err(error) = self.follow().await;
            self.known.disconnected();
            if self.note(error) {
                backoff.reset();
            }
            sleep(backoff.wait()).await;
        }
    }

    /// Reports once why the connection ended, and returns whether there was one.
    fn note(&self, error: Lost) -> bool {
        let before = self.state.borrow().clone();
        let state = match (&before, &error) {
            (RuntimeState::Starting | RuntimeState::Absent, Lost::Absent(socket)) => {
                if before == RuntimeState::Starting {
                    tracing::info!("{} is not there: host policies only, until it is", escaped_path(socket));
                }
                RuntimeState::Absent
            }
            (RuntimeState::Lost { .. }, _) => before.clone(),
            _ => {
                let reason = error.to_string();
                tracing::warn!(reason, "{}: the container runtime is lost", escaped_path(&self.socket));
                RuntimeState::Lost { since: Timestamp::now(), reason }
            }
        };
        self.state.send_replace(state);
        matches!(before, RuntimeState::Connected { .. })
    }

    /// Follows the runtime for one connection. It subscribes to events before it lists the containers, so
    /// that it misses none.
    async fn follow(&mut self) -> Result<std::convert::Infallible, Lost> {
        let socket = self.live_socket().await;
        if !socket.try_exists().unwrap_or(true) {
            return Err(Lost::Absent(self.socket.clone()));
        }
        let docker = Docker::connect_with_unix(
            &socket.to_string_lossy(),
            ANSWER.as_secs(),
            bollard::API_DEFAULT_VERSION,
        )?;
        let docker = answer(docker.negotiate_version()).await?;
        let version = answer(docker.version()).await?;
        let engine = version.components.unwrap_or_default().into_iter().next().map_or_else(
            || version.version.unwrap_or_default(),
            |engine| format!("{} {}", engine.name, engine.version),
        );
        let info = answer(docker.info()).await?;
        self.host.layers = LayerStore::new(info.docker_root_dir.as_deref(), info.driver.as_deref());

        let since = Timestamp::now().as_second() - LOOK_BACK;
        let options = EventsOptions {
            since: Some(since.to_string()),
            filters: Some([("type".to_owned(), vec!["container".to_owned()])].into()),
            ..EventsOptions::default()
        };
        let mut events = std::pin::pin!(docker.events(Some(options)));
        let mut inspections: JoinSet<Inspection> = JoinSet::new();
        let mut lists: JoinSet<Result<Vec<ContainerSummary>, Lost>> = JoinSet::new();
        let mut is_first = true;
        let mut resync = Instant::now();
        let mut publish = None;
        loop {
            while let Some(id) = self.known.next_inspection() {
                let docker = docker.clone();
                inspections.spawn(async move {
                    let found = docker.inspect_container(&id, None::<InspectContainerOptions>).await;
                    (id, found)
                });
            }
            if self.known.has_changed() {
                let debounce = if self.is_published { DEBOUNCE } else { FIRST_DEBOUNCE };
                let due = *publish.get_or_insert(Instant::now() + debounce);
                let is_complete = self.known.is_complete() && !is_first;
                if is_complete || due <= Instant::now() {
                    publish = None;
                    self.publish();
                }
            }
            let debounce = publish.unwrap_or_else(|| Instant::now() + RESYNC);
            tokio::select! {
                biased;
                event = events.next() => self.take(event.ok_or(Lost::Closed)?)?,
                Some(Ok((id, found))) = inspections.join_next() => self.inspected(&id, found),
                Some(Ok(list)) = lists.join_next() => {
                    let list = list?;
                    self.known.listed(Some(list), is_first, &mut self.host);
                    is_first = false;
                    if let Err(error) = self.host.services.keep(self.known.services()) {
                        tracing::warn!("{error}: Horizon services are not remembered");
                    }
                    self.connected(&engine);
                }
                () = sleep_until(resync), if lists.is_empty() => {
                    resync = Instant::now() + RESYNC;
                    self.known.listing();
                    let docker = docker.clone();
                    lists.spawn(async move {
                        let options = ListContainersOptions { all: true, ..ListContainersOptions::default() };
                        answer(docker.list_containers(Some(options))).await
                    });
                }
                () = sleep_until(debounce), if publish.is_some() => {}
            }
        }
    }

    /// Returns the path of the socket, or the host's socket of the same path if only that answers. Bound into
    /// a container, the socket stays the old one after a restart of the runtime. This applies only if it was
    /// the host's, since another runtime may be bound at that path.
    async fn live_socket(&mut self) -> PathBuf {
        let of_host = {
            let host = Root::of_host();
            host.find(&host.resolve(&self.socket.to_string_lossy(), true))
        };
        match (UnixStream::connect(&self.socket).await, of_host) {
            (Ok(_), Some(of_host)) => self.is_hosts = is_same_file(&self.socket, &of_host),
            (Err(error), Some(of_host))
                if self.is_hosts
                    && error.kind() == ErrorKind::ConnectionRefused
                    && UnixStream::connect(&of_host).await.is_ok() =>
            {
                return of_host;
            }
            _ => {}
        }
        self.socket.clone()
    }

    fn take(&mut self, event: Result<EventMessage, Error>) -> Result<(), Lost> {
        self.known.event(event?, &mut self.host);
        Ok(())
    }

    fn inspected(&mut self, id: &str, found: Result<ContainerInspectResponse, Error>) {
        let found = match found {
            Ok(found) => Some(found),
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => None,
            Err(error) => {
                tracing::warn!(container = id, %error, "cannot be inspected");
                return self.known.not_inspected(id);
            }
        };
        self.known.inspected(id, found, &mut self.host);
    }

    fn publish(&mut self) {
        if let Some(workloads) = self.known.changes() {
            self.is_published = true;
            self.workloads.send_replace(Arc::new(workloads));
        }
        if let Err(error) = self.host.services.save() {
            tracing::warn!("{error}: Horizon services are not remembered");
        }
    }

    fn connected(&self, engine: &str) {
        let left_out = self.known.left_out();
        let state = RuntimeState::Connected { engine: engine.to_owned(), left_out };
        self.state.send_if_modified(|old| {
            let is_new = *old != state;
            if is_new {
                tracing::info!(engine, left_out, "{}: containers are followed", escaped_path(&self.socket));
                *old = state;
            }
            is_new
        });
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let number = |path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    number(one).is_some_and(|found| Some(found) == number(other))
}

async fn answer<T>(asked: impl Future<Output = Result<T, Error>>) -> Result<T, Lost> {
    timeout(ANSWER, asked).await.map_err(|_| Lost::Silent)?.map_err(Lost::Api)
}
