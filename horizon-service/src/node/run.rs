//! Implements `run`, the daemon.
//!
//! The start order is: the locks, where an agent that finds one taken stands by; the state; the kernel and
//! the proof that it really refuses accesses; exemption of the agent's own tasks; the stored bundles. Only
//! then come threads, the network and everything else that may wait. Enforcement of an accepted bundle needs
//! none of the latter.

use std::any::Any;
use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use armor_alerts::status::AgentReport;
use armor_bpf::{BpfError, EXEMPT_DOMAIN, Enforcer};
use armor_bundle::keys::PublicKey;
use jiff::Timestamp;
use rustix::process::{PidfdFlags, pidfd_open};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::base::config::Settings;
use crate::base::lock::InstanceLock;
use crate::base::report::{Offline, Problem, Reporter};
use crate::delivery::alert_log::AlertLog;
use crate::delivery::spool::{Spool, SpoolConfig};
use crate::delivery::start::Delivery;
use crate::delivery::uplink::UplinkConfig;
use crate::devices::guard::DeviceGuard;
use crate::devices::sysfs::UsbTree;
use crate::events::alerts::Origin;
use crate::events::history::History;
use crate::events::pump::EventPump;
use crate::hub::directory::Directory;
use crate::hub::horizon::{self, Horizon};
use crate::hub::{Hub, HubConfig};
use crate::kernel::attach::{AttachError, attach};
use crate::node::bundles::{HOST_PROCESS, Host};
use crate::node::containers::Containers;
use crate::node::device_task::{self, DeviceTask};
use crate::node::enforcement::NodeEnforcement;
use crate::node::intake::BundleIntake;
use crate::node::keys::PinnedKeys;
use crate::node::owner::{NodeHandle, Owner, Stopped};
use crate::node::state::State;
use crate::node::status::{self, Status, StatusFile};
use crate::node::status_task::StatusTask;
use crate::workloads::links::{LOOK, Watched};
use crate::workloads::node_selector::NodeNames;
use crate::workloads::runtime::{Runtime, RuntimeState, Workloads};

/// Interval between checks for containers that were entered before the runtime listed them.
const UNIDENTIFIED: Duration = Duration::from_secs(5);
/// Time that events from before the start wait for the containers' names. On a busy machine, a runtime took
/// 20 s for its first list.
const NAMING: Duration = Duration::from_secs(30);

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
    let reporter = Arc::new(Reporter::new());
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

    let kernel = enforcer(settings, &reporter);
    let host = Host { names: NodeNames::of(&node), identity: node, process: HOST_PROCESS };
    let (receipt_keys, pinned) = watch::channel(Vec::new());
    let mut enforcement = NodeEnforcement {
        keys: PinnedKeys::new(settings.trust_dir(), receipt_keys, Arc::clone(&reporter)),
        containers: Containers::restored(kernel.as_ref(), state.containers()),
        state,
        history: History::new(&settings.state_dir),
        kernel,
        reporter: Arc::clone(&reporter),
        left_out: BTreeMap::new(),
        live: None,
        devices: watch::Sender::default(),
        labelled: false,
    };
    enforcement.restore(stored, &host);

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    // Until the hub answers, the previous run's offline state stays.
    let last_offline = last_offline.filter(|_| horizon.as_ref().is_some_and(|horizon| horizon.hub.is_some()));
    reporter.change(|facts| facts.offline.clone_from(&last_offline));
    let start = Start { settings, host, enforcement, pinned, horizon, file, last_offline };
    runtime.block_on(serve(start))
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
fn enforcer(settings: &Settings, reporter: &Reporter) -> Option<Enforcer> {
    // What the last agent left in force may refuse what it takes to attach.
    if let Err(error) = armor_bpf::exempt_from_pinned(&settings.pin_dir) {
        tracing::warn!("the agent begins under the host's policies itself: {error}");
    }
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
            Some(enforcer)
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

/// `Start` is what the one thread of the start hands to the tasks.
struct Start<'a> {
    settings: &'a Settings,
    host: Host,
    enforcement: NodeEnforcement<Enforcer>,
    /// The pinned keys of collectors.
    pinned: watch::Receiver<Vec<PublicKey>>,
    horizon: Option<Horizon>,
    file: StatusFile<'a>,
    last_offline: Option<Offline>,
}

/// Runs all tasks until a signal to stop. The owner of enforcement and the status stay on this thread, and any
/// other task may run on the second.
async fn serve(start: Start<'_>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let Start { settings, host, mut enforcement, pinned, horizon, file, last_offline } = start;
    let reporter = Arc::clone(&enforcement.reporter);
    let spool = SpoolConfig { max_bytes: settings.spool_max_bytes };
    let spool = Spool::new(&settings.state_dir.join("spool"), spool);
    let alert_log = AlertLog::new(spool, Arc::clone(&reporter));
    let origin = origin(&host, horizon.as_ref());
    let containers = Runtime::new(&settings.runtime_socket, &settings.state_dir);
    let (workloads, runtime) = (containers.workloads(), containers.state());
    let pump = match &enforcement.kernel {
        Some(enforcer) => Some(EventPump::new(
            enforcer.events()?,
            enforcer.took_over(),
            alert_log.clone(),
            Arc::clone(&reporter),
            enforcement.history.clone(),
            origin.clone(),
            workloads.clone(),
        )?),
        None => None,
    };
    let hub = match horizon {
        Some(Horizon { hub: Some(config), node, .. }) => Some(Arc::new(Hub::new(config, &node)?)),
        _ => None,
    };
    // A receipt that comes before the collectors' keys are known would be refused for good.
    enforcement.reload_keys();
    let poll = Duration::from_secs(settings.poll_seconds);
    let config = UplinkConfig { poll, ..UplinkConfig::default() };
    let mut delivery = Delivery {
        alert_log,
        reporter: Arc::clone(&reporter),
        state_dir: settings.state_dir.clone(),
        node: (origin.org.clone(), origin.node.clone()),
        config,
        receipt_keys: pinned,
        last_offline,
        spool_is_open: false,
        hub: hub.clone(),
        uplink: None,
    };
    delivery.begin();

    let guard = DeviceGuard::new(UsbTree::of_host(), &settings.state_dir, origin.clone());
    let devices = DeviceTask::new(guard, enforcement.devices.subscribe(), Arc::clone(&reporter));
    let guard = devices.guard();
    let (mut owner, node) = Owner::new(enforcement, pump);
    let directory = Directory::new(settings.bundle_dir.clone());
    let intake = BundleIntake::new(hub, directory, host, node.clone(), Arc::clone(&reporter));
    let mut status = StatusTask {
        file,
        reporter: Arc::clone(&reporter),
        delivery,
        origin,
        snapshots: owner.snapshots(),
        workloads: workloads.clone(),
        runtime: runtime.clone(),
        expired: BTreeMap::new(),
    };
    let named = named(workloads.clone(), runtime.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(async {
        containers.run().await;
        Ok(())
    });
    tasks.spawn(intake.run(poll));
    tasks.spawn(follow_containers(node.clone(), workloads, runtime));
    tasks.spawn(devices.run(node.clone()));
    tasks.spawn(follow_links(node));
    tokio::select! {
        () = owner.run(named) => {}
        () = status.run() => {}
        panic = panic_in(&mut tasks) => std::panic::resume_unwind(panic),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }

    tracing::info!("stopping");
    tasks.shutdown().await;
    stop(settings, &mut owner, &guard, &mut status)
}

/// Waits until a task panics, and returns what it panicked with.
async fn panic_in(tasks: &mut JoinSet<Result<(), Stopped>>) -> Box<dyn Any + Send> {
    loop {
        match tasks.join_next().await {
            Some(Err(error)) => {
                if let Ok(panic) = error.try_into_panic() {
                    return panic;
                }
            }
            Some(Ok(_)) => {}
            None => return std::future::pending().await,
        }
    }
}

/// Ends what is under way in good order: the events that wait go to the spool, enforcement ends if the bundles
/// say so, and the status is written a last time.
fn stop(
    settings: &Settings,
    owner: &mut Owner<Enforcer>,
    guard: &Mutex<DeviceGuard>,
    status: &mut StatusTask<'_>,
) -> anyhow::Result<()> {
    status.delivery.end();
    owner.drain();
    if owner.is_lifted_on_stop() {
        if armor_bpf::is_pinned(&settings.pin_dir) {
            armor_bpf::detach(&settings.pin_dir)?;
        }
        if let Err(error) = device_task::locked(guard).lift() {
            tracing::error!("USB devices are still kept out: {error}");
        }
        tracing::warn!("enforcement lifted, as the bundles say for a stop");
    }
    if let Err(error) = status.write(&owner.snapshot()) {
        tracing::error!("{error}");
    }
    Ok(())
}

/// Brings the runtime's containers under their policies, and looks for those that it has not listed.
async fn follow_containers(
    node: NodeHandle,
    mut workloads: watch::Receiver<Arc<Workloads>>,
    runtime: watch::Receiver<RuntimeState>,
) -> Result<(), Stopped> {
    // Until the runtime answers, the previous run's list of containers is used.
    let mut look = tokio::time::interval(UNIDENTIFIED);
    loop {
        tokio::select! {
            changed = workloads.changed() => {
                if changed.is_err() {
                    return std::future::pending().await;
                }
                let known = Arc::clone(&workloads.borrow_and_update());
                node.follow(known).await?;
            }
            _ = look.tick() => {
                let answers = matches!(*runtime.borrow(), RuntimeState::Connected { .. });
                node.find_unidentified(answers).await?;
            }
        }
    }
}

/// Follows symlinks in rules' paths that are switched.
async fn follow_links(node: NodeHandle) -> Result<(), Stopped> {
    loop {
        tokio::time::sleep(LOOK).await;
        let watched = node.watched_links().await?;
        let look = move || -> Vec<_> {
            let look = |watched: Watched| {
                let moved = watched.moved();
                (watched, moved)
            };
            watched.into_iter().map(look).filter(|(_, moved)| !moved.is_empty()).collect()
        };
        match tokio::task::spawn_blocking(look).await {
            Ok(moved) if moved.is_empty() => {}
            Ok(moved) => node.follow_links(moved).await?,
            Err(error) => tracing::error!("links are not looked at: {error}"),
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

fn origin(host: &Host, horizon: Option<&Horizon>) -> Origin {
    Origin {
        host_name: host.names.hostname.clone(),
        org: host.identity.org.clone(),
        node: host.identity.id.clone(),
        service: horizon.map(service).unwrap_or_default(),
    }
}

fn service(horizon: &Horizon) -> [String; 3] {
    let (id, version) = match &horizon.hub {
        Some(HubConfig::Ess(ess)) => horizon::service(&ess.auth_file),
        Some(HubConfig::Css(_)) | None => Default::default(),
    };
    [id, version, horizon.agreement.clone()]
}
