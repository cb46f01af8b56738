//! Runs the one task that owns enforcement, state directory and containers.
//!
//! Invariants:
//! - Nobody else changes them or reads them: other tasks send a command, or look at the [`Snapshot`] that is
//!   published each second.
//! - A command is done as a whole before the next one, and before any event is read.
//! - The ring buffer's events go from here into the spool without a queue between, so that none is lost.

use std::sync::Arc;

use armor_alerts::alert::Alert;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use crate::base::disk::DiskError;
use crate::events::pump::{EventPump, TICK};
use crate::kernel::port::Kernel;
use crate::node::bundles::CompiledBundles;
use crate::node::enforcement::{Acceptance, Criteria, NodeEnforcement};
use crate::node::snapshot::Snapshot;
use crate::workloads::links::Watched;
use crate::workloads::runtime::Workloads;

/// Maximum number of commands that wait; the sender of one more waits.
const WAITING: usize = 16;

/// A `Command` is a request to the owner, with the way for its answer.
enum Command {
    BeginPass(oneshot::Sender<(Criteria, bool)>),
    Accept(Box<Acceptance>, oneshot::Sender<Result<Criteria, DiskError>>),
    Follow(Arc<Workloads>, oneshot::Sender<()>),
    FindUnidentified { answers: bool, done: oneshot::Sender<()> },
    WatchedLinks(oneshot::Sender<Vec<Watched>>),
    FollowLinks(Vec<(Watched, Vec<String>)>, oneshot::Sender<()>),
    Report(Vec<Alert>, oneshot::Sender<()>),
}

/// `Stopped` means that the owner's task has ended, and with it the agent.
#[derive(Debug, thiserror::Error)]
#[error("the agent stops")]
pub struct Stopped;

/// A `NodeHandle` sends commands to the owner.
#[derive(Clone)]
pub struct NodeHandle(mpsc::Sender<Command>);

impl NodeHandle {
    /// Reads the pinned keys again, and retries a swap or container update that failed. Returns what bundles
    /// are judged by, and whether the keys differ from those before.
    ///
    /// # Errors
    /// This and the following functions fail once the owner's task has ended.
    pub async fn begin_pass(&self) -> Result<(Criteria, bool), Stopped> {
        self.ask(Command::BeginPass).await
    }

    /// Stores a bundle, changes keys as it says, and puts it in force. Returns what the next bundle is judged
    /// by, or why this one cannot be stored; nothing has changed then.
    pub async fn accept(&self, accepted: Acceptance) -> Result<Result<Criteria, DiskError>, Stopped> {
        self.ask(|done| Command::Accept(Box::new(accepted), done)).await
    }

    /// Applies the runtime's list of containers.
    pub async fn follow(&self, workloads: Arc<Workloads>) -> Result<(), Stopped> {
        self.ask(|done| Command::Follow(workloads, done)).await
    }

    /// Labels the tasks of containers that were entered before they were known. If the runtime `answers`,
    /// also releases containers that stay unidentified.
    pub async fn find_unidentified(&self, answers: bool) -> Result<(), Stopped> {
        self.ask(|done| Command::FindUnidentified { answers, done }).await
    }

    /// Returns the paths to resolve again, with the results on which the rules in force are based.
    pub async fn watched_links(&self) -> Result<Vec<Watched>, Stopped> {
        self.ask(Command::WatchedLinks).await
    }

    /// Recompiles the rules whose paths have `moved`, and puts them in force.
    pub async fn follow_links(&self, moved: Vec<(Watched, Vec<String>)>) -> Result<(), Stopped> {
        self.ask(|done| Command::FollowLinks(moved, done)).await
    }

    /// Counts alerts that no event of the kernel side caused, and writes them to the spool.
    pub async fn report(&self, alerts: Vec<Alert>) -> Result<(), Stopped> {
        self.ask(|done| Command::Report(alerts, done)).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.0.send(command(reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}

/// An `Owner` holds what only one task may have.
pub struct Owner<K> {
    enforcement: NodeEnforcement<K>,
    /// `None` if the kernel cannot enforce, and so has no events.
    pump: Option<EventPump>,
    commands: mpsc::Receiver<Command>,
    snapshots: watch::Sender<Snapshot>,
}

impl<K: Kernel> Owner<K> {
    /// Creates the owner, and the handle by which other tasks reach it.
    pub fn new(enforcement: NodeEnforcement<K>, pump: Option<EventPump>) -> (Self, NodeHandle) {
        let (handle, commands) = mpsc::channel(WAITING);
        let snapshots = watch::Sender::default();
        (Self { enforcement, pump, commands, snapshots }, NodeHandle(handle))
    }

    /// Returns the snapshots from now on.
    pub fn snapshots(&self) -> watch::Receiver<Snapshot> {
        self.snapshots.subscribe()
    }

    /// Does what is asked for and what is due, until all handles are gone. Events wait in the ring buffer until
    /// `named` ends.
    pub async fn run(&mut self, named: impl Future<Output = ()>) {
        let mut named = std::pin::pin!(named);
        let mut is_named = false;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.execute(command),
                    None => return,
                },
                () = readable(self.pump.as_mut()), if is_named => self.drain(),
                () = &mut named, if !is_named => {
                    is_named = true;
                    self.tick_pump();
                }
                _ = tick.tick() => {
                    if is_named {
                        self.tick_pump();
                    }
                    self.snapshots.send_replace(self.snapshot());
                }
            }
        }
    }

    /// Moves the events in the ring buffer to the spool.
    pub fn drain(&mut self) {
        if let Some(pump) = &mut self.pump {
            pump.drain();
        }
    }

    /// Returns the snapshot of this moment.
    pub fn snapshot(&self) -> Snapshot {
        let kernel = self.enforcement.kernel.as_ref();
        Snapshot {
            generation: kernel.map_or(0, Kernel::generation),
            counters: kernel.and_then(|kernel| kernel.counters().ok()).unwrap_or_default(),
            policies: self.pump.as_ref().map(|pump| Arc::clone(pump.counts())).unwrap_or_default(),
        }
    }

    /// Returns whether the bundles in force ask for the end of enforcement at an orderly stop.
    pub fn is_lifted_on_stop(&self) -> bool {
        self.enforcement.live.as_ref().is_some_and(CompiledBundles::are_lifted_on_stop)
    }

    fn tick_pump(&mut self) {
        if let (Some(pump), Some(kernel)) = (&mut self.pump, &self.enforcement.kernel) {
            pump.tick(kernel, &mut self.enforcement.labelled);
        }
    }

    fn execute(&mut self, command: Command) {
        let enforcement = &mut self.enforcement;
        // An answer that nobody waits for any more is dropped.
        match command {
            Command::BeginPass(reply) => {
                let keys_differ = enforcement.reload_keys();
                enforcement.enforce_again();
                let _ = reply.send((enforcement.criteria(), keys_differ));
            }
            Command::Accept(accepted, reply) => {
                let outcome = enforcement.accept(*accepted);
                let _ = reply.send(outcome.map(|()| enforcement.criteria()));
            }
            Command::Follow(workloads, done) => {
                enforcement.follow(&workloads);
                let _ = done.send(());
            }
            Command::FindUnidentified { answers, done } => {
                enforcement.look_for_unidentified(answers);
                let _ = done.send(());
            }
            Command::WatchedLinks(reply) => {
                let _ = reply.send(enforcement.watched_links());
            }
            Command::FollowLinks(moved, done) => {
                enforcement.follow_links(&moved);
                let _ = done.send(());
            }
            Command::Report(alerts, done) => {
                if let Some(pump) = &mut self.pump {
                    pump.report(&alerts);
                }
                let _ = done.send(());
            }
        }
    }
}

async fn readable(pump: Option<&mut EventPump>) {
    match pump {
        Some(pump) => pump.readable().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::report::Reporter;

    #[test]
    fn what_other_tasks_have_may_be_used_by_any_thread() {
        fn shared<T: Send + Sync>() {}
        shared::<NodeHandle>();
        shared::<Snapshot>();
        shared::<Reporter>();
    }
}
