//! Tests that the agent's process, files, programs and maps are its own.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Child, Command};

use anyhow::{Context as _, ensure};
use armor_bpf::{EXEMPT_DOMAIN, Events, Guard, HOST_DOMAIN};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::node::{Hierarchy, Node, UNRULED};
use super::process::{Before, Entry, start};
use crate::run::PROGRAMS;

/// An `Agent` is a process that the kernel side takes for an agent.
struct Agent(Child);

impl Agent {
    pub(super) fn start(node: &Node, files: &[&Path]) -> anyhow::Result<Self> {
        let agent = Self(Command::new("/usr/bin/sleep").arg("600").spawn()?);
        node.enforcer.guard_agent(files)?;
        let process = pidfd_open(Pid::from_child(&agent.0), PidfdFlags::empty())?;
        node.enforcer.label(process.as_fd(), EXEMPT_DOMAIN)?;
        Ok(agent)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // The process may have ended, which the test then reports.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Checks that the agent's guard reported a refusal in each of these domains, or counted one that it did not
/// report.
fn ensure_reported(
    node: &Node,
    events: &mut Events,
    domains: &[u32],
    suppressed: u64,
    script: &str,
) -> anyhow::Result<()> {
    node.enforcer.settle()?;
    let mut reported = BTreeSet::new();
    loop {
        let some = events.drain(64)?;
        if some.is_empty() {
            break;
        }
        reported.extend(
            some.iter().filter(|event| event.guard() == Some(Guard::Agent)).map(|event| event.domain),
        );
    }
    let is_reported = domains.iter().all(|domain| reported.contains(domain));
    ensure!(
        is_reported || node.enforcer.counters()?.suppressed > suppressed,
        "{script}: reported in domains {reported:?} alone"
    );
    Ok(())
}

/// Runs `script` in a container and outside of all. It must fail in the container alone, with at least one
/// alert that names the container's domain.
fn only_outside(node: &mut Node, domain: u32, script: &str) -> anyhow::Result<()> {
    let id = node.id();
    node.add(&id, domain)?;
    let group = node.group(Hierarchy::V2, &format!("docker-{id}.scope"))?;
    let script = format!("access() {{ armor-guest-tests do \"$@\"; }}; {script}");
    let mut events = node.enforcer.events()?;
    while !events.drain(64)?.is_empty() {}
    let suppressed = node.enforcer.counters()?.suppressed;
    let inside =
        start(&group, Entry::Attached, Before::EnterPrivileged, &["/usr/bin/sh", "-c", &script])?.wait()?;
    ensure!(inside != 0, "{script}: not refused in domain {domain}");
    ensure_reported(node, &mut events, &[domain], suppressed, &script)?;
    let outside = Command::new("/usr/bin/sh").args(["-c", &script]).status()?;
    ensure!(outside.success(), "{script}: {outside} outside of all containers");
    Ok(())
}

pub(super) fn agents_own(node: &mut Node) -> anyhow::Result<()> {
    let state = Path::new("/t/c/agent/state");
    fs::create_dir_all(state.join("trust"))?;
    fs::write(state.join("trust/key"), "key\n")?;
    let program = Path::new("/t/c/agent/program");
    fs::copy("/usr/bin/busybox", program)?;
    for domain in [1, UNRULED] {
        let agent = Agent::start(node, &[state, program])?;
        let pid = agent.0.id();
        for script in [
            "echo other >>/t/c/agent/state/trust/key",
            "echo new >/t/c/agent/state/new && rm /t/c/agent/state/new",
            "mkdir /t/c/agent/state/d && rmdir /t/c/agent/state/d",
            "mv /t/c/agent/state/trust /t/c/agent/state/t && mv /t/c/agent/state/t /t/c/agent/state/trust",
            "mv /t/c/agent /t/c/moved && mv /t/c/moved /t/c/agent",
            "ln /t/c/agent/state/trust/key /t/c/agent/key && rm /t/c/agent/key",
            "chmod 640 /t/c/agent/state/trust/key",
            "access truncate /t/c/agent/state/trust/key",
            "cp /usr/bin/busybox /t/c/agent/program",
            "mkdir -p /t/c/over; mount --bind /t/c/over /t/c/agent/state && umount /t/c/agent/state",
            "access set-xattr /t/c/agent/state/trust/key trusted.a",
            "access set-times /t/c/agent/state/trust/key",
            "access fanotify-permission /t/c/agent/state/trust",
            "mkdir -p /t/c/w /t/c/l /t/c/m && \
             mount -t overlay -o lowerdir=/t/c/l,upperdir=/t/c/agent,workdir=/t/c/w none /t/c/m && \
             touch /t/c/m/state/new && rm /t/c/m/state/new && umount /t/c/m",
        ] {
            only_outside(node, domain, script)?;
        }
        for script in [
            format!("access ptrace {pid}"),
            format!("access vm-read {pid}"),
            format!("access pidfd-getfd {pid} 0"),
            format!("access prlimit {pid}"),
            format!("renice -n 1 -p {pid}"),
            format!("access ioprio {pid}"),
            format!(
                "echo 10 >/proc/{own}/oom_score_adj && echo 0 >/proc/{own}/oom_score_adj",
                own = std::process::id()
            ),
            format!("kill -CONT {pid}"),
            format!("kill -KILL {pid}"),
        ] {
            only_outside(node, domain, &script)?;
        }
    }
    Ok(())
}

pub(super) fn programs_and_maps(node: &mut Node) -> anyhow::Result<()> {
    // The same program under an agent's name, which is let in: this shows that the method works.
    let agent = "/run/armor-guest-tests/hzn-armor-agent do";
    let pins = fs::read_dir(PROGRAMS)?.next().context("nothing is pinned")??.path();
    let pins = pins.display();
    let ways = [
        "bpf-id map labels".to_owned(),
        "bpf-id map image".to_owned(),
        "bpf-id map events".to_owned(),
        "bpf-id program ANY".to_owned(),
        "bpf-id link ANY".to_owned(),
        format!("bpf-pin {pins}/maps/labels {PROGRAMS}/again"),
        format!("bpf-pin {pins}/maps/live {PROGRAMS}/again"),
        format!("bpf-pin {pins}/links/file_open {PROGRAMS}/again"),
        format!("bpf-pin {pins}/programs/label_tasks {PROGRAMS}/again"),
    ];
    for way in &ways {
        only_outside(node, 1, &format!("{agent} {way}"))?;
        // In a privileged container without rules the agent's program counts as an agent, as in the agent's
        // own container.
        let other = format!("armor-guest-tests do {way}");
        // On the host every process may get a descriptor of a program.
        if way.starts_with("bpf-id program") {
            only_outside(node, UNRULED, &other)?;
        } else {
            refused_everywhere(node, UNRULED, &other)?;
        }
    }
    for domain in [1, UNRULED] {
        for script in [
            format!("mkdir {PROGRAMS}/new"),
            format!("rm {pins}/links/file_open"),
            format!("mv {pins} {PROGRAMS}/moved"),
            format!("mv {PROGRAMS} /sys/fs/bpf/moved"),
            format!("chmod 700 {pins}"),
            format!("mkdir -p /t/c/over; mount --bind /t/c/over {pins}"),
            "umount /sys/fs/bpf".to_owned(),
        ] {
            refused_everywhere(node, domain, &script)?;
        }
    }
    Ok(())
}

/// Checks what only an agent may do: each try is refused and reported, in a container and outside of all.
fn refused_everywhere(node: &mut Node, domain: u32, script: &str) -> anyhow::Result<()> {
    let id = node.id();
    node.add(&id, domain)?;
    let group = node.group(Hierarchy::V2, &format!("docker-{id}.scope"))?;
    let mut events = node.enforcer.events()?;
    while !events.drain(64)?.is_empty() {}
    let suppressed = node.enforcer.counters()?.suppressed;
    let inside =
        start(&group, Entry::Attached, Before::EnterPrivileged, &["/usr/bin/sh", "-c", script])?.wait()?;
    let outside = Command::new("/usr/bin/sh").args(["-c", script]).status()?;
    ensure!(inside != 0 && !outside.success(), "{script}: {inside} inside, {outside} outside");
    ensure_reported(node, &mut events, &[domain, HOST_DOMAIN], suppressed, script)
}
