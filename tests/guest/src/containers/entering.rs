//! Tests which programs and tasks come under a container's rules, and when.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use armor_bpf::{ContainerId, UNIDENTIFIED_DOMAIN};

use super::handles::held;
use super::node::{BLOCKED, FREE, Hierarchy, Node, UNRULED};
use super::process::{Before, EACCES, Entry, Gate, ITSELF, NOT_STARTED, Started, clone, run, start};

/// Group names as runtimes write them.
const NAMES: [fn(&str) -> String; 5] = [
    |id| format!("docker-{id}.scope"),
    str::to_owned,
    |id| format!("libpod-{id}.scope"),
    |id| format!("libpod-payload-{id}"),
    |id| format!("cri-containerd-{id}.scope"),
];

pub(super) fn first_programs(node: &mut Node) -> anyhow::Result<()> {
    let ways =
        [(Hierarchy::V2, Entry::Attached), (Hierarchy::V2, Entry::Cloned), (Hierarchy::V1, Entry::Attached)];
    let mut leaks = 0;
    let mut number = 0;
    for round in 0..100 {
        for (hierarchy, entry) in ways {
            number += 1;
            let id = node.id();
            node.add(&id, number)?;
            let group = node.group(hierarchy, &NAMES[round % NAMES.len()](&id))?;
            let blocked = run(&group, entry, &[BLOCKED])?;
            let free = run(&group, entry, &[FREE])?;
            ensure!(free == 0, "a program that no rule names ended with {free}");
            ensure!(blocked == 0 || blocked == EACCES, "the blocked program ended with {blocked}");
            leaks += usize::from(blocked == 0);
        }
    }
    ensure!(leaks == 0, "{leaks} of {number} containers started what they must not");
    Ok(())
}

pub(super) fn five_hundred(node: &mut Node) -> anyhow::Result<()> {
    let mut groups = Vec::new();
    for number in 1..=500 {
        let id = node.id();
        node.add(&id, number)?;
        groups.push(node.group(Hierarchy::V2, &format!("docker-{id}.scope"))?);
    }
    let mut started = Vec::new();
    for (at, group) in groups.iter().enumerate() {
        let entry = if at % 2 == 0 { Entry::Attached } else { Entry::Cloned };
        started.push(start(group, entry, Before::Enter, &[BLOCKED])?);
    }
    for (at, process) in started.iter().enumerate() {
        let status = process.wait()?;
        ensure!(status == EACCES, "container {at} of 500 ended with {status}");
    }
    Ok(())
}

pub(super) fn unknown(node: &mut Node) -> anyhow::Result<()> {
    let id = node.id();
    node.add(&id, 1)?;
    let unidentified = node.id();
    for name in [
        format!("docker-{unidentified}.scope"),
        format!("docker-{}.scope", &id[1..]),
        format!("docker-{id}0.scope"),
        format!("docker-{id}x"),
        format!("docker{id}.scope"),
        format!("docker-{}.scope", id.to_uppercase()),
        format!("{}-{id}", "x".repeat(70)),
        "plain".to_owned(),
    ] {
        let group = node.group(Hierarchy::V2, &name)?;
        let status = run(&group, Entry::Attached, &[BLOCKED])?;
        ensure!(status == 0, "{name}: {status}");
    }
    let group = node.group(Hierarchy::V2, &format!("a-b-{id}.scope"))?;
    let status = run(&group, Entry::Attached, &[BLOCKED])?;
    ensure!(status == EACCES, "the id itself: {status}");
    Ok(())
}

pub(super) fn unidentified(node: &mut Node) -> anyhow::Result<()> {
    node.rules_unidentified = true;
    node.swap()?;
    let before = node.enforcer.counters()?.unidentified;
    let mut events = node.enforcer.events()?;
    while !events.drain(64)?.is_empty() {}
    let ways =
        [(Hierarchy::V2, Entry::Attached), (Hierarchy::V2, Entry::Cloned), (Hierarchy::V1, Entry::Attached)];
    for (hierarchy, entry) in ways {
        let id = node.id();
        let group = node.group(hierarchy, &format!("docker-{id}.scope"))?;
        let blocked = run(&group, entry, &[BLOCKED])?;
        ensure!(blocked == EACCES, "the first program of one that is not known: {blocked}");
        let reported = events.drain(64)?;
        ensure!(
            matches!(&reported[..], [event] if event.task.container.map(|id| id.to_string()) == Some(id)),
            "an alert says which container it was: {reported:?}"
        );
        ensure!(run(&group, entry, &[FREE])? == 0, "a program that no rule names");
    }
    let id = node.id();
    let privileged = node.group(Hierarchy::V2, &format!("docker-{id}.scope"))?;
    let agents = start(&privileged, Entry::Attached, Before::EnterPrivileged, &[BLOCKED])?.wait()?;
    ensure!(agents == 0, "one that may be the agent's own: {agents}");
    let plain = node.group(Hierarchy::V2, "plain")?;
    ensure!(run(&plain, Entry::Attached, &[BLOCKED])? == 0, "no container");
    ensure!(node.enforcer.counters()?.unidentified - before == 6, "each is counted");

    // A runtime's process that runs from memory, in a known container. It waits below for longer than it
    // takes until a process would be taken for the container's own.
    let group = node.container()?;
    let prepared = Gate::new()?;
    let memfd = ["do", "memfd-exec", ITSELF, "do", "prepare"];
    let words = [
        group.join("cgroup.procs").display().to_string(),
        prepared.path.to_owned(),
        "/t/c/secret".to_owned(),
    ];
    let mut runtime = Command::new(ITSELF).args(memfd).args(words).spawn()?;
    let start_it = prepared.open()?;

    // Once named, the container with rules is still refused, the one without rules is not.
    let read = "cat /t/c/secret";
    let mut waiting = Vec::new();
    for (number, expected) in [(1, 1), (UNRULED, 0)] {
        let id = node.id();
        let group = node.group(Hierarchy::V2, &format!("docker-{id}.scope"))?;
        let gate = Gate::new()?;
        let script = format!("! {read} && {}; {read}", gate.wait);
        let started = start(&group, Entry::Attached, Before::Enter, &["/usr/bin/sh", "-c", &script])?;
        waiting.push((gate.open()?, started, id, number, expected));
    }
    let let_go = node.enforcer.release_unidentified()?;
    ensure!(let_go.domains.contains(&UNIDENTIFIED_DOMAIN), "let go at once: {let_go:?}");
    for (_, _, id, number, _) in &waiting {
        node.add(id, *number)?;
    }
    let named = node.enforcer.label_running()?;
    ensure!(named.new == 2 && !named.domains.contains(&UNIDENTIFIED_DOMAIN), "{named:?}");
    for (gate, process, _, number, expected) in &waiting {
        let mut gate: &File = gate;
        gate.write_all(b"go\n")?;
        let status = process.wait()?;
        ensure!(status == *expected, "in domain {number}: {status}");
    }

    // A container that is never named comes under the host's rules in the end.
    let id = node.id();
    let group = node.group(Hierarchy::V2, &format!("cri-containerd-{id}.scope"))?;
    let gate = Gate::new()?;
    let script = format!("! {read} && {}; {read}", gate.wait);
    let process = start(&group, Entry::Attached, Before::Enter, &["/usr/bin/sh", "-c", &script])?;
    let open_gate = gate.open()?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while node.enforcer.label_running()?.domains.contains(&UNIDENTIFIED_DOMAIN)
        && node.enforcer.release_unidentified()?.domains.contains(&UNIDENTIFIED_DOMAIN)
    {
        ensure!(Instant::now() < deadline, "nobody lets it go");
        std::thread::yield_now();
    }
    (&open_gate).write_all(b"go\n")?;
    let status = process.wait()?;
    ensure!(status == 0, "one that nobody named: {status}");

    let labelled = node.enforcer.label_running()?;
    ensure!(
        labelled.new == 0,
        "a runtime that waits for its container to be started is under its rules: {labelled:?}"
    );
    (&start_it).write_all(b"go\n")?;
    drop(start_it);
    ensure!(runtime.wait()?.success(), "a runtime that waited for its container to be started");

    // A runtime's process, whose program is refused and whose container is named after that.
    let id = node.id();
    let group = node.group(Hierarchy::V2, &format!("docker-{id}.scope"))?;
    let gate = Gate::new()?;
    let words =
        [group.join("cgroup.procs").display().to_string(), gate.path.to_owned(), "/t/c/secret".to_owned()];
    let mut runtime = Command::new(ITSELF).args(["do", "prepare"]).args(words).arg(BLOCKED).spawn()?;
    let open_gate = gate.open()?;
    node.add(&id, 1)?;
    let named = node.enforcer.label_running()?;
    ensure!(named.new == 1, "{named:?}");
    let found = held(node)?;
    ensure!(found.is_empty(), "a runtime's own descriptors: {found:?}");
    drop(open_gate);
    let status = runtime.wait()?;
    ensure!(status.code() == Some(EACCES), "once named, it is under the container's rules: {status}");
    node.rules_unidentified = false;
    node.swap()
}

pub(super) fn not_roots(node: &mut Node) -> anyhow::Result<()> {
    let id = node.id();
    node.add(&id, 1)?;
    let name = format!("docker-{id}.scope");
    let users = node.group(Hierarchy::V2, "user.slice")?;
    std::os::unix::fs::chown(&users, Some(1000), None)?;
    for (group, expected) in [(users.join(&name), 0), (users.join("below").join(&name), 0)] {
        fs::create_dir_all(&group)?;
        let status = run(&group, Entry::Attached, &[BLOCKED])?;
        ensure!(status == expected, "{}: {status}", group.display());
        node.groups.push(group);
    }
    node.groups.insert(node.groups.len() - 1, users.join("below"));
    // A runtime may give the container's own group to another user, but not the groups above it.
    let roots = node.group(Hierarchy::V2, &name)?;
    std::os::unix::fs::chown(&roots, Some(1000), None)?;
    let status = run(&roots, Entry::Attached, &[BLOCKED])?;
    ensure!(status == EACCES, "a group that a runtime gave away: {status}");
    Ok(())
}

pub(super) fn preparation(node: &mut Node) -> anyhow::Result<()> {
    let group = node.container()?;
    for entry in [Entry::Attached, Entry::Cloned] {
        let status = start(&group, entry, Before::Stay, &[BLOCKED])?.wait()?;
        ensure!(status == 0, "a runtime's own program in the group: {status}");
        let script = format!("cat /t/c/secret && exec unshare -m {BLOCKED}");
        let status = start(&group, entry, Before::Stay, &["/usr/bin/sh", "-c", &script])?.wait()?;
        ensure!(status == NOT_STARTED, "the program that a runtime's ends in: {status}");
    }
    Ok(())
}

pub(super) fn already_running(node: &mut Node) -> anyhow::Result<()> {
    let id = node.id();
    let group = node.group(Hierarchy::V2, &format!("docker-{id}.scope"))?;
    let gate = Gate::new()?;
    let script = format!("{}; cat /t/c/secret", gate.wait);
    let waits = start(&group, Entry::Attached, Before::Enter, &["/usr/bin/sh", "-c", &script])?;
    let open_gate = gate.open()?;
    // A process that was forked into the container and has started no program since, like a runtime's process
    // before the container's first program.
    let (runtime_waits, mut let_it_go) = io::pipe()?;
    let procs = File::options().write(true).open(group.join("cgroup.procs"))?;
    let runtime = clone(None)?;
    if runtime == 0 {
        // SAFETY: as in start().
        unsafe {
            let mut byte = [0_u8; 1];
            libc::close(let_it_go.as_raw_fd());
            if libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) != 1
                || libc::unshare(libc::CLONE_NEWNS) != 0
                || libc::read(runtime_waits.as_raw_fd(), byte.as_mut_ptr().cast(), 1) != 1
            {
                libc::_exit(121);
            }
            let secret = libc::open(c"/t/c/secret".as_ptr(), libc::O_RDONLY);
            libc::_exit(if secret < 0 { *libc::__errno_location() } else { 0 });
        }
    }
    let runtime = Started(runtime);
    node.add(&id, 1)?;
    let labelled = node.enforcer.label_running()?;
    ensure!(labelled.new == 1 && labelled.domains.contains(&1), "{labelled:?}");
    let again = node.enforcer.label_running()?;
    ensure!(again.new == 0 && again.domains.contains(&1), "{again:?}");
    (&open_gate).write_all(b"go\n")?;
    let_it_go.write_all(b"x")?;
    let (program, preparing) = (waits.wait()?, runtime.wait()?);
    ensure!(program == 1, "a program that ran already: {program}");
    ensure!(preparing == 0, "a runtime that prepares the container: {preparing}");
    let gone = node.enforcer.label_running()?;
    ensure!(!gone.domains.contains(&1), "its tasks are gone: {gone:?}");
    Ok(())
}

pub(super) fn nested(node: &mut Node) -> anyhow::Result<()> {
    let outer = node.container()?;
    let id = node.id();
    // The inner container has no rules, so its domain would refuse nothing.
    let inner_id = ContainerId::parse(&id).context("no id")?;
    node.enforcer.add_container(inner_id, UNRULED)?;
    node.known.push(inner_id);
    let inner = outer.join("inner").join(format!("docker-{id}.scope"));
    fs::create_dir_all(&inner)?;
    node.groups.push(outer.join("inner"));
    node.groups.push(inner.clone());
    for entry in [Entry::Attached, Entry::Cloned] {
        let status = run(&inner, entry, &[BLOCKED])?;
        ensure!(status == EACCES, "below a container: {status}");
    }
    Ok(())
}
