//! Tests containers as the kernel side knows them: control groups with a container's id in their names,
//! entered in every way that runtimes enter them. A program that is started in one is under the container's
//! rules from its first instruction on; a task that prepares the container is not.
//!
//! No runtime is needed: the tests make the groups and add the containers to the kernel side, as the agent
//! does.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::ptr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use armor_bpf::{
    Access, ContainerId, EXEMPT_DOMAIN, Enforcer, Event, Events, Generation, Guard, HOST_DOMAIN, MountTree,
    UNIDENTIFIED_DOMAIN,
};
use armor_policy::decision::Verdict;
use armor_policy::{CompileOptions, Domain, Policy, compile};
use libtest_mimic::{Arguments, ColorSetting, Failed, Trial};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::agent;
use crate::run::PROGRAMS;

const POLICY: &str = "\
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: container}
spec:
  selector: {matchLabels: {app: container}}
  process: {matchDirectories: [{dir: /t/c/blocked/}]}
  file: {matchPaths: [{path: /t/c/secret}]}
";
/// Path of this program, which some tests copy.
const ITSELF: &str = "/usr/bin/armor-guest-tests";
const BLOCKED: &str = "/t/c/blocked/true";
const FREE: &str = "/t/c/free/true";
/// The last domain that a container can have. It has no rules here.
const UNRULED: u32 = UNIDENTIFIED_DOMAIN - 1;
const EACCES: i32 = libc::EACCES;
/// Number of swaps to each of two generations.
const SWAPS: i32 = 25;
/// Exit status of a shell that may not start a program.
const NOT_STARTED: i32 = 126;

type Test = fn(&mut Node) -> anyhow::Result<()>;

/// Runs all tests; the output is that of a Rust test.
pub fn main(args: impl Iterator<Item = String>) -> ExitCode {
    if let Err(error) = agent::be_an_agent() {
        eprintln!("armor-guest-tests: {error:#}");
        return ExitCode::from(2);
    }
    let mut arguments = Arguments::from_iter(std::iter::once("armor-guest-tests".to_owned()).chain(args));
    arguments.test_threads = Some(1);
    arguments.color.get_or_insert(ColorSetting::Never);
    let node = match Node::new() {
        Ok(node) => Arc::new(Mutex::new(node)),
        Err(error) => {
            eprintln!("armor-guest-tests: {error:#}");
            return ExitCode::from(2);
        }
    };
    let tests: [(&str, Test); 20] = [
        ("first_programs_are_under_their_containers_rules", first_programs),
        ("five_hundred_containers_at_once_are_under_rules", five_hundred),
        ("only_exact_and_known_ids_count", unknown),
        ("unidentified_containers_are_under_rules_until_named_or_released", unidentified),
        ("only_groups_named_by_root_count", not_roots),
        ("tasks_preparing_a_container_are_not_under_its_rules", preparation),
        ("tasks_cannot_leave_their_containers_rules", no_way_out),
        ("other_paths_are_blocked_from_the_first_program_on", other_names),
        ("another_mount_namespace_does_not_become_the_entry_root", left_namespace),
        ("mount_namespaces_of_others_cannot_be_opened", others_namespaces),
        ("running_tasks_get_the_rules_of_a_container_added_later", already_running),
        ("preexisting_handles_are_found_once_the_first_program_runs", brought_along),
        ("the_outermost_of_nested_containers_counts", nested),
        ("a_reused_domain_keeps_nothing_of_its_last_container", number_again),
        ("a_swap_leaves_no_gap_and_no_old_verdict", swaps),
        ("only_root_on_the_host_starts_programs_without_a_path", without_path),
        ("containers_cannot_touch_the_agent_s_process_and_files", agents_own),
        ("programs_maps_and_pins_are_the_agent_s_alone", programs_and_maps),
        ("a_new_version_keeps_labels_and_unread_alerts", another_version),
        ("a_version_that_lacks_a_pin_is_loaded_anew", pins_gone),
    ];
    let trials = tests.map(|(name, test)| {
        let node = Arc::clone(&node);
        Trial::test(format!("containers::{name}"), move || {
            let mut node = node.lock().map_err(|_| Failed::from("a test before panicked"))?;
            let outcome = test(&mut node);
            node.forget_all()?;
            outcome.map_err(|error| format!("{error:#}").into())
        })
    });
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}

/// A `Hierarchy` is a version of control groups.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hierarchy {
    V1,
    V2,
}

impl Hierarchy {
    fn path(self) -> &'static str {
        match self {
            Self::V1 => "/run/cgroup-v1",
            Self::V2 => "/sys/fs/cgroup",
        }
    }
}

/// An `Entry` says how a group is entered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// The first task is moved there.
    Attached,
    /// The first task is created there, which raises no event.
    Cloned,
}

/// A `Node` has the kernel side, and what the tests made.
struct Node {
    enforcer: Enforcer,
    domain: Domain,
    groups: Vec<PathBuf>,
    known: Vec<ContainerId>,
    rules_the_host: bool,
    rules_unidentified: bool,
    next: u32,
}

impl Node {
    fn new() -> anyhow::Result<Self> {
        fs::create_dir_all("/t/c/blocked")?;
        fs::create_dir_all("/t/c/free")?;
        fs::create_dir_all("/t/c/elsewhere")?;
        for program in [BLOCKED, FREE] {
            fs::copy("/usr/bin/busybox", program)?;
        }
        fs::write("/t/c/secret", "secret\n")?;
        let v1 = Hierarchy::V1.path();
        fs::create_dir_all(v1)?;
        mount("none", v1, "cgroup", MountFlags::empty(), Some(c"devices"))
            .context("a hierarchy of version 1")?;
        let domain = compiled(POLICY)?;
        let enforcer = Enforcer::attach(Some(Path::new(PROGRAMS)))?;
        let (groups, known) = (Vec::new(), Vec::new());
        let (rules_the_host, rules_unidentified) = (false, false);
        let mut node = Self { enforcer, domain, groups, known, rules_the_host, rules_unidentified, next: 1 };
        node.swap()?;
        Ok(node)
    }

    /// Makes a generation live in which every container's domain but [`UNRULED`] has the same rules, as do
    /// the host and unidentified containers if the node's flags say so. Containers have no mount tree, as if
    /// not looked at yet.
    fn swap(&mut self) -> anyhow::Result<()> {
        let host = MountTree::of_process("1")?;
        let host_mount_namespace = host.mount_namespace;
        let mut domains: Vec<(u32, &Domain, MountTree)> =
            (1..UNRULED).map(|number| (number, &self.domain, MountTree::default())).collect();
        if self.rules_unidentified {
            domains.push((UNIDENTIFIED_DOMAIN, &self.domain, MountTree::default()));
        }
        if self.rules_the_host {
            domains.push((HOST_DOMAIN, &self.domain, host));
        }
        let generation = Generation {
            id: self.enforcer.generation() + 1,
            host_mount_namespace,
            domains: &domains,
            alerts_per_second: 0,
            secure_sources: false,
        };
        Ok(self.enforcer.swap(&generation)?)
    }

    fn id(&mut self) -> String {
        self.next += 1;
        format!("{:064x}", u64::from(self.next).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn add(&mut self, id: &str, number: u32) -> anyhow::Result<()> {
        let id = ContainerId::parse(id).context("no id")?;
        self.enforcer.add_container(id, number)?;
        self.known.push(id);
        Ok(())
    }

    fn group(&mut self, hierarchy: Hierarchy, name: &str) -> anyhow::Result<PathBuf> {
        let path = Path::new(hierarchy.path()).join(name);
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        self.groups.push(path.clone());
        Ok(path)
    }

    /// Makes a container that the kernel side knows, and returns its group.
    fn container(&mut self) -> anyhow::Result<PathBuf> {
        let id = self.id();
        self.add(&id, 1)?;
        self.group(Hierarchy::V2, &format!("docker-{id}.scope"))
    }

    fn forget_all(&mut self) -> anyhow::Result<()> {
        for id in self.known.drain(..) {
            self.enforcer.remove_container(id)?;
        }
        for group in self.groups.drain(..).rev() {
            fs::remove_dir(&group).with_context(|| group.display().to_string())?;
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let id = self.enforcer.generation() + 1;
        let nothing = Generation {
            id,
            host_mount_namespace: 0,
            domains: &[],
            alerts_per_second: 0,
            secure_sources: false,
        };
        if let Err(error) = self.enforcer.swap(&nothing) {
            eprintln!("{error}");
        }
    }
}

fn compiled(policy: &str) -> anyhow::Result<Domain> {
    let policies = armor_policy::parse("containers", policy)?;
    let policies: Vec<&Policy> = policies.iter().collect();
    Ok(compile(&policies, &CompileOptions::default())?)
}

/// A `Before` says what a container's first task does before it starts the program.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Gets a mount namespace of its own and gives up its capabilities, as in a container.
    Enter,
    /// Gets a mount namespace of its own and keeps its capabilities, as in a privileged container.
    EnterPrivileged,
    /// Stays in the host's mount namespace.
    Stay,
}

/// `struct __user_cap_header_struct`, include/uapi/linux/capability.h, for the calling process.
const CAPABILITIES_V3: [u32; 2] = [0x2008_0522, 0];

/// A `Started` is a process that was started in a group.
struct Started(i32);

/// Starts a program in a group.
fn start(group: &Path, entry: Entry, before: Before, program: &[&str]) -> anyhow::Result<Started> {
    let procs = File::options().write(true).open(group.join("cgroup.procs"))?;
    let directory = File::open(group)?;
    let words = program.iter().map(|word| CString::new(*word)).collect::<Result<Vec<_>, _>>()?;
    let mut argv: Vec<*const libc::c_char> = words.iter().map(|word| word.as_ptr()).collect();
    argv.push(ptr::null());
    let path = c"PATH=/usr/bin:/usr/sbin".as_ptr();
    let env = [path, ptr::null()];
    let cgroup = (entry == Entry::Cloned).then(|| directory.as_raw_fd());
    let pid = clone(cgroup)?;
    if pid == 0 {
        // SAFETY: between fork and exec only system calls are made, on memory that was allocated before.
        unsafe {
            if entry == Entry::Attached && libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) != 1 {
                libc::_exit(121);
            }
            if before != Before::Stay && libc::unshare(libc::CLONE_NEWNS) != 0 {
                libc::_exit(122);
            }
            if before == Before::Enter && libc::syscall(libc::SYS_capset, &CAPABILITIES_V3, &[0_u32; 6]) != 0
            {
                libc::_exit(123);
            }
            libc::execve(argv[0], argv.as_ptr(), env.as_ptr());
            libc::_exit(*libc::__errno_location());
        }
    }
    Ok(Started(pid))
}

/// Forks, into a control group of version 2 if one is given.
fn clone(cgroup: Option<RawFd>) -> anyhow::Result<i32> {
    /// `struct clone_args`, include/uapi/linux/sched.h, up to `cgroup`.
    #[repr(C)]
    #[derive(Default)]
    struct CloneArgs {
        flags: u64,
        words: [u64; 3],
        exit_signal: u64,
        stack: [u64; 5],
        cgroup: u64,
    }
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut args = CloneArgs { exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() };
    if let Some(cgroup) = cgroup {
        args.flags = CLONE_INTO_CGROUP;
        args.cgroup = u64::try_from(cgroup)?;
    }
    // SAFETY: this acts as fork(); the structure is the kernel's, and its size is passed.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) } {
        -1 => Err(io::Error::last_os_error()).context("clone3"),
        pid => Ok(i32::try_from(pid)?),
    }
}

impl Started {
    /// Returns the exit status, which is an errno if the program was not started.
    fn wait(&self) -> anyhow::Result<i32> {
        let mut status = 0;
        // SAFETY: the child is this process's, and the status is valid memory.
        ensure!(unsafe { libc::waitpid(self.0, &raw mut status, 0) } == self.0, io::Error::last_os_error());
        ensure!(libc::WIFEXITED(status), "ended by a signal: {status}");
        Ok(libc::WEXITSTATUS(status))
    }
}

fn run(group: &Path, entry: Entry, program: &[&str]) -> anyhow::Result<i32> {
    start(group, entry, Before::Enter, program)?.wait()
}

fn shell(group: &Path, script: &str) -> anyhow::Result<i32> {
    run(group, Entry::Attached, &["/usr/bin/sh", "-c", script])
}

/// Group names as runtimes write them.
const NAMES: [fn(&str) -> String; 5] = [
    |id| format!("docker-{id}.scope"),
    str::to_owned,
    |id| format!("libpod-{id}.scope"),
    |id| format!("libpod-payload-{id}"),
    |id| format!("cri-containerd-{id}.scope"),
];

fn first_programs(node: &mut Node) -> anyhow::Result<()> {
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

fn five_hundred(node: &mut Node) -> anyhow::Result<()> {
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

fn unknown(node: &mut Node) -> anyhow::Result<()> {
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

fn unidentified(node: &mut Node) -> anyhow::Result<()> {
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
        let told = events.drain(64)?;
        ensure!(
            matches!(&told[..], [event] if event.task.container.map(|id| id.to_string()) == Some(id)),
            "an alert says which container it was: {told:?}"
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

fn swaps(node: &mut Node) -> anyhow::Result<()> {
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

fn not_roots(node: &mut Node) -> anyhow::Result<()> {
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

fn preparation(node: &mut Node) -> anyhow::Result<()> {
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

fn no_way_out(node: &mut Node) -> anyhow::Result<()> {
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

fn other_names(node: &mut Node) -> anyhow::Result<()> {
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
fn left_namespace(node: &mut Node) -> anyhow::Result<()> {
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
fn others_namespaces(node: &mut Node) -> anyhow::Result<()> {
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

fn already_running(node: &mut Node) -> anyhow::Result<()> {
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

/// Returns the handles that tasks hold and may not have: process, path, descriptor.
fn held(node: &Node) -> anyhow::Result<Vec<(u32, String, Option<u32>)>> {
    let mut found = Vec::new();
    node.enforcer.preexisting(|event| {
        let Access::Path(access) = event.access;
        found.push((event.task.tgid, access.path, access.descriptor));
    })?;
    Ok(found)
}

fn brought_along(node: &mut Node) -> anyhow::Result<()> {
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

fn nested(node: &mut Node) -> anyhow::Result<()> {
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

fn number_again(node: &mut Node) -> anyhow::Result<()> {
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

fn without_path(node: &mut Node) -> anyhow::Result<()> {
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
        ensure!(events.drain(64)?.is_empty(), "a runtime's copy of itself was told of");
        ensure!(start(ITSELF, &[])? == Some(0), "root was refused");
        let told = events.drain(64)?;
        ensure!(told.len() == 1 && told[0].decision.verdict() == Verdict::Audit, "{told:?}");
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

/// An `Agent` is a process that the kernel side takes for an agent.
struct Agent(Child);

impl Agent {
    fn start(node: &Node, files: &[&Path]) -> anyhow::Result<Self> {
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
fn ensure_told(
    node: &Node,
    events: &mut Events,
    domains: &[u32],
    suppressed: u64,
    script: &str,
) -> anyhow::Result<()> {
    node.enforcer.settle()?;
    let mut told = BTreeSet::new();
    loop {
        let some = events.drain(64)?;
        if some.is_empty() {
            break;
        }
        told.extend(
            some.iter().filter(|event| event.guard() == Some(Guard::Agent)).map(|event| event.domain),
        );
    }
    let is_told = domains.iter().all(|domain| told.contains(domain));
    ensure!(
        is_told || node.enforcer.counters()?.suppressed > suppressed,
        "{script}: told in domains {told:?} alone"
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
    ensure_told(node, &mut events, &[domain], suppressed, &script)?;
    let outside = Command::new("/usr/bin/sh").args(["-c", &script]).status()?;
    ensure!(outside.success(), "{script}: {outside} outside of all containers");
    Ok(())
}

fn agents_own(node: &mut Node) -> anyhow::Result<()> {
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

fn programs_and_maps(node: &mut Node) -> anyhow::Result<()> {
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
    ensure_told(node, &mut events, &[domain, HOST_DOMAIN], suppressed, script)
}

/// Replaces the programs as an upgrade does: the existing pins become another version's.
fn another_version(node: &mut Node) -> anyhow::Result<()> {
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
    let told = leftover.events()?.context("the same version cannot read it")?.drain(64)?;
    let is_blocked = |event: &Event| matches!(&event.access, Access::Path(access) if access.path == BLOCKED);
    ensure!(told.len() == 1 && is_blocked(&told[0]), "{told:?}");
    ensure!(leftover.counters()?.is_some_and(|counters| counters.blocked == counted), "counted otherwise");
    leftover.remove()?;
    ensure!(fs::read_dir(PROGRAMS)?.count() == 1, "the other version is still there");
    Ok(())
}

/// Removes pins, as somebody may do while no agent runs.
fn pins_gone(node: &mut Node) -> anyhow::Result<()> {
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

/// A `Gate` is a FIFO that a shell waits at.
struct Gate {
    path: &'static str,
    wait: String,
}

impl Gate {
    fn new() -> anyhow::Result<Self> {
        let path = "/t/c/gate";
        fs::remove_file(path).ok();
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0)?;
        Ok(Self { path, wait: format!("read line <{path}") })
    }

    /// Returns once the shell waits. It goes on with the first line.
    fn open(&self) -> io::Result<File> {
        File::options().write(true).open(self.path)
    }
}
