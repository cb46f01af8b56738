//! Implements `try`, which runs one command under local policies, in a domain of its own that ends with it.
//!
//! The command is under its policies from its first instruction: this process takes the domain's label
//! itself, starts the command, which inherits it, and removes the label again. That works because labels are
//! per task and `run` is called on the main thread, which is the one that the process's pidfd names.
//!
//! The command is stopped before its first instruction, to check the descriptors that it inherits. It must
//! not keep any that it could not open itself.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd as _, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail, ensure};
use armor_alerts::alert::Alert;
use armor_base::file::{self, FileError};
use armor_bpf::{
    DomainRules, DomainSettings, EXEMPT_DOMAIN, Enforcer, Event, Events, Generation, Hook, MountTree,
};
use armor_console as console;
use armor_policy::decision::{Decision, Verdict};
use armor_policy::document::{text, yaml};
use armor_policy::{Domain, Policy, Posture, Postures, escaped, escaped_path};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, WaitOptions, pidfd_open, set_child_subreaper, waitpid};

use crate::cli::entry::{Begun, Entry, LAST_STANDARD};
use crate::events::alerts::{self, Clocks, Fate, Origin, RuleTable};
use crate::kernel::attach::attach;
use crate::workloads::bundled_policies::{BundleSettings, BundledPolicy};
use crate::workloads::compiled::{self, CompiledPolicies};
use crate::workloads::node_selector::NodeNames;
use crate::workloads::root::Root;

/// The command's domain.
const DOMAIN: u32 = 1;
/// Maximum number of events read from the ring buffer at a time.
const EVENTS: usize = 256;
/// Interval at which undecided events are settled.
const TICK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Options of `try`.
#[derive(Debug, clap::Args)]
pub struct Trial {
    /// Policy files; all of them apply to the command, whatever their selectors say.
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    policy: Vec<PathBuf>,
    /// Block nothing: report what would have been blocked.
    #[arg(long, conflicts_with = "already_held")]
    audit: bool,
    /// What to do with inherited descriptors that the policies refuse to the command.
    #[arg(long, default_value = "close", value_parser = console::one_of(FATES))]
    already_held: Fate,
    /// Start programs that have rights by `fromSource` as if they were setuid: without `LD_PRELOAD` and the
    /// like.
    #[arg(long)]
    secure_sources: bool,
    /// What to do with accesses that an allow-list does not name.
    #[arg(long, default_value = "audit", value_parser = console::one_of(POSTURES))]
    posture: Posture,
    /// Write the alerts to this file instead of stderr, one JSON object per line.
    #[arg(long, value_name = "FILE")]
    alerts: Option<PathBuf>,
    /// Keep the BPF programs loaded below this directory of a bpf filesystem and reuse them the next time,
    /// because loading them takes most of the time. What the policies needed stays attached until the next
    /// try. Only one try at a time uses a directory; others wait.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

const POSTURES: [(&str, &str, Posture); 3] = [
    ("allow", "Permit them", Posture::Allow),
    ("audit", "Permit and report them", Posture::Audit),
    ("block", "Refuse them", Posture::Block),
];

const FATES: [(&str, &str, Fate); 3] = [
    (
        "close",
        "Start the command without them, as if opening them had been refused. Standard input, output and error become \
         /dev/null, but are kept if only the posture refuses them and no rule",
        Fate::Closed,
    ),
    ("report", "Leave them to the command", Fate::Left),
    ("kill", "Kill the command before it begins", Fate::Killed),
];

/// Runs the command and returns the exit status: the command's own, 128 plus the number of the signal that
/// ended it, or 126 or 127 if it could not be started.
///
/// # Errors
/// Fails if the policies are invalid or the kernel does not enforce. The command has not been started then.
pub fn run(trial: &Trial) -> anyhow::Result<u8> {
    let overwritten = |alerts: &&PathBuf| trial.policy.iter().any(|policy| file::is_same(policy, alerts));
    if let Some(alerts) = trial.alerts.as_ref().filter(overwritten) {
        bail!(
            "--alerts {} is one of the policy files: name another; nothing was written",
            escaped_path(alerts)
        );
    }
    let policies = read_policies(&trial.policy)?;
    let settings =
        Arc::new(BundleSettings { postures: Postures::all(trial.posture), ..BundleSettings::default() });
    let bundled = |policy| BundledPolicy { policy: Arc::new(policy), settings: Arc::clone(&settings) };
    let policies: Vec<BundledPolicy> = policies.into_iter().map(bundled).collect();
    let CompiledPolicies { domain: refusing, linked, notes, .. } =
        compiled::build(&policies, &Root::of_process("self"))?;
    for note in notes {
        console::tell(format_args!("hzn-armor-agent: {note}"));
    }
    if !refusing.devices.is_empty() {
        let about = "the rules of `device` are about the machine's devices, not about the command: they are not tried";
        console::tell(format_args!("hzn-armor-agent: {about}"));
    }
    let mut domain = Arc::clone(&refusing);
    if trial.audit {
        audit_only(Arc::make_mut(&mut domain));
    }
    let output: Box<dyn Write> = match &trial.alerts {
        Some(path) if path == Path::new("/dev/null") => Box::new(io::sink()),
        Some(path) => Box::new(alerts_file(path)?),
        None => Box::new(io::stderr()),
    };

    let _lock = trial.keep.as_deref().map(lock_directory).transpose()?;
    let mut enforcer =
        attach(trial.keep.as_deref()).context("cannot enforce; `hzn-armor-agent probe` says more")?;
    let dropped_before = enforcer.counters()?.dropped;
    let mut events = enforcer.events()?;
    // Discard the events that an earlier try left.
    enforcer.settle()?;
    while !events.drain(EVENTS)?.is_empty() {}
    // An earlier try's entry root may still be set.
    enforcer.forget_container(DOMAIN)?;
    let tree = MountTree::of_process("self").context("cannot read this process's mounts")?;
    let tree = MountTree { linked, ..tree };
    let secure = trial.secure_sources;
    make_live(&mut enforcer, &domain, tree.clone(), secure)?;
    let mut printer = Printer {
        table: RuleTable::of(DOMAIN, &domain),
        origin: Origin { host_name: NodeNames::hostname(), ..Origin::default() },
        output,
    };
    // Processes that the command leaves behind become children of this one, so that it can report them.
    set_child_subreaper(Some(rustix::process::getpid())).context("cannot adopt orphans")?;

    let entry = match start(&enforcer, &trial.command, &[])? {
        Ok(entry) => entry,
        Err(error) => {
            printer.drain(&mut events)?;
            let program = escaped(trial.command[0].as_encoded_bytes());
            console::tell(format_args!("hzn-armor-agent: {program}: {error}"));
            return Ok(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 });
        }
    };
    let held = if trial.audit {
        // The search lists only handles that are refused, so the refusing rules are live while the command is
        // stopped.
        make_live(&mut enforcer, &refusing, tree.clone(), secure)?;
        let held = brought_along(&enforcer, &entry)?;
        make_live(&mut enforcer, &domain, tree, secure)?;
        held
    } else {
        brought_along(&enforcer, &entry)?
    };
    let fate = if trial.audit { Fate::Left } else { trial.already_held };
    let descriptors: Vec<RawFd> = held.iter().filter_map(descriptor).collect();
    let clocks = Clocks::now();
    for event in held {
        printer.print(&alerts::preexisting(printer.alert(event, &clocks), fate))?;
    }
    let entry = match fate {
        Fate::Killed if !descriptors.is_empty() => return Ok(exit_status(entry.end()?)),
        Fate::Closed if !descriptors.is_empty() => {
            entry.end()?;
            // The command has done nothing, and the events of its start will come again.
            while !events.drain(EVENTS)?.is_empty() {}
            start_without(&enforcer, &trial.command, &descriptors)?
        }
        _ => entry,
    };
    let mut command = entry.go().context("the command cannot be let go")?;
    ignore_interrupts();
    let status = follow(&enforcer, &mut command, &mut events, &mut printer)?;
    let counters = enforcer.counters()?;
    let dropped = counters.dropped - dropped_before;
    if dropped > 0 {
        printer.print(&alerts::threshold(&printer.origin, 0, dropped))?;
    }
    // Pinned programs must not keep the command's leftover processes under its rules.
    enforcer.lift_rules()?;
    if let Ok(None) = waitpid(None, WaitOptions::NOHANG) {
        console::tell(
            "hzn-armor-agent: the command left processes running; they are under no policy from here on",
        );
    }
    Ok(exit_status(status))
}

fn alerts_file(path: &Path) -> anyhow::Result<File> {
    let empty = || {
        let file = file::open_or_make(path)?;
        file.set_len(0)?;
        Ok(file)
    };
    empty().map_err(|error: FileError| match error {
        FileError::NotRegular(kind) => anyhow!(
            "--alerts {}: a {kind}, not a regular file: name one, or leave --alerts out and redirect standard error",
            escaped_path(path)
        ),
        error => anyhow!("--alerts {}: {error}", escaped_path(path)),
    })
}

fn make_live(
    enforcer: &mut Enforcer,
    tables: &Domain,
    tree: MountTree,
    secure_sources: bool,
) -> anyhow::Result<()> {
    let settings = DomainSettings { alerts_per_second: 0, secure_sources };
    let domains = &[DomainRules { number: DOMAIN, tables, tree, settings }];
    let id = enforcer.generation() + 1;
    Ok(enforcer.swap(&Generation { id, host_mount_namespace: 0, domains })?)
}

/// Waits until no other try uses the directory. The returned file holds the lock.
fn lock_directory(directory: &Path) -> anyhow::Result<File> {
    armor_bpf::require_bpffs(directory)?;
    ensure!(
        !armor_bpf::cannot_be_made(directory),
        "--keep {}: a bpf filesystem has no `.` in names: choose another",
        escaped_path(directory)
    );
    let lock = || {
        std::fs::create_dir_all(directory)?;
        let directory = File::open(directory)?;
        directory.lock()?;
        io::Result::Ok(directory)
    };
    lock().with_context(|| format!("{}: cannot be locked", escaped_path(directory)))
}

fn read_policies(files: &[PathBuf]) -> anyhow::Result<Vec<Policy>> {
    let mut policies = Vec::new();
    let mut findings = String::new();
    for path in files {
        let name = escaped_path(path);
        let bytes = file::read(path, yaml::MAX_TEXT).with_context(|| name.clone())?;
        match text::decode(&name, bytes).and_then(|text| armor_policy::parse(&name, &text)) {
            Ok(parsed) => policies.extend(parsed),
            Err(found) => findings.push_str(&format!("{found}\n")),
        }
    }
    ensure!(findings.is_empty(), "the policies are in error:\n{}", findings.trim_end());
    ensure!(!policies.is_empty(), "the files hold no policy");
    Ok(policies)
}

/// Turns every refusal into an audit.
fn audit_only(domain: &mut Domain) {
    for decision in domain.decisions_mut() {
        if decision.verdict() == Verdict::Block {
            *decision = Decision::new(Verdict::Audit, decision.rule());
        }
    }
}

/// Starts the command in the domain, without the descriptors `without`, and stops it. The inner error is the
/// command's own.
fn start(enforcer: &Enforcer, command: &[OsString], without: &[RawFd]) -> anyhow::Result<io::Result<Entry>> {
    let this = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    let labeller = enforcer.labeller()?;
    let enter = move || {
        let task = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
        labeller.label(task.as_fd(), DOMAIN).map_err(io::Error::other)
    };
    // The tracer stays outside the domain and gains nothing by tracing it.
    enforcer.label(this.as_fd(), EXEMPT_DOMAIN)?;
    let entry = Entry::start(command, without, enter);
    enforcer.unlabel(this.as_fd())?;
    Ok(entry)
}

/// Starts the command like [`start`], and fails if it still has refused descriptors.
fn start_without(enforcer: &Enforcer, command: &[OsString], without: &[RawFd]) -> anyhow::Result<Entry> {
    let entry = start(enforcer, command, without)?.with_context(|| {
        let program = escaped(command[0].as_encoded_bytes());
        format!("{program}: cannot be started without descriptors {without:?}")
    })?;
    if let Some(event) = brought_along(enforcer, &entry)?.first() {
        entry.end()?;
        bail!(
            "the command was not started: it would still have {}, which the policies refuse it",
            event.access.object()
        );
    }
    Ok(entry)
}

/// Returns the command's inherited descriptors that are refused. Standard input, output and error are left
/// out unless a rule names them, because the posture alone would take the output away from the user.
fn brought_along(enforcer: &Enforcer, entry: &Entry) -> anyhow::Result<Vec<Event>> {
    let mut found = Vec::new();
    enforcer.preexisting(|event| {
        let is_standard = descriptor(&event).is_some_and(|number| number <= LAST_STANDARD);
        let is_by_posture = event.decision.rule() == Decision::RULE_DEFAULT;
        if event.hook == Hook::PreexistingFile
            && event.task.ns_pid == entry.id()
            && !(is_standard && is_by_posture)
        {
            found.push(event);
        }
    })?;
    Ok(found)
}

fn descriptor(event: &Event) -> Option<RawFd> {
    event.access.descriptor().and_then(|number| RawFd::try_from(number).ok())
}

/// Prints alerts until the command has ended and none is left.
fn follow(
    enforcer: &Enforcer,
    command: &mut Begun,
    events: &mut Events,
    printer: &mut Printer,
) -> anyhow::Result<ExitStatus> {
    let Some(pid) = command.pid() else {
        enforcer.settle()?;
        printer.drain(events)?;
        return Ok(command.wait()?);
    };
    let ended: OwnedFd = pidfd_open(pid, PidfdFlags::empty())?;
    loop {
        let mut ready =
            [PollFd::from_borrowed_fd(events.fd(), PollFlags::IN), PollFd::new(&ended, PollFlags::IN)];
        match poll(&mut ready, Some(&TICK)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let has_ended = !ready[1].revents().is_empty();
        enforcer.settle()?;
        printer.drain(events)?;
        if has_ended {
            return Ok(command.wait()?);
        }
    }
}

/// Ignores the terminal's signals, which also go to the command, so that this process can report how the
/// command ended.
fn ignore_interrupts() {
    for signal in [libc::SIGINT, libc::SIGQUIT] {
        // SAFETY: installs no handler, the signals are just no longer delivered; nothing else in `try`
        // touches them.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

fn exit_status(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code).unwrap_or(u8::MAX)
}

struct Printer {
    table: RuleTable,
    origin: Origin,
    output: Box<dyn Write>,
}

impl Printer {
    /// Prints the events in the ring buffer until it is empty.
    fn drain(&mut self, events: &mut Events) -> anyhow::Result<()> {
        loop {
            let batch = events.drain(EVENTS)?;
            if batch.is_empty() {
                return Ok(());
            }
            let clocks = Clocks::now();
            for event in batch {
                self.print(&self.alert(event, &clocks))?;
            }
        }
    }

    fn alert(&self, event: Event, clocks: &Clocks) -> Alert {
        alerts::alert(event, Some(&self.table), None, &self.origin, clocks)
    }

    fn print(&mut self, alert: &Alert) -> anyhow::Result<()> {
        let mut line = alert.to_line()?;
        line.push(b'\n');
        // One write per line, because the command may write to the same stderr.
        self.output.write_all(&line).context("cannot write alerts")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use armor_policy::{Links, PolicySet, compile};

    #[test]
    fn audit_only_leaves_nothing_that_blocks_and_keeps_the_rules() {
        let text = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {name: p}\nspec:\n  selector: \
                    {matchLabels: {a: b}}\n  file: {matchPaths: [{path: /x}, {path: /y, readOnly: true}]}\n";
        let policies = armor_policy::parse("p", text).unwrap();
        let mut domain = compile(&[PolicySet::of(&policies[..1])], &Links::new()).unwrap();
        let before = domain.clone();
        audit_only(&mut domain);
        let decisions =
            |domain: &Domain| -> Vec<Decision> { domain.path.vectors.iter().flat_map(|v| v.0).collect() };
        assert!(decisions(&before).iter().any(|decision| decision.verdict() == Verdict::Block));
        for (was, is) in decisions(&before).into_iter().zip(decisions(&domain)) {
            assert_ne!(is.verdict(), Verdict::Block);
            assert_eq!(was.rule(), is.rule());
        }
    }

    #[test]
    fn the_status_is_the_commands() {
        assert_eq!(exit_status(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(exit_status(ExitStatus::from_raw(libc::SIGKILL)), 137);
    }
}
