//! Tests what becomes of enforcement when generations, domains and versions follow one another.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use armor_bpf::{Access, Enforcer, Event};

use super::node::{BLOCKED, FREE, Hierarchy, Node, POLICY, compiled};
use super::process::{Before, EACCES, Entry, Gate, run, shell, start};
use crate::run::PROGRAMS;

/// Number of swaps to each of two generations.
const SWAPS: i32 = 25;

pub(super) fn swaps(node: &mut Node) -> anyhow::Result<()> {
    // Both generations block the secret, and one of them also the other file.
    let mut other =
        compiled(&POLICY.replace("[{path: /t/c/secret}]", "[{path: /t/c/flips}, {path: /t/c/secret}]"))?;
    let group = node.container()?;
    fs::write("/t/c/flips", "x\n")?;
    let script = "opens=0; until [ -e /t/c/over ]; do { ! read x </t/c/secret; } 2>/dev/null || exit 1; opens=$((opens + 1)); done
        [ $opens -gt 0 ]";
    let reader = start(&group, Entry::Attached, Before::Enter, &["/usr/bin/sh", "-c", script])?;
    let mut outcome = Ok(());
    for turn in 1..=2 * SWAPS {
        std::mem::swap(&mut node.domain, &mut other);
        outcome = node.swap().and_then(|()| {
            let found = run(&group, Entry::Attached, &["/usr/bin/cat", "/t/c/flips"])?;
            ensure!(
                found == turn % 2,
                "after swap {turn}, in which the file is blocked if that is odd: {found}"
            );
            Ok(())
        });
        if outcome.is_err() {
            break;
        }
    }
    fs::write("/t/c/over", "")?;
    let status = reader.wait()?;
    outcome?;
    ensure!(status == 0, "who opens the secret all the time ended with {status}");
    fs::remove_file("/t/c/over")?;
    Ok(fs::remove_file("/t/c/flips")?)
}

pub(super) fn number_again(node: &mut Node) -> anyhow::Result<()> {
    for _ in 0..3 {
        let group = node.container()?;
        // Only this container shows this filesystem: with the entry root of the one before, its files would
        // have no canonical path.
        let status = shell(
            &group,
            "mount -t tmpfs none /t/c/elsewhere && cp /t/c/free/true /t/c/elsewhere/ && /t/c/elsewhere/true",
        )?;
        ensure!(status == 0, "a filesystem of its own: {status}");
        let status = run(&group, Entry::Attached, &[BLOCKED])?;
        ensure!(status == EACCES, "{status}");
        let id = node.known.pop().context("none is known")?;
        node.enforcer.remove_container(id)?;
        let status = run(&group, Entry::Attached, &[BLOCKED])?;
        if status != 0 {
            bail!("a container that is gone still counts: {status}");
        }
    }
    Ok(())
}

/// Replaces the programs as an upgrade does: the existing pins become another version's.
pub(super) fn another_version(node: &mut Node) -> anyhow::Result<()> {
    let group = node.container()?;
    let gate = Gate::new()?;
    let script = format!("echo $$ >{}/cgroup.procs; {}; cat /t/c/secret", Hierarchy::V2.path(), gate.wait);
    let waits = start(&group, Entry::Attached, Before::Enter, &["/usr/bin/sh", "-c", &script])?;
    let open_gate = gate.open()?;
    let mut events = node.enforcer.events()?;
    while !events.drain(64)?.is_empty() {}
    drop(events);
    let blocked = run(&group, Entry::Attached, &[BLOCKED])?;
    ensure!(blocked == EACCES, "{blocked}");
    let counted = node.enforcer.counters()?.blocked;

    let pins: Vec<PathBuf> =
        fs::read_dir(PROGRAMS)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    ensure!(pins.len() == 1, "{pins:?}");
    let name = pins[0].file_name().and_then(|name| name.to_str()).context("no name")?;
    let (abi, _) = name.split_once('-').context("no version")?;
    fs::rename(&pins[0], Path::new(PROGRAMS).join(format!("{abi}-{}", "0".repeat(16))))?;
    node.enforcer = Enforcer::attach(Some(Path::new(PROGRAMS)))?;
    ensure!(!node.enforcer.took_over() && node.enforcer.leftovers()?.is_empty(), "both must enforce for now");
    ensure!(node.enforcer.containers()?.len() == 1, "containers are not known any more");
    node.swap()?;

    (&open_gate).write_all(b"go\n")?;
    let status = waits.wait()?;
    ensure!(status == 1, "a task that left its control group before: {status}");
    let status = run(&group, Entry::Cloned, &[BLOCKED])?;
    ensure!(status == EACCES, "a program that is started after: {status}");

    let mut leftovers = node.enforcer.leftovers()?;
    let leftover = leftovers.pop().context("nothing is left")?;
    let reported = leftover.events()?.context("the same version cannot read it")?.drain(64)?;
    let is_blocked = |event: &Event| matches!(&event.access, Access::Path(access) if access.path == BLOCKED);
    ensure!(reported.len() == 1 && is_blocked(&reported[0]), "{reported:?}");
    ensure!(leftover.counters()?.is_some_and(|counters| counters.blocked == counted), "counted otherwise");
    leftover.remove()?;
    ensure!(fs::read_dir(PROGRAMS)?.count() == 1, "the other version is still there");
    Ok(())
}

/// Removes pins, as somebody may do while no agent runs.
pub(super) fn pins_gone(node: &mut Node) -> anyhow::Result<()> {
    let group = node.container()?;
    for pin in ["links/bprm_check_security", "judges/bprm_check_security", "programs/settle_undecided"] {
        let version = fs::read_dir(PROGRAMS)?.next().context("nothing is pinned")??.path();
        fs::remove_file(version.join(pin)).with_context(|| pin)?;
        node.enforcer = Enforcer::attach(Some(Path::new(PROGRAMS)))?;
        ensure!(!node.enforcer.took_over(), "{pin}: taken over");
        ensure!(node.enforcer.containers()?.len() == 1, "{pin}: containers are not known any more");
        node.swap()?;
        // The kernel takes time to end programs whose last pin is gone. Without a judge they refuse
        // everything until then.
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut ended = (0, 0);
        while ended != (EACCES, 0) {
            ensure!(Instant::now() < deadline, "{pin}: {ended:?}");
            ended = (run(&group, Entry::Attached, &[BLOCKED])?, run(&group, Entry::Attached, &[FREE])?);
            ensure!(ended.0 == EACCES, "{pin}: what is blocked ended with {}", ended.0);
        }
        node.enforcer.leftovers()?.into_iter().try_for_each(armor_bpf::Leftover::remove)?;
        ensure!(fs::read_dir(PROGRAMS)?.count() == 1, "{pin}: what was there before is still there");
    }
    Ok(())
}
