//! From the kernel to the spool: what left the ring is durable before anything else happens to it. What processes hold from
//! before the rules, which never was in the ring, is told here too.

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

use crate::alerts::{self, Clocks, Fate, Origin, RuleTable};
use crate::preexisting::PreexistingSearch;
use crate::report::{Problem, Reporter};
use crate::runtime::Workloads;
use crate::spool::{Spool, SpoolError};
use crate::state::{ReportedTotals, State};
use crate::status::Seen;
use crate::workload::Workload;

/// Events taken from the ring, and written to the spool, at a time.
const EVENTS: usize = 512;
/// Rule tables kept in memory.
const MAX_TABLES: usize = 8;
/// Policies that are counted for, of all bundles since the start.
const MAX_SEEN: usize = 10_000;
/// How often the counters are looked at.
const TICK: Duration = Duration::from_secs(1);

/// The spool as several tasks use it.
#[derive(Clone)]
pub struct AlertLog {
    /// The spool.
    pub spool: Arc<Mutex<Spool>>,
    /// Notified after each append.
    pub appended: Arc<Notify>,
    reporter: Rc<Reporter>,
}

impl AlertLog {
    /// A log on `spool`.
    pub fn new(spool: Spool, reporter: Rc<Reporter>) -> Self {
        Self { spool: Arc::new(Mutex::new(spool)), appended: Arc::default(), reporter }
    }

    /// Writes alerts down, durably. If that fails they are counted by the spool and named as lost.
    pub fn append(&self, alerts: &[Alert]) {
        if alerts.is_empty() {
            return;
        }
        let mut spool = self.spool.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = match spool.append(alerts) {
            // A fresh one was begun.
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

    /// The spool's figures.
    pub fn stats(&self) -> SpoolStats {
        let mut spool = self.spool.lock().unwrap_or_else(PoisonError::into_inner);
        spool.stats().unwrap_or_else(|error| {
            tracing::error!("{error}");
            SpoolStats::default()
        })
    }
}

/// Empties the ring.
pub struct EventPump {
    enforcer: Rc<RefCell<Enforcer>>,
    events: Events,
    readable: AsyncFd<OwnedFd>,
    alert_log: AlertLog,
    state: Rc<RefCell<State>>,
    origin: Origin,
    tables: BTreeMap<u32, Option<RuleTable>>,
    held: PreexistingSearch,
    /// When what the kernel had not decided was last asked for.
    finished: Option<Instant>,
    /// How many programs had entered containers when what they brought along was last looked at.
    entered: u64,
    labelled: Rc<Cell<bool>>,
    workloads: watch::Receiver<Arc<Workloads>>,
    /// What each policy was seen to do.
    seen: Rc<RefCell<BTreeMap<String, Seen>>>,
}

impl EventPump {
    /// A pump on the ring of `enforcer`; needs tokio's runtime. `labelled` is set when tasks came under rules while they ran;
    /// `workloads` are what the runtime says that there are; `seen` is where what comes out of the ring is counted by policy.
    ///
    /// # Errors
    /// If the ring cannot be waited for.
    pub fn new(
        enforcer: Rc<RefCell<Enforcer>>,
        alert_log: AlertLog,
        state: Rc<RefCell<State>>,
        origin: Origin,
        labelled: Rc<Cell<bool>>,
        workloads: watch::Receiver<Arc<Workloads>>,
        seen: Rc<RefCell<BTreeMap<String, Seen>>>,
    ) -> anyhow::Result<Self> {
        let events = enforcer.borrow().events()?;
        let waiting = events.fd().try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` stays the same open descriptor until it is dropped, which `AsyncFd` does after deregistering.
        let readable = unsafe { AsyncFd::register_with_interest(waiting, Interest::READABLE) }?;
        // Programs that were loaded anew let through what was obtained before.
        let reported =
            if enforcer.borrow().took_over() { state.borrow().reported() } else { ReportedTotals::default() };
        let (tables, held, entered) =
            (BTreeMap::new(), PreexistingSearch::new(reported.held), reported.entered);
        Ok(Self {
            enforcer,
            events,
            readable,
            alert_log,
            state,
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
                    // Without the wake-up the tick empties it.
                    Err(error) => {
                        tracing::warn!(%error, "the ring cannot be waited for");
                        tokio::time::sleep(TICK).await;
                    }
                },
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// Moves what is in the ring now into the spool, each second also what can be there by now.
    pub fn drain(&mut self) {
        if self.finished.is_none_or(|last| last.elapsed() >= TICK) {
            self.finished = Some(Instant::now());
            if let Err(error) = self.enforcer.borrow().settle() {
                tracing::error!("{error}: refusals to make files are told late");
            }
        }
        // A flood that fills the ring as fast as it is emptied must not keep the agent from everything else.
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

    /// Tells what the programs of an earlier version of the agent have left, once they are ended.
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
            // The programs that were loaded anew count anew.
            let mut reported = self.state.borrow().reported();
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
        // Of what is left now only the number can be reported.
        let unreadable = leftover.discard_events()?;
        let counted = leftover.counters()?.unwrap_or_default();
        self.tell_unseen(counted, unreadable);
        Ok(())
    }

    /// Counts for as many names as one bundle can have policies; beyond that it is no figure that anybody reads.
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
        let table = table(&mut self.tables, &self.state, event.generation);
        let unidentified = event.container.map(|id| {
            let id = id.to_string();
            let named = self.workloads.borrow().get(&id).cloned();
            named.unwrap_or_else(|| Arc::new(Workload { id, ..Workload::default() }))
        });
        alerts::alert(event, table, unidentified.as_deref(), &self.origin, clocks)
    }

    /// Tells what processes hold from before the rules in force, and ends them where the bundle says so.
    fn report_preexisting(&mut self) {
        let generation = self.enforcer.borrow().generation();
        let Some(table) = table(&mut self.tables, &self.state, generation) else { return };
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
            let mut reported = self.state.borrow().reported();
            (reported.held, reported.entered) = (bundle, self.entered);
            if let Err(error) = self.state.borrow().store_reported(&reported) {
                tracing::error!("{error}: what processes hold is told again after a restart");
            }
        }
    }

    /// The kernel's counters; zeros if it does not say.
    pub fn counters(&self) -> Counters {
        self.enforcer.borrow().counters().unwrap_or_else(|error| {
            tracing::error!(%error, "the kernel's counters cannot be read");
            Counters::default()
        })
    }

    /// Writes alerts about alerts that were kept back or lost since the last ones, as the kernel counted `now`, and `more` lost,
    /// and about programs that were not run.
    fn tell_unseen(&self, now: Counters, more: u64) {
        let mut reported = self.state.borrow().reported();
        // Lower than before: programs that were loaded anew count anew.
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
        if let Err(error) = self.state.borrow().store_reported(reported) {
            tracing::error!("{error}: the same numbers are told again");
        }
    }
}

/// What a generation's rules are called, if that is known.
fn table<'a>(
    tables: &'a mut BTreeMap<u32, Option<RuleTable>>,
    state: &RefCell<State>,
    generation: u32,
) -> Option<&'a RuleTable> {
    if tables.len() >= MAX_TABLES && !tables.contains_key(&generation) {
        tables.pop_first();
    }
    tables.entry(generation).or_insert_with(|| state.borrow().generation(generation)).as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::SpoolConfig;

    #[test]
    fn a_disk_that_stays_full_is_reported_once() {
        let dir = tempfile::tempdir().unwrap();
        let reporter = Rc::new(Reporter::new());
        let mut reports = reporter.reports();
        let alert_log = AlertLog::new(Spool::new(dir.path(), SpoolConfig { max_bytes: 1 << 20 }), reporter);
        // A directory in the place of the floor's next version: reserving numbers fails as on a full disk.
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
