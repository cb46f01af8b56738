//! The containers of Docker, or of Podman through the API it shares with Docker.
//!
//! The runtime answers on a socket that whoever may write to is root by it; so it is believed. A node may have no runtime, or
//! one that comes, goes and comes again: containers that are known stay known meanwhile.
//!
//! The first thing that a container runs must find its policy. There are some 200 ms between the event of its creation and
//! that. An inspection may take longer: the runtime answers none while it starts the container. So the event itself, which
//! has name, image and labels, makes the workload, and the layers of its root are read where Docker keeps them; the inspection
//! is waited for [`DEBOUNCE`] and not longer.

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

use crate::root::Root;
use crate::services::Services;
use crate::workload::HorizonService;
use known::{Host, Known, Labels};
use layers::LayerStore;

/// How long a change waits for inspections that may add to it.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// The same for the first list: until it is published, what was known before counts.
const FIRST_DEBOUNCE: Duration = Duration::from_secs(5);
/// How often everything is listed again: Docker drops events for listeners that it finds slow, without a word.
const RESYNC: Duration = Duration::from_secs(60);
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// First and longest wait before the socket is tried again.
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_LIMIT: Duration = Duration::from_secs(5);
/// How far back events are asked for when a connection is made: the list that follows may be older than the first event that
/// comes by itself.
const LOOK_BACK: i64 = 2;

/// How it stands with the runtime.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RuntimeState {
    /// Not asked yet.
    #[default]
    Starting,
    /// There is no such socket: a node without containers, or a runtime that was not started yet.
    Absent,
    /// All its containers are known.
    Connected {
        /// What it is, with its version.
        engine: String,
        /// Containers that are not looked after, beyond [`MAX_WORKLOADS`].
        left_out: usize,
    },
    /// It does not answer; what was known of it is kept.
    Lost {
        /// Since when.
        since: Timestamp,
        /// Why.
        reason: String,
    },
}

/// Follows a runtime.
pub struct Runtime {
    socket: PathBuf,
    /// Whether it was the host's of the same path when it answered last.
    is_hosts: bool,
    known: Known,
    host: Surroundings,
    workloads: watch::Sender<Arc<Workloads>>,
    is_published: bool,
    state: watch::Sender<RuntimeState>,
}

/// What is read beside the runtime.
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

/// Why a connection ended.
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
    /// One that answers on `socket`. Which Horizon services its containers are is remembered in `state_dir`.
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

    /// Its containers, those that do not run among them; empty until they are known.
    pub fn workloads(&self) -> watch::Receiver<Arc<Workloads>> {
        self.workloads.subscribe()
    }

    /// How it stands.
    pub fn state(&self) -> watch::Receiver<RuntimeState> {
        self.state.subscribe()
    }

    /// Follows it until the future is dropped.
    pub async fn run(mut self) {
        let mut wait = BACKOFF;
        loop {
            let Err(error) = self.follow().await;
            self.known.disconnected();
            if self.note(error) {
                wait = BACKOFF;
            }
            sleep(wait).await;
            wait = (wait * 2).min(BACKOFF_LIMIT);
        }
    }

    /// Says once why the connection ended; whether there was one.
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

    /// One connection: events first, then the list, so that nothing falls between.
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

    /// The socket, or what the host has at its path if that alone answers: bound into a container, it stays the one that a
    /// runtime, started anew, has replaced. Only where it was the host's: at that path another runtime may be bound.
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
