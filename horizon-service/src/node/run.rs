//! Implements `run`, the daemon.
//!
//! The start order is: the locks, where an agent that finds one taken stands by; the state; the kernel and
//! the proof that it really refuses accesses; exemption of the agent's own tasks; the stored bundle. Only
//! then come threads, the network and everything else that may wait. Enforcement of an accepted bundle needs
//! none of the latter.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use armor_bpf::{BpfError, EXEMPT_DOMAIN, Enforcer};
use armor_hub_client::batch::Sealer;
use armor_hub_client::bundle::payload::OnAgentStop;
use armor_hub_client::keys::PublicKey;
use armor_hub_client::status::AgentReport;
use jiff::Timestamp;
use rustix::process::{PidfdFlags, pidfd_open};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::base::config::Settings;
use crate::base::lock::InstanceLock;
use crate::base::report::{Offline, Problem, Reporter};
use crate::delivery::node_key::node_key;
use crate::delivery::spool::{Spool, SpoolConfig};
use crate::delivery::uplink::{Uplink, UplinkConfig};
use crate::events::alerts::{self, Origin};
use crate::events::history::History;
use crate::events::pump::{AlertLog, EventPump};
use crate::hub::directory::Directory;
use crate::hub::horizon::{self, Horizon};
use crate::hub::{Hub, HubConfig};
use crate::kernel::attach::{AttachError, attach};
use crate::node::bundle::HOST_PROCESS;
use crate::node::containers::Containers;
use crate::node::intake::{BundleIntake, NodeEnforcement};
use crate::node::state::State;
use crate::node::status::{self, ContainerFigures, Figures, PolicyFigures, Status, StatusFile};
use crate::workloads::links::{LOOK, Watched};
use crate::workloads::node_selector::NodeNames;
use crate::workloads::runtime::{MAX_WORKLOADS, Runtime, RuntimeState, Workloads};

/// Interval at which the status file is brought up to date.
const STATUS: Duration = Duration::from_secs(1);
/// Interval between checks for containers that were entered before the runtime listed them.
const UNIDENTIFIED: Duration = Duration::from_secs(5);
/// Time that events from before the start wait for the containers' names. On a busy machine, a runtime took
/// 10 s for its first list.
const NAMING: Duration = Duration::from_secs(15);

type SharedEnforcer = Rc<RefCell<Enforcer>>;

/// Runs the agent until it gets a signal to stop.
///
/// # Errors
/// Fails if the agent could do nothing at all because the state directory cannot be used.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    let Some(_state) = InstanceLock::State(&settings.state_dir).wait_for(|_| {})? else { return Ok(()) };
    let last_offline = status::last_offline(&settings.state_dir);
    let mut file = StatusFile::new(&settings.state_dir);
    // An agent with another state directory may own the pinned tables.
    let _tables = match armor_bpf::require_bpffs(&settings.pin_dir) {
        Ok(()) => {
            let tables = InstanceLock::Tables(&settings.pin_dir).wait_for(|holder| {
                let reason = format!("{holder}: standing by to take over");
                first_status(&mut file, "degraded", &last_offline, Some(reason));
            });
            match tables {
                Ok(Some(tables)) => Some(tables),
                Ok(None) => return Ok(()),
                // Pinning will fail there too, and that failure is reported.
                Err(error) => {
                    tracing::warn!("{error}");
                    None
                }
            }
        }
        Err(error) => {
            tracing::warn!("{error}");
            None
        }
    };
    // Overwrite the previous run's status now, so that it is not read as ours.
    first_status(&mut file, "starting", &last_offline, None);
    let (state, stored, problems) = State::open(&settings.state_dir)?;
    let reporter = Rc::new(Reporter::new());
    if !problems.is_empty() {
        let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        tracing::error!("{text}; moved aside, going on with what reads");
        reporter.problem(Problem::State, Some(text));
    }
    let horizon = Horizon::from_env(&NodeNames::hostname());
    if let Err(error) = &horizon {
        tracing::error!("{error}; no bundles are taken from a hub and no alerts sent");
        reporter.problem(Problem::Horizon, Some(error.to_string()));
    }
    let horizon = horizon.ok();
    let node = horizon.as_ref().map(|horizon| horizon.node.clone()).unwrap_or_default();

    let enforcer = enforcer(settings, &reporter);
    let containers = Containers::restored(enforcer.as_ref(), state.containers());
    let mut site = NodeEnforcement {
        names: NodeNames::of(&node),
        node,
        process: HOST_PROCESS,
        trust_dir: settings.trust_dir(),
        state: Rc::new(RefCell::new(state)),
        history: History::new(&settings.state_dir),
        kernel: enforcer.clone(),
        reporter: Rc::clone(&reporter),
        live: None,
        containers,
        labelled: Rc::default(),
    };
    site.restore(stored.as_ref());
    drop(stored);

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    // Until the hub answers, the previous run's offline state stays.
    let last_offline = last_offline.filter(|_| horizon.as_ref().is_some_and(|horizon| horizon.hub.is_some()));
    site.reporter.change(|facts| facts.offline.clone_from(&last_offline));
    runtime.block_on(serve(settings, site, enforcer, horizon, file, last_offline))
}

/// Writes a status for `status` to show before the reporter exists.
fn first_status(file: &mut StatusFile<'_>, state: &str, offline: &Option<Offline>, reason: Option<String>) {
    let report = AgentReport {
        state: state.to_owned(),
        since: Some(Timestamp::now()),
        reasons: reason.into_iter().collect(),
        ..AgentReport::default()
    };
    if let Err(error) = file.write(Status { report, offline: offline.clone(), ..Status::default() }) {
        tracing::error!("{error}");
    }
}

/// Attaches to the kernel, proves that it refuses accesses, and exempts this process. Returns `None`, with
/// the reason reported, if nothing can be enforced.
fn enforcer(settings: &Settings, reporter: &Reporter) -> Option<SharedEnforcer> {
    let attached = attach(Some(&settings.pin_dir)).or_else(|error| {
        // Attaching without pins cannot help against any other error.
        let AttachError::Bpf(BpfError::Pin { .. } | BpfError::NoBpfFilesystem { .. } | BpfError::Map { .. }) =
            error
        else {
            return Err(error);
        };
        let enforcer = attach(None)?;
        tracing::error!("{error}: enforcement will end with the agent");
        reporter.problem(Problem::Pins, Some(format!("enforcement ends with the agent: {error}")));
        Ok(enforcer)
    });
    match attached {
        Ok(enforcer) => {
            let (took_over, generation) = (enforcer.took_over(), enforcer.generation());
            tracing::info!(took_over, generation, "programs attached");
            reporter.change(|facts| facts.proven = true);
            exempt_self(&enforcer, reporter);
            guard_self(&enforcer, settings, reporter);
            Some(Rc::new(RefCell::new(enforcer)))
        }
        Err(error) => {
            tracing::error!("NOTHING IS ENFORCED: {error}");
            reporter.problem(Problem::Kernel, Some(error.to_string()));
            None
        }
    }
}

/// Exempts this task. Exemption is per task and inherited, so this is called before any other thread exists.
fn exempt_self(enforcer: &Enforcer, reporter: &Reporter) {
    let exempt = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
        .map_err(|error| error.to_string())
        .and_then(|this| enforcer.label(this.as_fd(), EXEMPT_DOMAIN).map_err(|error| error.to_string()));
    if let Err(error) = exempt {
        let reason = format!("the agent is under the host's policies itself: {error}");
        tracing::error!("{reason}");
        reporter.problem(Problem::Exemption, Some(reason));
    }
}

/// Protects this process and its state, keys and program from containers.
fn guard_self(enforcer: &Enforcer, settings: &Settings, reporter: &Reporter) {
    let trust = settings.trust_dir();
    let program = std::env::current_exe().unwrap_or_default();
    if let Err(error) = enforcer.guard_agent(&[&settings.state_dir, &trust, &program]) {
        let reason = format!("the agent's files are not kept from containers: {error}");
        tracing::error!("{reason}");
        reporter.problem(Problem::Exemption, Some(reason));
    }
}

async fn serve(
    settings: &Settings,
    site: NodeEnforcement<SharedEnforcer>,
    enforcer: Option<SharedEnforcer>,
    horizon: Option<Horizon>,
    mut file: StatusFile<'_>,
    last_offline: Option<Offline>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let reporter = Rc::clone(&site.reporter);

    let spool =
        Spool::new(&settings.state_dir.join("spool"), SpoolConfig { max_bytes: settings.spool_max_bytes });
    let alert_log = AlertLog::new(spool, Rc::clone(&reporter));
    let origin = Origin {
        host_name: site.names.hostname.clone(),
        org: site.node.org.clone(),
        node: site.node.id.clone(),
        service: horizon.as_ref().map(service).unwrap_or_default(),
    };
    let containers = Runtime::new(&settings.runtime_socket, &settings.state_dir);
    let (mut workloads, runtime) = (containers.workloads(), containers.state());
    let workload_count = workloads.clone();
    let named = named(workloads.clone(), runtime.clone());
    let seen = Rc::new(RefCell::new(BTreeMap::new()));
    let mut pump = match &enforcer {
        Some(enforcer) => Some(EventPump::new(
            Rc::clone(enforcer),
            alert_log.clone(),
            site.history.clone(),
            origin.clone(),
            Rc::clone(&site.labelled),
            workloads.clone(),
            Rc::clone(&seen),
        )?),
        None => None,
    };

    let poll = Duration::from_secs(settings.poll_seconds);
    let (receipt_keys, pinned) = watch::channel(Vec::new());
    let hub = match horizon {
        Some(Horizon { hub: Some(config), node, .. }) => Some(Arc::new(Hub::new(config, &node)?)),
        _ => None,
    };
    let mut delivery = Delivery {
        alert_log: alert_log.clone(),
        reporter: Rc::clone(&reporter),
        state_dir: settings.state_dir.clone(),
        node: (origin.org.clone(), origin.node.clone()),
        config: UplinkConfig { poll, ..UplinkConfig::default() },
        receipt_keys: pinned,
        last_offline,
        spool_is_open: false,
        hub: hub.clone(),
        uplink: None,
    };
    delivery.begin();
    let site = Rc::new(RefCell::new(site));
    let directory = Directory::new(settings.bundle_dir.clone());
    let mut intake = BundleIntake::new(hub, directory, Rc::clone(&site), receipt_keys);

    tokio::spawn(containers.run());

    let status = |offline: Option<Offline>| {
        let facts = reporter.facts();
        let kernel =
            enforcer.as_ref().and_then(|enforcer| enforcer.borrow().counters().ok()).unwrap_or_default();
        Status {
            report: reporter.reports().borrow().clone(),
            offline: facts.offline.into_iter().chain(offline).min_by_key(|offline| offline.since),
            generation: enforcer.as_ref().map_or(0, |enforcer| enforcer.borrow().generation()),
            kernel: Figures {
                blocked: kernel.blocked,
                audited: kernel.audited,
                suppressed: kernel.suppressed,
                dropped: kernel.dropped,
                unidentified: kernel.unidentified,
                skipped: kernel.skipped,
            },
            policies: PolicyFigures::of(facts.in_force.as_ref(), &seen.borrow()),
            containers: ContainerFigures::new(
                &runtime.borrow(),
                workload_count.borrow().len(),
                facts.in_force.as_ref(),
            ),
            spool: alert_log.stats(),
            updated: None,
        }
    };
    let following = async {
        // Until the runtime answers, the previous run's list of containers is used.
        let mut look = tokio::time::interval(UNIDENTIFIED);
        loop {
            tokio::select! {
                changed = workloads.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let known = Arc::clone(&workloads.borrow_and_update());
                    site.borrow_mut().follow(&known);
                }
                _ = look.tick() => {
                    let answers = matches!(*runtime.borrow(), RuntimeState::Connected { .. });
                    site.borrow_mut().look_for_unidentified(answers);
                }
            }
        }
        std::future::pending().await
    };
    let following_links = async {
        loop {
            tokio::time::sleep(LOOK).await;
            let watched = site.borrow_mut().watched_links();
            let look = move || -> Vec<_> {
                let look = |watched: Watched| {
                    let moved = watched.moved();
                    (watched, moved)
                };
                watched.into_iter().map(look).filter(|(_, moved)| !moved.is_empty()).collect()
            };
            match tokio::task::spawn_blocking(look).await {
                Ok(moved) => site.borrow_mut().follow_links(&moved),
                Err(error) => tracing::error!("links are not looked at: {error}"),
            }
        }
    };
    let pumping = async {
        match &mut pump {
            Some(pump) => {
                // Events of unidentified containers from the time without an agent wait in the ring buffer
                // for the containers' names.
                named.await;
                pump.run().await;
            }
            None => std::future::pending().await,
        }
    };
    let showing = async {
        let mut told = None;
        loop {
            if let Some(expired) =
                reporter.facts().in_force.filter(|bundle| bundle.expires <= Timestamp::now())
                && told != Some((expired.bundle.clone(), expired.serial))
            {
                tracing::warn!(bundle = expired.bundle, "expired; goes on being enforced");
                alert_log.append(&[alerts::expired(
                    &origin,
                    &expired.bundle,
                    expired.serial,
                    expired.expires,
                )]);
                reporter.change(|_| {});
                told = Some((expired.bundle, expired.serial));
            }
            delivery.begin();
            reporter.problem(Problem::Runtime, lost(&runtime.borrow()));
            let unwritten = file.write(status(delivery.offline())).err().map(|error| error.to_string());
            if let Some(unwritten) = &unwritten
                && !reporter.facts().problems.contains_key(&Problem::Unwritten)
            {
                tracing::error!("{unwritten}");
            }
            reporter.problem(Problem::Unwritten, unwritten);
            tokio::time::sleep(STATUS).await;
        }
    };
    tokio::select! {
        () = pumping => {}
        () = showing => {}
        () = intake.run(poll) => {}
        () = following => {}
        () = following_links => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }

    tracing::info!("stopping");
    let offline = delivery.offline();
    if let Some((uplink, _)) = delivery.uplink {
        uplink.abort();
    }
    if let Some(pump) = &mut pump {
        pump.drain();
    }
    if reporter.facts().in_force.is_some_and(|bundle| bundle.on_agent_stop == OnAgentStop::Lift) {
        if armor_bpf::is_pinned(&settings.pin_dir) {
            armor_bpf::detach(&settings.pin_dir)?;
        }
        tracing::warn!("enforcement lifted, as the bundle says for a stop");
    }
    if let Err(error) = file.write(status(offline)) {
        tracing::error!("{error}");
    }
    Ok(())
}

/// `Delivery` opens the spool and starts the uplink to the hub. If their files cannot be created, everything
/// else goes on, and it tries again later.
struct Delivery {
    alert_log: AlertLog,
    reporter: Rc<Reporter>,
    state_dir: PathBuf,
    /// The organisation and the node's id.
    node: (String, String),
    config: UplinkConfig,
    receipt_keys: watch::Receiver<Vec<PublicKey>>,
    /// The offline state that the previous run left.
    last_offline: Option<Offline>,
    spool_is_open: bool,
    /// Set until the uplink runs; also `None` if there is no hub.
    hub: Option<Arc<Hub>>,
    uplink: Option<(JoinHandle<()>, watch::Receiver<Option<Offline>>)>,
}

impl Delivery {
    fn offline(&self) -> Option<Offline> {
        self.uplink.as_ref().and_then(|(_, offline)| offline.borrow().clone())
    }

    /// Starts whatever has not started yet; called periodically.
    fn begin(&mut self) {
        if !self.spool_is_open {
            self.spool_is_open = self.open_spool();
        }
        if let Some(hub) = self.hub.take() {
            self.start_uplink(hub);
        }
    }

    fn open_spool(&self) -> bool {
        let mut spool = self.alert_log.spool.lock().unwrap_or_else(PoisonError::into_inner);
        match spool.ensure_open() {
            Ok(()) => {
                if let Some(recovered) = spool.recovered() {
                    tracing::error!("{recovered}");
                }
                self.reporter.problem(Problem::Spool, None);
                true
            }
            Err(error) => {
                self.fails(Problem::Spool, &error, "alerts are only counted until it can be opened");
                false
            }
        }
    }

    fn start_uplink(&mut self, hub: Arc<Hub>) {
        let key = match node_key(&self.state_dir) {
            Ok(key) => key,
            Err(error) => {
                self.hub = Some(hub);
                return self.fails(Problem::NodeKey, &error, "nothing is sent until there is a key");
            }
        };
        self.reporter.problem(Problem::NodeKey, None);
        let (org, node) = self.node.clone();
        let uplink = Uplink::new(
            self.config.clone(),
            hub,
            Arc::clone(&self.alert_log.spool),
            Arc::new(Sealer { org, node, key }),
            self.receipt_keys.clone(),
            self.reporter.reports(),
        )
        .that_was(self.last_offline.take());
        let offline = uplink.offline();
        self.uplink = Some((tokio::spawn(uplink.run(Arc::clone(&self.alert_log.appended))), offline));
    }

    /// Reports a failure once, however often the attempt is repeated.
    fn fails(&self, problem: Problem, error: &dyn std::error::Error, meanwhile: &str) {
        if !self.reporter.facts().problems.contains_key(&problem) {
            let reason = format!("{error}; {meanwhile}");
            tracing::error!("{reason}");
            self.reporter.problem(problem, Some(reason));
        }
    }
}

/// Waits until the runtime has listed its containers or turns out to be absent, but not longer than `NAMING`.
async fn named(mut workloads: watch::Receiver<Arc<Workloads>>, mut runtime: watch::Receiver<RuntimeState>) {
    tokio::select! {
        _ = workloads.changed() => {}
        _ = runtime.wait_for(|state| matches!(state, RuntimeState::Absent | RuntimeState::Lost { .. })) => {}
        () = tokio::time::sleep(NAMING) => {}
    }
}

/// Returns the problem with the runtime, if any. Its absence is none: a node may be without containers.
fn lost(runtime: &RuntimeState) -> Option<String> {
    match runtime {
        RuntimeState::Lost { since, reason } => Some(format!(
            "the container runtime does not answer since {since:.0}: {reason}; containers that are made meanwhile are \
             under all policies for containers"
        )),
        RuntimeState::Connected { left_out, .. } if *left_out > 0 => {
            Some(format!("{left_out} containers are beyond the {MAX_WORKLOADS} that are looked after"))
        }
        _ => None,
    }
}

fn service(horizon: &Horizon) -> [String; 3] {
    let (id, version) = match &horizon.hub {
        Some(HubConfig::Ess(ess)) => horizon::service(&ess.auth_file),
        Some(HubConfig::Css(_)) | None => Default::default(),
    };
    [id, version, horizon.agreement.clone()]
}
