//! Finds preexisting handles: descriptors, mappings and running programs that processes had before the rules
//! in force, and which no hook sees again.
//!
//! Invariants:
//! - The search runs once for each set of bundles in force. It runs again if the BPF programs were loaded
//!   anew, if running containers came under rules, or if a program entered a container with descriptors that
//!   its starter had opened.
//! - If the bundle of the deciding rule says so, the process is killed, and the search is repeated until none
//!   is left, because a dying process may have passed its handles on. Process 1, this process and a pid that
//!   may have been reused are never killed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use armor_bpf::{BpfError, Event};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use crate::kernel::port::Kernel;

/// Maximum number of searches after killing.
const ROUNDS: u32 = 10;
/// Maximum number of reported handles for the same bundles; the rest is counted.
const MAX_REPORTED: usize = 1000;
/// Link text of the host's pid namespace (inode `PROC_PID_INIT_INO`, include/linux/proc_ns.h), in which the
/// kernel's pids count.
const HOST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// A `NamedSerial` is a bundle's name and serial.
pub type NamedSerial = (String, u64);

/// A `PreexistingSearch` is the progress of the search.
pub struct PreexistingSearch {
    /// Names and serials of the bundles for which the search is finished.
    finished: String,
    rounds: u32,
    /// The reported handles: process, path, and the bundle whose rule refuses them.
    reported: BTreeSet<(u32, String, Option<NamedSerial>)>,
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
        Self { finished, rounds: 0, reported: BTreeSet::new() }
    }

    /// Restarts the search because running tasks came under rules. Reported handles are not reported again.
    pub fn begin_anew(&mut self) {
        self.finished.clear();
    }

    /// Searches for handles that the live generation, which is of `bundles`, refuses. Returns `None` if the
    /// search for them is finished. `refused_by` names the bundle that decided on an event, and `kills` says
    /// whether the process of an event is to be killed. A handle is reported once for each bundle that refuses it.
    ///
    /// # Errors
    /// Fails if the kernel does not list the handles; the search counts as finished then.
    pub fn look(
        &mut self,
        kernel: &impl Kernel,
        bundles: &BTreeMap<String, u64>,
        refused_by: impl Fn(&Event) -> Option<NamedSerial>,
        kills: impl Fn(&Event) -> bool,
    ) -> Result<Option<Found>, BpfError> {
        let searched = text_of(bundles);
        if self.finished == searched {
            return Ok(None);
        }
        self.reported
            .retain(|(.., by)| by.as_ref().is_none_or(|(name, serial)| bundles.get(name) == Some(serial)));
        let mut found = Found { events: Vec::new(), more: 0, finished: true };
        let mut holders = BTreeSet::new();
        let outcome = kernel.preexisting(&mut |event| {
            let tgid = event.task.tgid;
            if !holders.contains(&tgid)
                && kills(&event)
                && end(&event)
                    .inspect_err(|error| {
                        tracing::error!(
                            pid = tgid,
                            path = event.access.object(),
                            "holds what the policies refuse and cannot be killed: {error}"
                        );
                    })
                    .is_ok()
            {
                holders.insert(tgid);
            }
            if self.reported.len() == MAX_REPORTED {
                found.more += 1;
            } else if self.reported.insert((tgid, event.access.object().to_owned(), refused_by(&event))) {
                found.events.push((event, false));
            }
        });
        for (event, killed) in &mut found.events {
            *killed = holders.contains(&event.task.tgid);
        }
        self.rounds += 1;
        if outcome.is_err() || holders.is_empty() || self.rounds == ROUNDS {
            self.finished = searched;
            self.rounds = 0;
        } else {
            found.finished = false;
        }
        outcome.map(|()| Some(found))
    }

    /// Returns the names and serials of the bundles for which the search is finished.
    pub fn finished(&self) -> &str {
        &self.finished
    }
}

fn text_of(bundles: &BTreeMap<String, u64>) -> String {
    let bundles: Vec<String> = bundles.iter().map(|(name, serial)| format!("{name} {serial}")).collect();
    bundles.join(", ")
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
