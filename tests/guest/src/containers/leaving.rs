//! Tests that nothing leads out of a container's rules.

use std::fs;
use std::io::{self, Write as _};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::ensure;
use armor_policy::decision::Verdict;

use super::node::{BLOCKED, FREE, Hierarchy, Node};
use super::process::{Before, EACCES, Entry, Gate, ITSELF, NOT_STARTED, run, shell, start};

pub(super) fn no_way_out(node: &mut Node) -> anyhow::Result<()> {
    let group = node.container()?;
    let root = Hierarchy::V2.path();
    for (way, expected) in [
        ("cat /t/c/secret", 1),
        ("unshare -m cat /t/c/secret", 1),
        ("nsenter -t 1 -m cat /t/c/secret", 1),
        ("setsid cat /t/c/secret", 1),
        ("(cat /t/c/secret)", 1),
        ("chroot / /usr/bin/cat /t/c/secret", 1),
        (&format!("echo $$ >{root}/cgroup.procs && cat /t/c/secret"), 1),
        (&format!("echo $$ >{root}/cgroup.procs && exec unshare -m {BLOCKED}"), NOT_STARTED),
    ] {
        let status = shell(&group, way)?;
        ensure!(status == expected, "{way}: {status}");
    }
    Ok(())
}

pub(super) fn other_names(node: &mut Node) -> anyhow::Result<()> {
    let group = node.container()?;
    for way in [
        "mount --bind /t/c/blocked /t/c/elsewhere && exec /t/c/elsewhere/true",
        "unshare -m sh -c 'mount --bind /t/c/blocked /t/c/elsewhere && exec /t/c/elsewhere/true'",
        "mv /t/c/blocked /t/c/moved",
        "exec /proc/self/root/t/c/blocked/true",
        "exec /proc/1/root/t/c/blocked/true",
    ] {
        let status = shell(&group, way)?;
        let expected = if way.starts_with("mv") { 1 } else { NOT_STARTED };
        ensure!(status == expected, "{way}: {status}");
    }
    Ok(())
}

/// Checks that no object in a container has a path once nobody is left in its entry root. A task that enters
/// later does not bring another entry root, until the container is started anew.
pub(super) fn left_namespace(node: &mut Node) -> anyhow::Result<()> {
    let group = node.container()?;
    let gate = Gate::new()?;
    let way = [ITSELF, "do", "leave-tree", gate.path];
    let first = start(&group, Entry::Attached, Before::EnterPrivileged, &way)?;
    let namespace = || fs::read_link(format!("/proc/{}/ns/mnt", first.0));
    let open_gate = gate.open()?;
    let given = namespace()?;
    (&open_gate).write_all(b"x")?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while namespace()? == given {
        ensure!(Instant::now() < deadline, "it stays where it was");
        std::thread::yield_now();
    }
    let later = run(&group, Entry::Attached, &[FREE])?;
    drop(open_gate);
    first.wait()?;
    let anew = run(&group, Entry::Attached, &[FREE])?;
    ensure!(later == EACCES, "who came in later: {later}");
    ensure!(anew == 0, "the container started anew: {anew}");
    Ok(())
}

/// Checks that a container does not get at other mount namespaces. `NS_MNT_GET_NEXT` and `NS_MNT_GET_PREV`
/// ask for no right to look at the tasks there. Kernels before 6.12 know neither.
pub(super) fn others_namespaces(node: &mut Node) -> anyhow::Result<()> {
    let group = node.container()?;
    let way = [ITSELF, "do", "namespaces-open"];
    let status = start(&group, Entry::Attached, Before::EnterPrivileged, &way)?.wait()?;
    ensure!(matches!(status, EACCES | libc::ENOTTY), "{status}");
    let own = shell(&group, "exec 3</proc/self/ns/mnt")?;
    ensure!(own == 0, "the own one: {own}");
    let socket = "/t/c/namespace";
    let offer = ["do", "offer", socket, "/proc/1/ns/mnt", "read"];
    ensure!(Command::new(ITSELF).args(offer).status()?.success(), "nobody hands it over");
    let way = [ITSELF, "do", "receive", socket, "9", "open", FREE, "path"];
    let received = start(&group, Entry::Attached, Before::EnterPrivileged, &way)?.wait()?;
    fs::remove_file(socket)?;
    ensure!(received == EACCES, "the host's, handed over: {received}");
    Ok(())
}

pub(super) fn without_path(node: &mut Node) -> anyhow::Result<()> {
    const RUNTIME: &str = "/t/c/free/runc";
    fs::copy(ITSELF, RUNTIME)?;
    node.rules_the_host = true;
    node.swap()?;
    let outcome = (|| {
        let mut events = node.enforcer.events()?;
        while !events.drain(64)?.is_empty() {}
        let start = |program: &str, who: &[&str]| {
            let words = [who, &[program, "do", "memfd-exec", FREE]].concat();
            Ok::<_, io::Error>(std::process::Command::new(words[0]).args(&words[1..]).status()?.code())
        };
        let own = start(RUNTIME, &[])?;
        ensure!(own == Some(0), "a runtime's copy of itself: {own:?}");
        ensure!(events.drain(64)?.is_empty(), "a runtime's copy of itself was reported of");
        ensure!(start(ITSELF, &[])? == Some(0), "root was refused");
        let reported = events.drain(64)?;
        ensure!(reported.len() == 1 && reported[0].decision.verdict() == Verdict::Audit, "{reported:?}");
        let other_user = start(RUNTIME, &[ITSELF, "do", "as", "1000"])?;
        ensure!(other_user == Some(EACCES), "another user, by a program named as a runtime: {other_user:?}");
        let other_place = start(RUNTIME, &["/usr/bin/unshare", "-m"])?;
        ensure!(other_place == Some(EACCES), "root in another mount namespace: {other_place:?}");
        let status = std::process::Command::new(BLOCKED).status();
        ensure!(
            status.is_err_and(|error| error.raw_os_error() == Some(EACCES)),
            "root and a rule's own path"
        );
        Ok(())
    })();
    node.rules_the_host = false;
    node.swap()?;
    outcome
}
