//! Has the rules for devices hold whenever they or the devices change.
//!
//! Invariant: the guard is used by one pass at a time, which runs on a thread of its own, as the kernel may take seconds to bind
//! a device's drivers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::base::report::{Problem, Reporter};
use crate::devices::guard::{DeviceGuard, DeviceRules, Outcome};
use crate::devices::uevents::Uevents;
use crate::node::owner::{NodeHandle, Stopped};

/// Interval between passes as long as something fails or is to be reported.
const AGAIN: Duration = Duration::from_secs(10);

/// A `DeviceTask` keeps devices out as the rules in force say.
pub struct DeviceTask {
    guard: Arc<Mutex<DeviceGuard>>,
    rules: watch::Receiver<Option<DeviceRules>>,
    reporter: Arc<Reporter>,
}

impl DeviceTask {
    /// Creates the task.
    pub fn new(
        guard: DeviceGuard,
        rules: watch::Receiver<Option<DeviceRules>>,
        reporter: Arc<Reporter>,
    ) -> Self {
        Self { guard: Arc::new(Mutex::new(guard)), rules, reporter }
    }

    /// Returns the guard, for what is to be done after this task has ended.
    pub fn guard(&self) -> Arc<Mutex<DeviceGuard>> {
        Arc::clone(&self.guard)
    }

    /// Runs until the owner has ended.
    ///
    /// # Errors
    /// Fails with [`Stopped`] then.
    pub async fn run(mut self, node: NodeHandle) -> Result<(), Stopped> {
        // Before the first look, so that nothing is missed between the two.
        let mut uevents = Uevents::open().map_err(|error| error.to_string());
        loop {
            let rules = self.rules.borrow_and_update().clone();
            let mut again = false;
            if let Some(rules) = rules {
                let policies = rules.policies();
                let Outcome { alerts, failure, kept_back } = self.pass(rules).await;
                node.report(alerts).await?;
                if let Err(error) = locked(&self.guard).keep() {
                    tracing::error!("{error}: the next agent reports the same devices again");
                }
                let deaf = uevents.as_ref().err().filter(|_| !policies.is_empty()).cloned();
                let problem = failure.map(|error| error.to_string()).or(deaf);
                let problem =
                    problem.map(|error| format!("USB devices, as policies {policies} say: {error}"));
                again = problem.is_some() || kept_back;
                if self.reporter.problem(Problem::Devices, problem.clone())
                    && let Some(problem) = problem
                {
                    tracing::error!("{problem}");
                }
            }
            tokio::select! {
                changed = self.rules.changed() => {
                    if changed.is_err() {
                        return Err(Stopped);
                    }
                }
                heard = about_usb(&mut uevents) => {
                    if let Err(error) = heard {
                        uevents = Err(format!("the kernel's messages cannot be read: {error}"));
                    }
                }
                () = tokio::time::sleep(AGAIN), if again => {}
            }
        }
    }

    async fn pass(&self, rules: DeviceRules) -> Outcome {
        let guard = Arc::clone(&self.guard);
        let pass = tokio::task::spawn_blocking(move || locked(&guard).pass(&rules)).await;
        pass.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and this task with it.
            Err(_) => Outcome::default(),
        })
    }
}

/// Returns the guard once no pass uses it.
pub fn locked(guard: &Mutex<DeviceGuard>) -> MutexGuard<'_, DeviceGuard> {
    guard.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn about_usb(uevents: &mut Result<Uevents, String>) -> std::io::Result<()> {
    match uevents {
        Ok(uevents) => uevents.about_usb().await,
        Err(_) => std::future::pending().await,
    }
}
