//! Writes the status each second, starts what could not be started before, and notes when bundles expire.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::base::disk::DiskError;
use crate::base::report::{Problem, Reporter};
use crate::delivery::start::Delivery;
use crate::events::alerts::{self, Origin};
use crate::node::snapshot::Snapshot;
use crate::node::status::{ContainerFigures, Figures, PolicyFigures, Status, StatusFile};
use crate::workloads::runtime::{MAX_WORKLOADS, RuntimeState, Workloads};

/// A `StatusTask` writes the status file.
pub struct StatusTask<'a> {
    /// The status file.
    pub file: StatusFile<'a>,
    /// The reporter of all facts about the agent.
    pub reporter: Arc<Reporter>,
    /// The way of alerts to the hub.
    pub delivery: Delivery,
    /// What all alerts of the node have in common.
    pub origin: Origin,
    /// The owner's snapshots; each is followed by a status.
    pub snapshots: watch::Receiver<Snapshot>,
    /// The runtime's containers.
    pub workloads: watch::Receiver<Arc<Workloads>>,
    /// State of the connection to the runtime.
    pub runtime: watch::Receiver<RuntimeState>,
    /// Names and serials of the bundles whose expiry was reported.
    pub expired: BTreeMap<String, u64>,
}

impl StatusTask<'_> {
    /// Writes a status for each snapshot, until there are no more.
    pub async fn run(&mut self) {
        while self.snapshots.changed().await.is_ok() {
            let snapshot = self.snapshots.borrow_and_update().clone();
            self.report_expiry();
            self.delivery.begin();
            self.reporter.problem(Problem::Runtime, lost(&self.runtime.borrow()));
            let unwritten = self.write(&snapshot).err().map(|error| error.to_string());
            if let Some(unwritten) = &unwritten
                && !self.reporter.read(|facts| facts.problems.contains_key(&Problem::Unwritten))
            {
                tracing::error!("{unwritten}");
            }
            self.reporter.problem(Problem::Unwritten, unwritten);
        }
    }

    /// Writes the status unless it is that of the last time.
    ///
    /// # Errors
    /// Fails with [`DiskError`] if the file cannot be written.
    pub fn write(&mut self, snapshot: &Snapshot) -> Result<(), DiskError> {
        let status = self.status(snapshot);
        self.file.write(status)
    }

    /// Reports of each bundle in force once that it has expired.
    fn report_expiry(&mut self) {
        let now = Timestamp::now();
        let expired: Vec<(String, u64, Timestamp)> = self.reporter.read(|facts| {
            let bundles = facts.in_force.iter().flat_map(|in_force| &in_force.bundles);
            let expired = bundles.filter(|bundle| bundle.policy_count() > 0 && bundle.expires <= now);
            expired.map(|bundle| (bundle.name.clone(), bundle.serial, bundle.expires)).collect()
        });
        for (bundle, serial, expires) in expired {
            if self.expired.insert(bundle.clone(), serial) == Some(serial) {
                continue;
            }
            tracing::warn!(bundle, "expired; goes on being enforced");
            self.delivery.alert_log.append(&[alerts::expired(&self.origin, &bundle, serial, expires)]);
            self.reporter.change(|_| {});
        }
    }

    fn status(&self, snapshot: &Snapshot) -> Status {
        let Snapshot { generation, counters, policies } = snapshot;
        let report = self.reporter.reports().borrow().clone();
        let spool = self.delivery.alert_log.stats();
        self.reporter.read(|facts| {
            let in_force = facts.in_force.as_ref();
            let offline = facts.offline.clone().into_iter().chain(self.delivery.offline());
            Status {
                report,
                offline: offline.min_by_key(|offline| offline.since),
                generation: *generation,
                kernel: Figures {
                    blocked: counters.blocked,
                    audited: counters.audited,
                    suppressed: counters.suppressed,
                    dropped: counters.dropped,
                    unidentified: counters.unidentified,
                    skipped: counters.skipped,
                },
                policies: PolicyFigures::of(in_force, policies),
                containers: ContainerFigures::new(
                    &self.runtime.borrow(),
                    self.workloads.borrow().len(),
                    in_force,
                ),
                spool,
                updated: None,
            }
        })
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
