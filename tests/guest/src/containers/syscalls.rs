//! Tests that system calls are reported while rules name them, under one agent and the next.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use armor_bpf::{Access, Enforcer};

use super::node::{FREE, Node, with_rules};
use super::process::{Before, Entry, start};
use crate::run::PROGRAMS;

pub(super) fn on_demand(node: &mut Node) -> anyhow::Result<()> {
    let pins = || -> anyhow::Result<Vec<PathBuf>> {
        let version = fs::read_dir(PROGRAMS)?.next().context("nothing is pinned")??.path();
        let links = fs::read_dir(version.join("links"))?.map(|entry| Ok(entry?.path()));
        let mut links = links.collect::<std::io::Result<Vec<PathBuf>>>()?;
        links.retain(|link| {
            link.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"syscall-"))
        });
        Ok(links)
    };
    ensure!(pins()?.is_empty(), "attached without rules that need it");
    let rules = "syscalls: {matchSyscalls: [{syscall: [execve, exit_group]}]}";
    with_rules(node, rules, |node| {
        let group = node.container()?;
        let seen = |node: &Node, what: &str| {
            let mut events = node.enforcer.events()?;
            while !events.drain(64)?.is_empty() {}
            // The call that brings it into the container begins outside.
            ensure!(start(&group, Entry::Attached, Before::EnterBounded, &[FREE])?.wait()? == 0, "{what}");
            let events = events.drain(64)?;
            let calls: Vec<&Access> = events.iter().map(|event| &event.access).collect();
            ensure!(
                matches!(calls[..], [Access::Syscall(of)] if of.call == "exit_group"),
                "{what}: {calls:?}"
            );
            Ok(())
        };
        ensure!(!pins()?.is_empty(), "not attached though rules need it");
        seen(node, "after the swap")?;
        node.enforcer = Enforcer::attach(Some(Path::new(PROGRAMS)))?;
        ensure!(node.enforcer.took_over(), "not taken over");
        seen(node, "under the next agent")?;
        node.swap()?;
        seen(node, "after its swap")?;
        pins()?.iter().try_for_each(fs::remove_file)?;
        node.swap()?;
        seen(node, "after its pins were gone")
    })?;
    ensure!(pins()?.is_empty(), "still attached though no rules need it");
    Ok(())
}
