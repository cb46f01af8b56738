//! Defines what the other tasks may know of the owner's.

use std::collections::BTreeMap;
use std::sync::Arc;

use armor_bpf::Counters;

use crate::base::report::PolicyName;
use crate::events::alerts::AlertCounts;

/// A `Snapshot` shows the kernel side at one moment; the owner publishes one each second.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The live generation of rules; 0 if none.
    pub generation: u32,
    /// The kernel's counters; zeros if they cannot be read.
    pub counters: Counters,
    /// Counts of alerts by policy.
    pub policies: Arc<BTreeMap<PolicyName, AlertCounts>>,
}
