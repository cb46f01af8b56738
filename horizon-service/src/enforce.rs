//! The kernel side made ready, and from an accepted bundle to a live generation in it.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;

use armor_bpf::{BpfError, Enforcer, Generation, HOST_DOMAIN, Home, LinkedFile, ProofError};
use armor_hub_client::bundle::VerifiedBundle;
use armor_hub_client::bundle::payload::{AlreadyHeld, OnAgentStop, Posture as BundlePosture};
use armor_policy::tables::Domain;
use armor_policy::{CompileError, Posture};
use jiff::Timestamp;

use crate::alerts::RuleTable;
use crate::domains::{self, NodeNames};
use crate::probe;
use crate::report::InForce;
use crate::root::Root;
use crate::state::{State, StateError};

/// Alerts a second and rule where the bundle names no other limit.
const ALERTS_PER_SECOND: u32 = 100;
/// The process whose root is the host's.
pub const HOST_PROCESS: &str = "1";

/// Why nothing can be enforced.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// What the kernel says of itself is enough to know; nothing was loaded.
    #[error("this kernel cannot enforce: {0}")]
    Missing(String),
    /// The kernel does not take the programs, or their pins.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// An access that must be denied was not, or could not be tried.
    #[error("no denial was seen: {0}")]
    Proof(#[from] ProofError),
}

/// Programs that were seen to deny, by this process or by the one that made the generation live which is taken over: none
/// does before it saw a denial. Only for the main thread, while there is no other.
///
/// # Errors
/// [`AttachError`]; what was loaded is taken out again.
pub fn attach(pins: Option<&Path>) -> Result<Enforcer, AttachError> {
    if let Some(reason) = probe::without_bpf(&armor_bpf::active_modules()) {
        return Err(AttachError::Missing(reason));
    }
    let mut enforcer = Enforcer::attach(pins)?;
    if enforcer.generation() == 0
        && let Err(error) = enforcer.prove()
    {
        if let Err(error) = enforcer.unload() {
            tracing::warn!("{error}");
        }
        return Err(error.into());
    }
    Ok(enforcer)
}

/// What of the kernel a change of rules needs; tests have another.
pub trait Kernel {
    /// The live generation, 0 if none.
    fn generation(&self) -> u32;
    /// Makes a generation live as a whole.
    ///
    /// # Errors
    /// If the kernel does not take it; the one before is live then.
    fn swap(&mut self, generation: &Generation<'_>) -> Result<(), BpfError>;
}

impl Kernel for Rc<RefCell<Enforcer>> {
    fn generation(&self) -> u32 {
        self.borrow().generation()
    }

    fn swap(&mut self, generation: &Generation<'_>) -> Result<(), BpfError> {
        self.borrow_mut().swap(generation)
    }
}

/// Why a prepared bundle is not live.
#[derive(Debug, thiserror::Error)]
pub enum EnforceError {
    /// The kernel does not take it.
    #[error("the kernel does not take the rules: {0}")]
    Kernel(#[from] BpfError),
    /// The workload is gone, or `/proc` does not show it: without `pid: host`, the host's processes are not there.
    #[error("/proc/{process}: {error}: the mounts of the workload cannot be read")]
    Home {
        /// The process that was asked about.
        process: &'static str,
        /// What the system says.
        error: io::Error,
    },
    /// The names of its rules cannot be written down.
    #[error(transparent)]
    State(#[from] StateError),
}

/// A bundle made ready for this node.
pub struct Prepared {
    bundle: String,
    serial: u64,
    expires: Timestamp,
    process: &'static str,
    host: Option<(Domain, Vec<LinkedFile>)>,
    selected: usize,
    idle: Vec<String>,
    alerts_per_second: u32,
    on_agent_stop: OnAgentStop,
    already_held: AlreadyHeld,
}

impl Prepared {
    /// Compiles a bundle for this node, whose root is that of `process`; takes up to seconds for thousands of rules.
    ///
    /// # Errors
    /// [`CompileError`]: the bundle is to blame.
    pub fn new(
        bundle: &VerifiedBundle,
        node: &NodeNames,
        process: &'static str,
    ) -> Result<Self, CompileError> {
        let (selected, idle) = domains::select(&bundle.policies, node);
        let settings = &bundle.payload.settings;
        let posture = match settings.posture.file {
            BundlePosture::Audit => Posture::Audit,
            BundlePosture::Block => Posture::Block,
        };
        let host = match selected.as_slice() {
            [] => None,
            policies => Some(domains::build(policies, posture, &Root::of_process(process))?),
        };
        Ok(Self {
            bundle: bundle.payload.name.clone(),
            serial: bundle.payload.serial,
            expires: bundle.payload.expires,
            process,
            host,
            selected: selected.len(),
            idle,
            alerts_per_second: settings.alerts_per_second.unwrap_or(ALERTS_PER_SECOND),
            on_agent_stop: settings.on_agent_stop,
            already_held: settings.already_held,
        })
    }

    /// For the report.
    pub fn in_force(&self) -> InForce {
        InForce {
            bundle: self.bundle.clone(),
            serial: self.serial,
            expires: self.expires,
            selected: self.selected,
            idle: self.idle.clone(),
            on_agent_stop: self.on_agent_stop,
            already_held: self.already_held,
        }
    }

    /// Makes it live under a new generation, whose number is returned. May be repeated after an error.
    ///
    /// # Errors
    /// [`EnforceError`]; what was live before still is, but for [`EnforceError::State`]: then the rules are live, and only their
    /// names could not be written down.
    pub fn swap(&self, kernel: &mut impl Kernel, state: &State) -> Result<u32, EnforceError> {
        let id = kernel.generation().max(state.last_generation()) + 1;
        let mut domains = Vec::new();
        if let Some((domain, linked)) = &self.host {
            let process = self.process;
            let home = Home::of_process(process).map_err(|error| EnforceError::Home { process, error })?;
            domains.push((HOST_DOMAIN, domain, Home { linked: linked.clone(), ..home }));
        }
        let table = match &self.host {
            Some((domain, _)) => RuleTable::of(&self.bundle, self.serial, HOST_DOMAIN, domain),
            None => RuleTable { bundle: self.bundle.clone(), serial: self.serial, ..RuleTable::default() },
        };
        // First the names, or the first alerts would have none; but a full disk must not keep the rules from the kernel.
        let stored = state.store_generation(id, &table);
        kernel.swap(&Generation { id, domains: &domains, alerts_per_second: self.alerts_per_second })?;
        stored?;
        Ok(id)
    }
}
