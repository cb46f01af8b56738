//! Runs cases, each in a mount namespace of its own and under `hzn-armor-agent try`.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use libtest_mimic::{Arguments, ColorSetting, Failed, Trial};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::case::{Case, load};

/// Limit of guest time for each of a case's commands. Loading the programs is the slow part under emulation.
const TIME_LIMIT: Duration = Duration::from_secs(180);
/// Pin directory where the programs stay loaded from one case to the next.
pub(crate) const PROGRAMS: &str = "/sys/fs/bpf/armor-cases";
/// Directory of which each case sees its own.
const FOLDER: &str = "/t";

/// A `Mode` says whether a case's command runs under its policy, or under none.
#[derive(Clone, Copy)]
pub enum Mode {
    /// Runs the command under `hzn-armor-agent try`; it must end as the case expects.
    Ruled,
    /// Runs cases that expect a refusal without a policy; they must end otherwise, or show nothing.
    Unruled,
}

/// Runs the cases that the arguments of a Rust test binary select; one at a time unless the arguments say
/// otherwise.
pub fn main(mode: Mode, directory: &Path, args: impl Iterator<Item = String>) -> ExitCode {
    let mut arguments = Arguments::from_iter(std::iter::once("armor-guest-tests".to_owned()).chain(args));
    arguments.test_threads.get_or_insert(1);
    arguments.color.get_or_insert(ColorSetting::Never);
    let cases = match load(directory) {
        Ok(cases) => cases,
        Err(error) => {
            eprintln!("armor-guest-tests: {error:#}");
            return ExitCode::from(2);
        }
    };
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let counts = |case: &Case| match mode {
        Mode::Ruled => true,
        Mode::Unruled => case.shows_refusal(),
    };
    let trials = cases.into_iter().filter(|(_, case)| counts(case)).map(|(name, case)| {
        let ignored = !case.fits(&release) || (case.disk && !Path::new("/disk").exists());
        let title = name.clone();
        Trial::test(title, move || isolated(mode, &name, case)).with_ignored_flag(ignored)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Runs a case on a thread of its own, so that its mounts are its own and end with it.
fn isolated(mode: Mode, name: &str, case: Case) -> Result<(), Failed> {
    let scratch = PathBuf::from("/run/armor-cases").join(name);
    let result = std::thread::spawn(move || {
        let mut group = Group::default();
        prepare(&case, &scratch, &mut group)?;
        match mode {
            Mode::Ruled => run(&case, &scratch, &mut group),
            Mode::Unruled => run_unruled(&case, &scratch, &mut group),
        }
    });
    match result.join() {
        Ok(result) => result.map_err(|error| format!("{error:#}").into()),
        Err(_) => Err("the harness panicked".into()),
    }
}

fn prepare(case: &Case, scratch: &Path, group: &mut Group) -> anyhow::Result<()> {
    // SAFETY: no other thread shares this one's file system state, which is all that these flags unshare.
    unsafe { unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }.context("cannot unshare mounts")?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    fs::create_dir_all(FOLDER)?;
    mount("none", FOLDER, "tmpfs", MountFlags::empty(), Some(c"mode=0755"))?;
    let _ = fs::remove_dir_all(scratch);
    fs::create_dir_all(scratch)?;
    script(&case.setup, "setup", scratch, group)
}

/// Runs one of a case's own scripts, which must succeed; without text there is none.
fn script(text: &str, name: &str, scratch: &Path, group: &mut Group) -> anyhow::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let text = format!("set -e\naccess() {{ armor-guest-tests do \"$@\"; }}\n{text}");
    let (status, output) = group.run(Command::new("/usr/bin/sh").args(["-c", &text]), &scratch.join(name))?;
    ensure!(status.success(), "{name} script: {status}{output}");
    Ok(())
}

/// Returns a command that becomes `program`, by way of a shell if there is something to inherit.
fn inheriting(case: &Case, program: &str) -> Command {
    if case.open.is_empty() && case.hold.is_empty() {
        return Command::new(program);
    }
    let holder =
        if case.hold.is_empty() { String::new() } else { format!("armor-guest-tests do {}", case.hold) };
    // The programs of the guest are on nobody's path but the shell's.
    let found = format!("exec {holder} \"$(command -v \"$0\")\" \"$@\" {}", case.open);
    let mut command = Command::new("/usr/bin/sh");
    command.args(["-c", &found, program]);
    command
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

fn run(case: &Case, scratch: &Path, group: &mut Group) -> anyhow::Result<()> {
    let (policy, alerts) = (scratch.join("policy.yaml"), scratch.join("alerts"));
    fs::write(&policy, case.policy())?;
    let mut command = inheriting(case, "hzn-armor-agent");
    command.args(["try", "--keep", PROGRAMS, "--policy"]);
    command.arg(&policy).arg("--alerts").arg(&alerts);
    if let Some(posture) = &case.posture {
        command.args(["--posture", posture]);
    }
    if let Some(fate) = &case.already_held {
        command.args(["--already-held", fate]);
    }
    if case.secure_sources {
        command.arg("--secure-sources");
    }
    let (status, output) = group.run(command.arg("--").args(case.command()), &scratch.join("output"))?;
    let code = exit_code(status);
    let alerts = fs::read_to_string(&alerts).unwrap_or_default();
    ensure!(code == case.exit, "exit {code} instead of {}{output}\n  alerts:\n{alerts}", case.exit);
    case.check_alerts(&alerts).with_context(|| format!("{status}{output}"))?;
    script(&case.after, "after", scratch, group)
}

fn run_unruled(case: &Case, scratch: &Path, group: &mut Group) -> anyhow::Result<()> {
    let [program, arguments @ ..] = &case.command()[..] else { bail!("no command") };
    let (status, output) = group.run(inheriting(case, program).args(arguments), &scratch.join("output"))?;
    let ends_the_same =
        exit_code(status) == case.exit && script(&case.after, "after", scratch, group).is_ok();
    ensure!(!ends_the_same, "it ends as when it is refused: exit {}{output}", case.exit);
    Ok(())
}

/// A `Group` has the processes of a case: process groups that are killed when the case ends.
#[derive(Default)]
struct Group {
    leaders: Vec<Pid>,
}

impl Group {
    /// Runs a command to its end, within [`TIME_LIMIT`]. Its output is kept in a file and returned for
    /// messages.
    fn run(&mut self, command: &mut Command, output: &Path) -> anyhow::Result<(ExitStatus, String)> {
        let file = File::create(output)?;
        command
            .current_dir(FOLDER)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0);
        let mut child = command.spawn().with_context(|| format!("cannot run {:?}", command.get_program()))?;
        self.leaders.push(Pid::from_child(&child));
        let status = wait(&mut child);
        let text = shown(&fs::read(output)?);
        match status? {
            Some(status) => Ok((status, text)),
            None => bail!("not done within {} s{text}", TIME_LIMIT.as_secs()),
        }
    }
}

/// Returns the beginning of a command's output, in a form that a message can hold.
fn shown(output: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(output).chars().take(4000).collect();
    if text.is_empty() {
        return text;
    }
    let plain = text.replace(|c: char| c.is_control() && c != '\n', "?");
    format!("\n  output:\n{}", plain.trim_end())
}

impl Drop for Group {
    fn drop(&mut self) {
        for leader in self.leaders.drain(..) {
            // The process group may be empty.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Returns the child's status, or `None` once the limit has passed.
fn wait(child: &mut Child) -> anyhow::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + TIME_LIMIT;
    let pidfd = rustix::process::pidfd_open(Pid::from_child(child), rustix::process::PidfdFlags::empty())?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        let timeout = left.try_into().ok();
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(child.wait()?)),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
