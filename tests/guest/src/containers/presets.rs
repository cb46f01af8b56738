//! Tests the preset `exec`: programs that are started in a running container from outside, with a terminal.

use std::fs;
use std::io::Write as _;

use anyhow::ensure;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::executable::new_terminal;

use super::node::{FREE, Node, with_rules};
use super::process::{Before, EACCES, Entry, Gate, ITSELF, start};

const TERMINALS: &str = "/t/c/terminals";

/// The container's own programs may have a terminal, and programs from outside may start without one.
pub(super) fn sessions(node: &mut Node) -> anyhow::Result<()> {
    fs::create_dir_all(TERMINALS)?;
    mount("none", TERMINALS, "devpts", MountFlags::empty(), Some(c"ptmxmode=0666,mode=0666"))?;
    let outcome = with_rules(node, "presets: [{name: exec}]", |node| {
        let group = node.container()?;
        let gate = Gate::new()?;
        let (_own, own) = new_terminal(TERMINALS)?;
        let (_other, other) = new_terminal(TERMINALS)?;
        let script = format!("{FREE} && {} && {FREE}", gate.wait);
        let first = [ITSELF, "do", "with-terminal", &own, "/usr/bin/sh", "-c", &script];
        let first = start(&group, Entry::Attached, Before::EnterBounded, &first)?;
        let mut open_gate = gate.open()?;
        let session = |words: &[&str]| start(&group, Entry::Attached, Before::EnterBounded, words)?.wait();
        let plain = session(&[FREE])?;
        ensure!(plain == 0, "a program from outside without a terminal: {plain}");
        let with = session(&[ITSELF, "do", "with-terminal", &other, FREE])?;
        ensure!(with == EACCES, "a program from outside with a terminal: {with}");
        let child = format!("{ITSELF} do with-terminal {other} {FREE}; exit $?");
        let child = session(&["/usr/bin/sh", "-c", &child])?;
        ensure!(child == EACCES, "what a program from outside starts: {child}");
        writeln!(open_gate)?;
        let own = first.wait()?;
        ensure!(own == 0, "the container's own programs with a terminal: {own}");
        Ok(())
    });
    unmount(TERMINALS, UnmountFlags::DETACH)?;
    outcome
}
