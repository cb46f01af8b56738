//! Moves events from the kernel's ring buffer to the spool, where each is durable before anything else
//! happens to it. Also reports preexisting handles, which never were in the ring buffer.
//!
//! A wake-up of the ring buffer only empties it. Whatever else must be looked at is looked at once a second,
//! by [`EventPump::tick`].

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use armor_alerts::alert::Alert;
use armor_bpf::{BpfError, Counters, Event, Events, Leftover};
use armor_bundle::payload::AlreadyHeld;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::base::report::{PolicyName, Reporter};
use crate::delivery::alert_log::AlertLog;
use crate::events::alerts::{self, AlertCounts, Clocks, Fate, Origin, RuleTable};
use crate::events::history::{History, ReportedTotals};
use crate::events::preexisting::PreexistingSearch;
use crate::kernel::port::Kernel;
use crate::workloads::runtime::Workloads;
use crate::workloads::workload::Workload;

/// Maximum number of events read from the ring buffer and written to the spool at a time.
const EVENTS: usize = 512;
/// Rule tables kept in memory.
const MAX_TABLES: usize = 8;
/// Maximum number of policies counted, over all bundles since the start.
const MAX_COUNTED: usize = 10_000;
/// Interval between calls of [`EventPump::tick`].
pub const TICK: Duration = Duration::from_secs(1);

/// An `EventPump` empties the ring buffer.
pub struct EventPump {
    events: Events,
    readable: AsyncFd<OwnedFd>,
    alert_log: AlertLog,
    reporter: Arc<Reporter>,
    history: History,
    /// The totals already reported, as the history has them.
    reported: ReportedTotals,
    origin: Origin,
    tables: BTreeMap<u32, Option<RuleTable>>,
    preexisting: PreexistingSearch,
    /// The kernel's count of programs that entered containers, as of the last search for preexisting handles.
    entered: u64,
    workloads: watch::Receiver<Arc<Workloads>>,
    /// Counts of alerts by policy.
    counts: Arc<BTreeMap<PolicyName, AlertCounts>>,
}

impl EventPump {
    /// Creates a pump for the ring buffer behind `events`; needs tokio's runtime. `took_over` says whether its
    /// BPF programs already ran for an earlier agent. `workloads` are the runtime's containers.
    ///
    /// # Errors
    /// Fails if the ring buffer cannot be waited for.
    pub fn new(
        events: Events,
        took_over: bool,
        alert_log: AlertLog,
        reporter: Arc<Reporter>,
        history: History,
        origin: Origin,
        workloads: watch::Receiver<Arc<Workloads>>,
    ) -> anyhow::Result<Self> {
        let waiting = events.fd().try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` stays the same open descriptor until it is dropped, which `AsyncFd` does after
        // deregistering.
        let readable = unsafe { AsyncFd::register_with_interest(waiting, Interest::READABLE) }?;
        let reported = history.reported();
        // Freshly loaded BPF programs did not see what processes obtained before, so the search starts anew.
        let (searched, entered) =
            if took_over { (reported.held.clone(), reported.entered) } else { (String::new(), 0) };
        Ok(Self {
            events,
            readable,
            alert_log,
            reporter,
            history,
            reported,
            origin,
            tables: BTreeMap::new(),
            preexisting: PreexistingSearch::new(searched),
            entered,
            workloads,
            counts: Arc::default(),
        })
    }

    /// Waits until the ring buffer has events; call [`Self::drain`] then.
    pub async fn readable(&mut self) {
        match self.readable.readable().await {
            Ok(mut ready) => ready.clear_ready(),
            // The tick empties the ring buffer without a wake-up.
            Err(error) => {
                tracing::warn!(%error, "the ring cannot be waited for");
                tokio::time::sleep(TICK).await;
            }
        }
    }

    /// Moves the events in the ring buffer to the spool.
    pub fn drain(&mut self) {
        // Bounded, so that a flood which refills the ring buffer while it is emptied does not keep the agent
        // from everything else.
        for _ in 0..64 {
            match self.events.drain(EVENTS) {
                Ok(events) if events.is_empty() => return,
                Ok(events) => self.append(events),
                Err(error) => return tracing::error!(%error, "the ring cannot be read"),
            }
        }
    }

    /// Does what is due once a second: settles undecided events, empties the ring buffer, and reports what was
    /// lost, what BPF programs of other versions left, and preexisting handles. `labelled` is set when running
    /// tasks came under rules, and cleared once their handles are searched for.
    pub fn tick(&mut self, kernel: &impl Kernel, labelled: &mut bool) {
        self.report_leftovers(kernel);
        if let Err(error) = kernel.settle() {
            tracing::error!("{error}: refusals to make files are reported late");
        }
        self.drain();
        let counters = match kernel.counters() {
            Ok(counters) => counters,
            Err(error) => return tracing::error!(%error, "the kernel's counters cannot be read"),
        };
        self.report_unseen(&counters, 0);
        self.report_preexisting(kernel, &counters, labelled);
    }

    /// Returns the counts of alerts by policy.
    pub fn counts(&self) -> &Arc<BTreeMap<PolicyName, AlertCounts>> {
        &self.counts
    }

    fn append(&mut self, events: Vec<Event>) {
        let clocks = Clocks::now();
        let alerts: Vec<Alert> = events.into_iter().map(|event| self.alert(event, &clocks)).collect();
        self.report(&alerts);
    }

    /// Counts alerts by policy, and writes them to the spool.
    pub fn report(&mut self, alerts: &[Alert]) {
        self.count(alerts);
        self.alert_log.append(alerts);
    }

    /// Reports the events and counters that BPF programs of another version left after they ended.
    fn report_leftovers(&mut self, kernel: &impl Kernel) {
        let leftovers = match kernel.leftovers() {
            Ok(leftovers) => leftovers,
            Err(error) => {
                return tracing::error!("{error}: what an earlier version has left is not reported");
            }
        };
        for leftover in leftovers {
            if let Err(error) = self.report_leftover(&leftover).and_then(|()| leftover.remove()) {
                tracing::error!("{error}: what an earlier version has left is not reported");
                continue;
            }
            // Freshly loaded programs count from 0.
            (self.reported.suppressed, self.reported.dropped, self.reported.skipped) = (0, 0, 0);
            self.store_reported();
        }
    }

    fn report_leftover(&mut self, leftover: &Leftover) -> Result<(), BpfError> {
        if let Some(mut left) = leftover.events()? {
            loop {
                let events = left.drain(EVENTS)?;
                if events.is_empty() {
                    break;
                }
                self.append(events);
            }
        }
        // Of events that this version cannot read, only the number can be reported.
        let unreadable = leftover.discard_events()?;
        let counted = leftover.counters()?.unwrap_or_default();
        self.report_unseen(&counted, unreadable);
        Ok(())
    }

    /// Counts alerts by policy, for at most [`MAX_COUNTED`] policies of all bundles.
    fn count(&mut self, alerts: &[Alert]) {
        let counts = Arc::make_mut(&mut self.counts);
        for alert in alerts {
            let name = PolicyName { bundle: alert.bundle.clone(), policy: alert.policy_name.clone() };
            if counts.len() == MAX_COUNTED && !counts.contains_key(&name) {
                continue;
            }
            let count = counts.entry(name).or_default();
            match alert.action.as_str() {
                "Block" => count.blocked += 1,
                _ => count.audited += 1,
            }
        }
    }

    fn alert(&mut self, event: Event, clocks: &Clocks) -> Alert {
        let table = table(&mut self.tables, &self.history, event.generation);
        let unidentified = event.task.container.map(|id| {
            let id = id.to_string();
            let named = self.workloads.borrow().get(&id).cloned();
            named.unwrap_or_else(|| Arc::new(Workload { id, ..Workload::default() }))
        });
        alerts::alert(event, table, unidentified.as_deref(), &self.origin, clocks)
    }

    /// Reports the preexisting handles of processes, and kills those processes if the rule's bundle says so.
    fn report_preexisting(&mut self, kernel: &impl Kernel, counters: &Counters, labelled: &mut bool) {
        let Some(table) = table(&mut self.tables, &self.history, kernel.generation()) else { return };
        let killing: BTreeSet<(String, u64)> = self.reporter.read(|facts| {
            let bundles = facts.in_force.iter().flat_map(|in_force| &in_force.bundles);
            let killing = bundles.filter(|bundle| bundle.already_held == AlreadyHeld::Kill);
            killing.map(|bundle| (bundle.name.clone(), bundle.serial)).collect()
        });
        let refused_by = |event: &Event| table.bundle(event).map(|(name, serial)| (name.to_owned(), serial));
        // What no bundle has decided alone counts as refused by each.
        let kills = |event: &Event| refused_by(event).map_or(!killing.is_empty(), |by| killing.contains(&by));
        if std::mem::take(labelled) || counters.entered != self.entered {
            self.entered = counters.entered;
            self.preexisting.begin_anew();
        }
        let found = match self.preexisting.look(kernel, &table.bundles, refused_by, kills) {
            Ok(None) => return,
            Ok(Some(found)) => found,
            Err(error) => {
                return tracing::error!("{error}: descriptors from before are not reported");
            }
        };
        let clocks = Clocks::now();
        let mut alerts = Vec::new();
        for (event, killed) in found.events {
            let alert = self.alert(event, &clocks);
            tracing::warn!(
                pid = alert.host_pid,
                program = alert.source,
                path = alert.resource,
                killed,
                "holds what the policies refuse"
            );
            alerts.push(alerts::preexisting(alert, if killed { Fate::Killed } else { Fate::Left }));
        }
        if found.more > 0 {
            alerts.push(alerts::threshold(&self.origin, found.more, 0));
        }
        self.alert_log.append(&alerts);
        if found.finished {
            (self.reported.held, self.reported.entered) =
                (self.preexisting.finished().to_owned(), self.entered);
            if let Err(error) = self.history.store_reported(&self.reported) {
                tracing::error!("{error}: what processes hold is reported again after a restart");
            }
        }
    }

    /// Writes alerts about suppressed and lost alerts and skipped BPF programs since the last report. `now`
    /// are the kernel's counters, and `more` is the number of lost alerts beyond them.
    fn report_unseen(&mut self, now: &Counters, more: u64) {
        // A lower count comes from freshly loaded programs, which count from 0.
        let since = |now: u64, reported: u64| if now < reported { now } else { now - reported };
        let reported = &self.reported;
        let (suppressed, dropped) =
            (since(now.suppressed, reported.suppressed), since(now.dropped, reported.dropped) + more);
        let skipped = since(now.skipped, reported.skipped);
        let mut alerts = Vec::new();
        if (suppressed, dropped) != (0, 0) {
            tracing::warn!(suppressed, dropped, "alerts that nobody will see");
            alerts.push(alerts::threshold(&self.origin, suppressed, dropped));
        }
        if skipped != 0 {
            tracing::warn!(skipped, "programs that the kernel did not run");
            alerts.push(alerts::skipped(&self.origin, skipped));
        }
        if alerts.is_empty() {
            return;
        }
        self.alert_log.append(&alerts);
        (self.reported.suppressed, self.reported.dropped, self.reported.skipped) =
            (now.suppressed, now.dropped, now.skipped);
        self.store_reported();
    }

    fn store_reported(&self) {
        if let Err(error) = self.history.store_reported(&self.reported) {
            tracing::error!("{error}: the same numbers are reported again");
        }
    }
}

/// Returns the rule names of a generation, if they are known.
fn table<'a>(
    tables: &'a mut BTreeMap<u32, Option<RuleTable>>,
    history: &History,
    generation: u32,
) -> Option<&'a RuleTable> {
    if tables.len() >= MAX_TABLES && !tables.contains_key(&generation) {
        tables.pop_first();
    }
    tables.entry(generation).or_insert_with(|| history.generation(generation)).as_ref()
}
