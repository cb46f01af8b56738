//! Finds preexisting handles: descriptors, mappings and running programs that processes had before the rules
//! in force, and which no hook sees again.
//!
//! Invariants:
//! - The search runs once whenever the bundles change. It runs again if the BPF programs were loaded anew, if running
//!   containers came under rules, or if a program entered a container with descriptors that its starter had
//!   opened.
//! - If the bundle of the rule says so, the processes are killed and the search is repeated until none is left, because a
//!   dying process may have passed its handles on. Process 1, this process and a pid that may have been
//!   reused are never killed.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use armor_bpf::{Access, BpfError, Event};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use crate::kernel::port::Kernel;

/// Maximum number of searches after killing.
const ROUNDS: u32 = 10;
/// Maximum number of reported handles for the same bundles; the rest is counted.
const MAX_REPORTED: usize = 1000;
/// Link text of the host's pid namespace (inode `PROC_PID_INIT_INO`, include/linux/proc_ns.h), in which the
/// kernel's pids count.
const HOST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// A `PreexistingSearch` is the progress of the search.
pub struct PreexistingSearch {
    /// The bundles for which the search is finished.
    finished: String,
    rounds: u32,
    /// The reported handles of the bundles `reported_for`: process, path and rule.
    reported: BTreeSet<(u32, String, u32)>,
    reported_for: String,
}

/// `Found` is the result of one search, without handles that were already reported.
pub struct Found {
    /// Each event, with whether its process was killed.
    pub events: Vec<(Event, bool)>,
    /// Number of handles beyond [`MAX_REPORTED`].
    pub more: u64,
    /// True if the search for these bundles is finished.
    pub finished: bool,
}

impl PreexistingSearch {
    /// Creates a search that is finished for the bundles `finished`.
    pub fn new(finished: String) -> Self {
        Self { reported_for: finished.clone(), finished, rounds: 0, reported: BTreeSet::new() }
    }

    /// Restarts the search because running tasks came under rules. Reported handles are not reported again.
    pub fn begin_anew(&mut self) {
        self.finished.clear();
    }

    /// Searches for handles that the live generation, which is of `bundles`, refuses. Returns `None` if the
    /// search for them is finished. `kills` says whether the process of an event is to be killed.
    ///
    /// # Errors
    /// Fails if the kernel does not list the handles; the search counts as finished then.
    pub fn look(
        &mut self,
        kernel: &impl Kernel,
        bundles: &str,
        kills: impl Fn(&Event) -> bool,
    ) -> Result<Option<Found>, BpfError> {
        if self.finished == bundles {
            return Ok(None);
        }
        if self.reported_for != bundles {
            bundles.clone_into(&mut self.reported_for);
            self.reported.clear();
        }
        let mut found = Found { events: Vec::new(), more: 0, finished: true };
        let mut holders = BTreeSet::new();
        let outcome = kernel.preexisting(&mut |event| {
            let Access::Path(access) = &event.access;
            let tgid = event.task.tgid;
            let killed = holders.contains(&tgid)
                || (kills(&event)
                    && end(&event)
                        .inspect_err(|error| {
                            tracing::error!(
                                pid = tgid,
                                path = access.path,
                                "holds what the policies refuse and cannot be killed: {error}"
                            );
                        })
                        .is_ok());
            if killed {
                holders.insert(tgid);
            }
            if self.reported.len() == MAX_REPORTED {
                found.more += 1;
            } else if self.reported.insert((tgid, access.path.clone(), event.decision.rule())) {
                found.events.push((event, killed));
            }
        });
        self.rounds += 1;
        if outcome.is_err() || holders.is_empty() || self.rounds == ROUNDS {
            bundles.clone_into(&mut self.finished);
            self.rounds = 0;
        } else {
            found.finished = false;
        }
        outcome.map(|()| Some(found))
    }
}

/// Kills the process of an event. A process that is already gone counts as killed.
fn end(event: &Event) -> io::Result<()> {
    let refuse = |reason: &str| Err(io::Error::other(reason.to_owned()));
    let own = fs::read_link("/proc/self/ns/pid")?;
    if own.as_os_str() != HOST_PID_NAMESPACE {
        return refuse("the agent is not in the host's pid namespace");
    }
    let Some(pid) = i32::try_from(event.task.tgid).ok().and_then(Pid::from_raw) else {
        return refuse("it has no number");
    };
    if pid == Pid::INIT || pid == getpid() {
        return refuse("it is process 1 or the agent");
    }
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    // The pid was reused by a process that began after the event.
    if began(&fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))?)
        .is_none_or(|began_ns| began_ns > event.time_ns)
    {
        return Ok(());
    }
    match pidfd_send_signal(&process, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Returns the start time of a process, CLOCK_BOOTTIME in nanoseconds, from its `/proc/<pid>/stat` (field 22,
/// in clock ticks).
fn began(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    Some(ticks * (1_000_000_000 / rustix::param::clock_ticks_per_second()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_process_is_read_whatever_it_is_called() {
        let rest = (3..=21).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let second = rustix::param::clock_ticks_per_second();
        assert_eq!(began(&format!("7 (a) b) 1) {rest} {second} 0 0\n")), Some(1_000_000_000));
        assert_eq!(began("7 (x"), None);
        let own = began(&fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        assert!(own > 0 && own <= now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64);
    }
}
