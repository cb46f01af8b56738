//! Shares the spool among tasks: those that write alerts, the uplink that sends them, and the status.

use std::sync::{Arc, Mutex, PoisonError};

use armor_alerts::alert::Alert;
use armor_alerts::status::SpoolStats;
use tokio::sync::Notify;

use crate::base::report::{Problem, Reporter};
use crate::delivery::spool::{Spool, SpoolError};

/// An `AlertLog` writes alerts to the shared spool.
#[derive(Clone)]
pub struct AlertLog {
    /// The spool.
    pub spool: Arc<Mutex<Spool>>,
    /// Notified after each append.
    pub appended: Arc<Notify>,
    reporter: Arc<Reporter>,
}

impl AlertLog {
    /// Creates a log that writes to `spool`.
    pub fn new(spool: Spool, reporter: Arc<Reporter>) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::spool::SpoolConfig;

    #[test]
    fn a_disk_that_stays_full_is_reported_once() {
        let dir = tempfile::tempdir().unwrap();
        let reporter = Arc::new(Reporter::new());
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
