//! Keeps of each accepted bundle what compiling it with others takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use armor_bpf::DomainSettings;
use armor_bundle::VerifiedBundle;
use armor_bundle::payload::{AlreadyHeld, OnAgentStop};
use armor_policy::Policy;
use jiff::Timestamp;

use crate::workloads::bundled_policies::{BundleSettings, BundledPolicy};

/// Alerts per second and rule if the bundle sets no other limit.
const ALERTS_PER_SECOND: u32 = 100;
/// An `AcceptedBundle` is what is needed of an accepted bundle to compile it with others, again and again.
#[derive(Debug, Clone)]
pub struct AcceptedBundle {
    pub(super) serial: u64,
    pub(super) expires: Timestamp,
    pub(super) on_agent_stop: OnAgentStop,
    pub(super) already_held: AlreadyHeld,
    /// Empty if the bundle lifts what earlier ones of its name enforce.
    pub(super) policies: Vec<BundledPolicy>,
}

/// `Bundles` are the accepted bundles by name.
pub type Bundles = BTreeMap<String, Arc<AcceptedBundle>>;

impl AcceptedBundle {
    /// Takes over what a verified bundle says.
    pub fn new(bundle: &VerifiedBundle) -> Self {
        let settings = &bundle.payload.settings;
        let own = Arc::new(BundleSettings {
            bundle: bundle.payload.name.clone(),
            postures: settings.posture.for_classes(),
            domain: DomainSettings {
                alerts_per_second: settings.alerts_per_second.unwrap_or(ALERTS_PER_SECOND),
                secure_sources: settings.secure_sources,
            },
        });
        let bundled =
            |policy: &Policy| BundledPolicy { policy: Arc::new(policy.clone()), settings: Arc::clone(&own) };
        Self {
            serial: bundle.payload.serial,
            expires: bundle.payload.expires,
            on_agent_stop: settings.on_agent_stop,
            already_held: settings.already_held,
            policies: bundle.policies.iter().map(bundled).collect(),
        }
    }
}

/// Returns the bundles that have policies.
pub(super) fn with_policies(bundles: &Bundles) -> impl Iterator<Item = (&String, &Arc<AcceptedBundle>)> {
    bundles.iter().filter(|(_, bundle)| !bundle.policies.is_empty())
}
