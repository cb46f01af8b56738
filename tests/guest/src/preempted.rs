//! Preempts tasks inside a program while the program has to decide on another task. Some kernels then do not
//! run a program twice on one processor, or say that a task has no label although it has, and the access is
//! permitted.
//!
//! Tasks of the lowest priority open a file whose path takes long to resolve, and rename a file before each
//! open so that nothing is cached. An ordinary user's task of normal priority wakes up, thereby preempts them
//! wherever they are, and tries a blocked file. Only a fully preemptible kernel preempts them inside a
//! program: scripts/vm --append preempt=full.

use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::run::PROGRAMS;

const FOLDER: &str = "/run/preempted";
const BLOCKED: &str = "/run/preempted/blocked";
const USER: u32 = 1000;
const OPENERS: usize = 6;
/// Number of directories above the file whose path takes long to resolve.
const DEPTH: usize = 1800;
/// Duration of the tries, of which there must be at least [`LEAST_TRIES`].
const TRIES_LAST: Duration = Duration::from_secs(60);
const LEAST_TRIES: u64 = 2000;
/// Pause before each try, long enough for the preempted tasks to get into a program again.
const PAUSE: Duration = Duration::from_micros(300);

/// Runs the race; the output is that of a Rust test.
pub fn main() -> anyhow::Result<()> {
    crate::agent::be_an_agent()?;
    let outcome = race();
    let (word, passed) = if outcome.is_ok() { ("ok", 1) } else { ("FAILED", 0) };
    println!("test preempted ... {word}");
    if let Err(error) = &outcome {
        println!("    {error:#}");
    }
    println!("test result: {word}. {passed} passed; {} failed", 1 - passed);
    outcome
}

fn race() -> anyhow::Result<()> {
    let _ = fs::remove_dir_all(FOLDER);
    for opener in 0..OPENERS {
        let own = own_directory(opener);
        fs::create_dir_all(&own)?;
        fs::write(own.join("a"), "x")?;
        chown(&own, Some(USER), None)?;
    }
    fs::write(BLOCKED, "classified")?;
    let deep = deep();
    fs::create_dir_all(deep.parent().context("a file has a directory")?)?;
    fs::write(&deep, "x")?;
    let policy = format!("{FOLDER}/policy.yaml");
    fs::write(
        &policy,
        format!(
            "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {{name: preempted}}\nspec:\n  \
             selector: {{matchLabels: {{app: preempted}}}}\n  file: {{matchPaths: [{{path: {BLOCKED}}}]}}\n  action: Block\n"
        ),
    )?;
    let status = Command::new("hzn-armor-agent")
        .args(["try", "--keep", PROGRAMS, "--policy", &policy, "--alerts", "/dev/null", "--"])
        .args(["armor-guest-tests", "do", "as", &USER.to_string()])
        .args(["/usr/bin/armor-guest-tests", "preempted-tries"])
        .status()
        .context("hzn-armor-agent")?;
    let counters = armor_bpf::Enforcer::attach(Some(Path::new(PROGRAMS)))?.counters()?;
    ensure!(counters.skipped == 0, "the kernel did not run a program {} times", counters.skipped);
    ensure!(status.success(), "the tries ended with {status}");
    Ok(())
}

fn own_directory(opener: usize) -> PathBuf {
    Path::new(FOLDER).join(format!("own{opener}"))
}

fn deep() -> PathBuf {
    Path::new(FOLDER).join("d/".repeat(DEPTH)).join("leaf")
}

/// An `Opener` kills its process when it is dropped.
struct Opener(Child);

impl Drop for Opener {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs under the policy, as the user: starts the tasks to preempt, then tries the blocked file until the
/// time is over.
pub fn tries() -> anyhow::Result<()> {
    let mut one = CpuSet::new();
    one.set(0);
    sched_setaffinity(None, &one).context("cannot stay on one processor")?;
    let _openers = (0..OPENERS)
        .map(|opener| {
            let mut command = Command::new("/usr/bin/armor-guest-tests");
            command.args(["preempted-opener", &opener.to_string()]).spawn().map(Opener)
        })
        .collect::<io::Result<Vec<_>>>()?;
    let (mut tries, mut read) = (0u64, 0u64);
    let end = Instant::now() + TRIES_LAST;
    while Instant::now() < end {
        std::thread::sleep(PAUSE);
        match rustix::fs::open(BLOCKED, OFlags::RDONLY, Mode::empty()) {
            Ok(_) => read += 1,
            Err(Errno::ACCESS) => {}
            Err(error) => return Err(error).context(BLOCKED),
        }
        tries += 1;
    }
    println!("{read} of {tries} tries read what is blocked");
    ensure!(tries >= LEAST_TRIES, "too few to tell anything");
    ensure!(read == 0, "programs were skipped");
    Ok(())
}

/// Runs under the policy, with the lowest priority: opens the deep file until it is killed.
pub fn opener(number: usize) -> anyhow::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters live as long as the call.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) } != 0 {
        return Err(io::Error::last_os_error()).context("cannot take the lowest priority");
    }
    let (own, deep) = (own_directory(number), deep());
    let (mut from, mut to) = (own.join("a"), own.join("b"));
    loop {
        // Refused if more tasks are inside a program than there is scratch memory for.
        match rustix::fs::rename(&from, &to) {
            Ok(()) => (from, to) = (to, from),
            Err(Errno::ACCESS) => {}
            Err(error) => return Err(error).context("the own file"),
        }
        match rustix::fs::open(&deep, OFlags::RDONLY, Mode::empty()) {
            Ok(_) | Err(Errno::ACCESS) => {}
            Err(error) => return Err(error).context("the deep file"),
        }
    }
}
