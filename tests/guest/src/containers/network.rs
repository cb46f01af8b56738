//! Tests rules for sockets in containers.

use std::fs;
use std::io::Write as _;

use anyhow::ensure;
use armor_bpf::{Access, Hook};

use super::node::{Hierarchy, Node, with_rules};
use super::process::{Before, Entry, Gate, ITSELF, start};

const RULES: &str = "network: {matchProtocols: [{protocol: tcp}]}";

/// A socket that a container's process has from before its rules is found, and cannot be used any more.
pub(super) fn sockets_from_before(node: &mut Node) -> anyhow::Result<()> {
    let id = node.id();
    let group = node.group(Hierarchy::V2, &format!("docker-{id}.scope"))?;
    let gate = Gate::new()?;
    let script = format!("{}; exec {ITSELF} do fd-connect 9 127.0.0.1:1", gate.wait);
    let holder = [ITSELF, "do", "with-socket", "9", "inet:stream:0", "/usr/bin/sh", "-c", &script];
    let holder = start(&group, Entry::Attached, Before::Enter, &holder)?;
    let open_gate = gate.open()?;
    with_rules(node, RULES, |node| {
        node.add(&id, 1)?;
        let labelled = node.enforcer.label_running()?;
        ensure!(labelled.domains.contains(&1), "{labelled:?}");
        let mut found = Vec::new();
        node.enforcer.preexisting(|event| {
            if let Access::Socket(access) = event.access {
                found.push((event.hook, event.task.tgid, access.socket, access.descriptor));
            }
        })?;
        let socket = "protocol=TCP type=SOCK_STREAM".to_owned();
        ensure!(found == [(Hook::PreexistingFile, holder.0 as u32, socket, Some(9))], "{found:?}");
        (&open_gate).write_all(b"go\n")?;
        let ended = holder.wait()?;
        ensure!(ended == libc::EACCES, "a socket from before its rules: {ended}");
        Ok(())
    })?;
    Ok(fs::remove_file(gate.path)?)
}
