//! Tests rules for capabilities in containers, and when the program that decides them is attached.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use armor_bpf::{Enforcer, Event};

use rustix::process::{PidfdFlags, getpid, pidfd_open};

use super::node::{Node, with_rules};
use super::process::{Before, Entry, ITSELF, start};
use crate::run::PROGRAMS;

const RULES: &str =
    "capabilities: {matchCapabilities: [{capability: 'sys_admin,chown,dac_override,sys_chroot'}]}";
const CHROOT: [&str; 4] = ["/usr/sbin/chroot", "/", "/usr/bin/sh", "-c"];

/// What an overlay does in its layers is done with the rights of who mounted it, and is no use of the
/// container's. Credentials that a task of the container registered earlier are the container's.
pub(super) fn overlay(node: &mut Node) -> anyhow::Result<()> {
    for directory in ["lower", "upper", "work", "merged"] {
        fs::create_dir_all(Path::new("/t/c/overlay").join(directory))?;
    }
    fs::write("/t/c/overlay/lower/f", "x\n")?;
    fs::write("/t/c/overlay/lower/g", "x\n")?;
    let layers = "lowerdir=/t/c/overlay/lower,upperdir=/t/c/overlay/upper,workdir=/t/c/overlay/work";
    let mut mount = Command::new("/usr/bin/mount");
    let mount = mount.args(["-t", "overlay", "-o", layers, "none", "/t/c/overlay/merged"]);
    ensure!(mount.status()?.success(), "an overlay cannot be mounted");
    let outcome = with_rules(node, RULES, |node| {
        let group = node.container()?;
        let mut events = node.enforcer.events()?;
        while !events.drain(64)?.is_empty() {}
        let write = |file: &str| format!("echo more >>/t/c/overlay/merged/{file}");
        let written =
            start(&group, Entry::Attached, Before::EnterBounded, &["/usr/bin/sh", "-c", &write("f")])?;
        ensure!(written.wait()? == 0, "a container cannot write through an overlay");
        let reported: Vec<Event> = events.drain(64)?;
        ensure!(reported.is_empty(), "{reported:?}");
        let registered = [ITSELF, "do", "uring-set-xattr", "/t/c/overlay/upper/f", "trusted.x"];
        let registered = start(&group, Entry::Attached, Before::EnterBounded, &registered)?.wait()?;
        ensure!(registered == libc::EPERM, "registered credentials: {registered}");
        // Its rights are those of who mounted the overlay, so nothing tells them apart.
        let privileged = ["/usr/bin/sh", "-c", &write("g")];
        let privileged = start(&group, Entry::Attached, Before::EnterPrivileged, &privileged)?.wait()?;
        ensure!(privileged != 0, "a privileged container writes with rights that are refused to it");
        Ok(())
    });
    let unmounted = Command::new("/usr/bin/umount").arg("/t/c/overlay/merged").status()?;
    ensure!(unmounted.success(), "the overlay cannot be unmounted");
    fs::remove_dir_all("/t/c/overlay")?;
    outcome
}

/// Rules of the host that refuse what it takes to attach do not keep the next agent from it.
pub(super) fn next_agent(node: &mut Node) -> anyhow::Result<()> {
    node.rules_the_host = true;
    let outcome = with_rules(node, "capabilities: {matchCapabilities: [{capability: sys_admin}]}", |node| {
        let directory = Path::new(PROGRAMS);
        ensure!(Enforcer::attach(Some(directory)).is_err(), "the host's rules refuse nothing");
        armor_bpf::exempt_from_pinned(directory)?;
        node.enforcer = Enforcer::attach(Some(directory))?;
        ensure!(node.enforcer.took_over(), "not taken over");
        node.rules_the_host = false;
        node.swap()?;
        let this = pidfd_open(getpid(), PidfdFlags::empty())?;
        Ok(node.enforcer.unlabel(this.as_fd())?)
    });
    node.rules_the_host = false;
    outcome
}

/// The program of the hook is attached while rules need it, under one agent and the next.
pub(super) fn on_demand(node: &mut Node) -> anyhow::Result<()> {
    let pin = || -> anyhow::Result<PathBuf> {
        let version = fs::read_dir(PROGRAMS)?.next().context("nothing is pinned")??.path();
        Ok(version.join("links/capable"))
    };
    ensure!(!pin()?.exists(), "attached without rules that need it");
    with_rules(node, RULES, |node| {
        let group = node.container()?;
        let refused = |what: &str| {
            let ended =
                start(&group, Entry::Attached, Before::EnterBounded, &[&CHROOT[..], &["exit 7"]].concat())?;
            let ended = ended.wait()?;
            ensure!(ended == 125, "{what}: {ended}");
            Ok(())
        };
        ensure!(pin()?.exists(), "not attached though rules need it");
        refused("after the swap")?;
        node.enforcer = Enforcer::attach(Some(Path::new(PROGRAMS)))?;
        ensure!(node.enforcer.took_over(), "not taken over");
        refused("under the next agent")?;
        node.swap()?;
        refused("after its swap")?;
        fs::remove_file(pin()?)?;
        node.swap()?;
        refused("after its pin was gone")?;
        Ok(())
    })?;
    ensure!(!pin()?.exists(), "still attached though no rules need it");
    // The kernel takes time to end a program whose last pin is gone. Without rules it permits.
    let group = node.container()?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while start(&group, Entry::Attached, Before::EnterBounded, &[&CHROOT[..], &["exit 7"]].concat())?
        .wait()?
        != 7
    {
        ensure!(Instant::now() < deadline, "refused without rules");
    }
    Ok(())
}
