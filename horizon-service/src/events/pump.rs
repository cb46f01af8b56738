//! Moves events from the kernel's ring buffer to the spool, where each is durable before anything else
//! happens to it. Also reports preexisting handles, which never were in the ring buffer.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use armor_bpf::{BpfError, Counters, Enforcer, Event, Events, Leftover};
use armor_hub_client::alert::Alert;
use armor_hub_client::bundle::payload::AlreadyHeld;
use armor_hub_client::status::SpoolStats;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, watch};

use crate::base::report::{Problem, Reporter};
use crate::delivery::spool::{Spool, SpoolError};
use crate::events::alerts::{self, AlertCounts, Clocks, Fate, Origin, RuleTable};
use crate::events::history::{History, ReportedTotals};
use crate::events::preexisting::PreexistingSearch;
use crate::workloads::runtime::Workloads;
use crate::workloads::workload::Workload;

/// Maximum number of events read from the ring buffer and written to the spool at a time.
const EVENTS: usize = 512;
/// Rule tables kept in memory.
const MAX_TABLES: usize = 8;
/// Maximum number of policies counted, over all bundles since the start.
const MAX_SEEN: usize = 10_000;
/// Interval at which the counters are read.
const TICK: Duration = Duration::from_secs(1);

/// An `AlertLog` shares the spool among async tasks.
#[derive(Clone)]
pub struct AlertLog {
    /// The spool.
    pub spool: Arc<Mutex<Spool>>,
    /// Notified after each append.
    pub appended: Arc<Notify>,
    reporter: Rc<Reporter>,
}

impl AlertLog {
    /// Creates a log that writes to `spool`.
    pub fn new(spool: Spool, reporter: Rc<Reporter>) -> Self {
        Self { spool: Arc::new(Mutex::new(spool)), appended: Arc::default(), reporter }
    }

    /// Writes alerts durably. On failure the spool counts them as lost, and the error is reported.
    pub fn append(&self, alerts: &[Alert]) {
        if alerts.is_empty() {
            return;
        }
        let mut spool = self.spool.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = match spool.append(alerts) {
            // The spool has begun a new database.
            Err(SpoolError::Damaged { .. }) => spool.append(alerts),
            outcome => outcome,
        };
        drop(spool);
        let problem = outcome.err().map(|error| error.to_string());
        if let Some(problem) = &problem {
            tracing::error!(alerts = alerts.len(), "{problem}");
        }
        self.reporter.problem(Problem::Spool, problem);
        self.appended.notify_one();
    }

    /// Returns the spool's counts.
    pub fn stats(&self) -> SpoolStats {
        let mut spool = self.spool.lock().unwrap_or_else(PoisonError::into_inner);
        spool.stats().unwrap_or_else(|error| {
            tracing::error!("{error}");
            SpoolStats::default()
        })
    }
}

/// An `EventPump` empties the ring buffer.
pub struct EventPump {
    enforcer: Rc<RefCell<Enforcer>>,
    events: Events,
    readable: AsyncFd<OwnedFd>,
    alert_log: AlertLog,
    history: History,
    origin: Origin,
    tables: BTreeMap<u32, Option<RuleTable>>,
    held: PreexistingSearch,
    /// Time of the last request to settle undecided events.
    finished: Option<Instant>,
    /// The kernel's count of programs that entered containers, as of the last search for preexisting handles.
    entered: u64,
    labelled: Rc<Cell<bool>>,
    workloads: watch::Receiver<Arc<Workloads>>,
    /// Counts of alerts by policy.
    seen: Rc<RefCell<BTreeMap<String, AlertCounts>>>,
}

impl EventPump {
    /// Creates a pump for the ring buffer of `enforcer`; needs tokio's runtime. `labelled` is set when
    /// running tasks come under rules, `workloads` are the runtime's containers, and `seen` gets the counts
    /// of alerts by policy.
    ///
    /// # Errors
    /// Fails if the ring buffer cannot be waited for.
    pub fn new(
        enforcer: Rc<RefCell<Enforcer>>,
        alert_log: AlertLog,
        history: History,
        origin: Origin,
        labelled: Rc<Cell<bool>>,
        workloads: watch::Receiver<Arc<Workloads>>,
        seen: Rc<RefCell<BTreeMap<String, AlertCounts>>>,
    ) -> anyhow::Result<Self> {
        let events = enforcer.borrow().events()?;
        let waiting = events.fd().try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` stays the same open descriptor until it is dropped, which `AsyncFd` does after
        // deregistering.
        let readable = unsafe { AsyncFd::register_with_interest(waiting, Interest::READABLE) }?;
        // Freshly loaded BPF programs did not see what processes obtained before, so the search starts anew.
        let reported =
            if enforcer.borrow().took_over() { history.reported() } else { ReportedTotals::default() };
        let (tables, held, entered) =
            (BTreeMap::new(), PreexistingSearch::new(reported.held), reported.entered);
        Ok(Self {
            enforcer,
            events,
            readable,
            alert_log,
            history,
            origin,
            tables,
            held,
            finished: None,
            entered,
            labelled,
            workloads,
            seen,
        })
    }

    /// Pumps until the future is dropped.
    pub async fn run(&mut self) {
        loop {
            self.report_leftovers();
            self.drain();
            self.tell_unseen(self.counters(), 0);
            self.report_preexisting();
            tokio::select! {
                ready = self.readable.readable() => match ready {
                    Ok(mut ready) => ready.clear_ready(),
                    // The tick empties the ring buffer without a wake-up.
                    Err(error) => {
                        tracing::warn!(%error, "the ring cannot be waited for");
                        tokio::time::sleep(TICK).await;
                    }
                },
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// Moves the events in the ring buffer to the spool, and once a second makes the kernel settle undecided
    /// events first.
    pub fn drain(&mut self) {
        if self.finished.is_none_or(|last| last.elapsed() >= TICK) {
            self.finished = Some(Instant::now());
            if let Err(error) = self.enforcer.borrow().settle() {
                tracing::error!("{error}: refusals to make files are told late");
            }
        }
        // Bounded, so that a flood which refills the ring buffer while it is emptied does not keep the agent
        // from everything else.
        for _ in 0..64 {
            let events = match self.events.drain(EVENTS) {
                Ok(events) if events.is_empty() => return,
                Ok(events) => events,
                Err(error) => return tracing::error!(%error, "the ring cannot be read"),
            };
            let clocks = Clocks::now();
            let alerts: Vec<Alert> = events.into_iter().map(|event| self.alert(event, &clocks)).collect();
            self.count(&alerts);
            self.alert_log.append(&alerts);
        }
    }

    /// Reports the events and counters that BPF programs of another version left after they ended.
    fn report_leftovers(&mut self) {
        let leftovers = match self.enforcer.borrow().leftovers() {
            Ok(leftovers) => leftovers,
            Err(error) => return tracing::error!("{error}: what an earlier version has left is not told"),
        };
        for leftover in leftovers {
            if let Err(error) = self.tell_leftover(&leftover).and_then(|()| leftover.remove()) {
                tracing::error!("{error}: what an earlier version has left is not told");
                continue;
            }
            // Freshly loaded programs count from 0.
            let mut reported = self.history.reported();
            (reported.suppressed, reported.dropped, reported.skipped) = (0, 0, 0);
            self.remember(&reported);
        }
    }

    fn tell_leftover(&mut self, leftover: &Leftover) -> Result<(), BpfError> {
        if let Some(mut events) = leftover.events()? {
            loop {
                let some = events.drain(EVENTS)?;
                if some.is_empty() {
                    break;
                }
                let clocks = Clocks::now();
                let alerts: Vec<Alert> = some.into_iter().map(|event| self.alert(event, &clocks)).collect();
                self.count(&alerts);
                self.alert_log.append(&alerts);
            }
        }
        // Of events that this version cannot read, only the number can be reported.
        let unreadable = leftover.discard_events()?;
        let counted = leftover.counters()?.unwrap_or_default();
        self.tell_unseen(counted, unreadable);
        Ok(())
    }

    /// Counts alerts by policy, for as many names as one bundle can have policies.
    fn count(&self, alerts: &[Alert]) {
        let mut seen = self.seen.borrow_mut();
        for alert in alerts {
            if seen.len() == MAX_SEEN && !seen.contains_key(&alert.policy_name) {
                continue;
            }
            let seen = seen.entry(alert.policy_name.clone()).or_default();
            match alert.action.as_str() {
                "Block" => seen.blocked += 1,
                _ => seen.audited += 1,
            }
        }
    }

    fn alert(&mut self, event: Event, clocks: &Clocks) -> Alert {
        let table = table(&mut self.tables, &self.history, event.generation);
        let unidentified = event.container.map(|id| {
            let id = id.to_string();
            let named = self.workloads.borrow().get(&id).cloned();
            named.unwrap_or_else(|| Arc::new(Workload { id, ..Workload::default() }))
        });
        alerts::alert(event, table, unidentified.as_deref(), &self.origin, clocks)
    }

    /// Reports the preexisting handles of processes, and kills those processes if the bundle says so.
    fn report_preexisting(&mut self) {
        let generation = self.enforcer.borrow().generation();
        let Some(table) = table(&mut self.tables, &self.history, generation) else { return };
        let (name, serial) = (table.bundle.clone(), table.serial);
        let bundle = format!("{name} {serial}");
        let kill = self.alert_log.reporter.facts().in_force.is_some_and(|in_force| {
            (in_force.bundle, in_force.serial) == (name, serial) && in_force.already_held == AlreadyHeld::Kill
        });
        let entered = self.counters().entered;
        if self.labelled.take() || entered != self.entered {
            self.entered = entered;
            self.held.begin_anew();
        }
        let looked = self.held.look(&self.enforcer.borrow(), &bundle, kill);
        let found = match looked {
            Ok(None) => return,
            Ok(Some(found)) => found,
            Err(error) => {
                return tracing::error!(bundle, "{error}: descriptors from before are not reported");
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
            let mut reported = self.history.reported();
            (reported.held, reported.entered) = (bundle, self.entered);
            if let Err(error) = self.history.store_reported(&reported) {
                tracing::error!("{error}: what processes hold is told again after a restart");
            }
        }
    }

    /// Returns the kernel's counters, or zeros if they cannot be read.
    pub fn counters(&self) -> Counters {
        self.enforcer.borrow().counters().unwrap_or_else(|error| {
            tracing::error!(%error, "the kernel's counters cannot be read");
            Counters::default()
        })
    }

    /// Writes alerts about suppressed and lost alerts and skipped BPF programs since the last report. `now`
    /// are the kernel's counters, and `more` is the number of lost alerts beyond them.
    fn tell_unseen(&self, now: Counters, more: u64) {
        let mut reported = self.history.reported();
        // A lower count comes from freshly loaded programs, which count from 0.
        let since = |now: u64, reported: u64| if now < reported { now } else { now - reported };
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
        (reported.suppressed, reported.dropped, reported.skipped) =
            (now.suppressed, now.dropped, now.skipped);
        self.remember(&reported);
    }

    fn remember(&self, reported: &ReportedTotals) {
        if let Err(error) = self.history.store_reported(reported) {
            tracing::error!("{error}: the same numbers are told again");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::spool::SpoolConfig;

    #[test]
    fn a_disk_that_stays_full_is_reported_once() {
        let dir = tempfile::tempdir().unwrap();
        let reporter = Rc::new(Reporter::new());
        let mut reports = reporter.reports();
        let alert_log = AlertLog::new(Spool::new(dir.path(), SpoolConfig { max_bytes: 1 << 20 }), reporter);
        // A directory in place of the floor's next version makes the reservation of numbers fail, as on a
        // full disk.
        std::fs::create_dir(dir.path().join("spool.floor.new")).unwrap();
        let alert = Alert::at(jiff::Timestamp::UNIX_EPOCH);
        for count in 1..4 {
            alert_log.append(&vec![alert.clone(); count]);
            assert_eq!(reports.has_changed().unwrap(), count == 1, "after append {count}");
            reports.mark_unchanged();
        }
        assert_eq!(alert_log.stats().unwritten, 6, "how many it were stands in the figures");
    }
}
