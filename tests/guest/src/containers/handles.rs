//! Tests what is found of the handles that tasks bring into a container.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;

use anyhow::ensure;
use armor_bpf::Access;

use super::node::{BLOCKED, Node};
use super::process::{Before, EACCES, Entry, Gate, run, shell, start};

/// Returns the handles that tasks hold and may not have: process, path, descriptor.
pub(super) fn held(node: &Node) -> anyhow::Result<Vec<(u32, String, Option<u32>)>> {
    let mut found = Vec::new();
    node.enforcer.preexisting(|event| {
        let Access::Path(access) = event.access else { return };
        found.push((event.task.tgid, access.path, access.descriptor));
    })?;
    Ok(found)
}

pub(super) fn brought_along(node: &mut Node) -> anyhow::Result<()> {
    let group = node.container()?;
    // A descriptor of the runtime that is closed when the program starts, and one that it forgot to close so.
    let own = File::open("/t/c/secret")?;
    let forgotten = rustix::fs::open("/t/c/secret", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty())?;
    for (entry, entered) in [(Entry::Attached, 1), (Entry::Cloned, 2)] {
        let before = node.enforcer.counters()?.entered;
        ensure!(held(node)?.is_empty(), "under no rules");
        let gate = Gate::new()?;
        let started = start(&group, entry, Before::Enter, &["/usr/bin/sh", "-c", &gate.wait])?;
        let open_gate = gate.open()?;
        let found = held(node)?;
        let tgid = u32::try_from(started.0)?;
        let number = Some(u32::try_from(forgotten.as_raw_fd())?);
        ensure!(found == [(tgid, "/t/c/secret".to_owned(), number)], "entry {entered}: {found:?}");
        ensure!(node.enforcer.counters()?.entered == before + 1, "not counted, or more than once");
        (&open_gate).write_all(b"go\n")?;
        started.wait()?;
    }
    drop((own, forgotten));
    // A program that cannot be started does not count as an entry, nor does one that is started inside.
    let before = node.enforcer.counters()?.entered;
    ensure!(run(&group, Entry::Attached, &[BLOCKED])? == EACCES, "the blocked program was started");
    ensure!(shell(&group, "/usr/bin/true; unshare -m /usr/bin/true")? == 0, "a free program was not started");
    let entered = node.enforcer.counters()?.entered - before;
    ensure!(entered == 1, "{entered} entered");
    Ok(())
}
