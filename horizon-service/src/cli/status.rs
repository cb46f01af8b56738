//! Implements `status`, which shows the running agent's status and whether an agent runs.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use armor_alerts::status::BundleReport;
use armor_base::file::{self, FileError, Links};
use armor_console as console;
use armor_policy::escaped_path;
use jiff::Timestamp;
use rustix::fs::{FlockOperation, StatVfsMountFlags, flock, statvfs};
use rustix::io::Errno;
use serde::Serialize;

use crate::base::disk::{MAX_FILE, unusable};
use crate::base::lock::InstanceLock;
use crate::base::report::{ContainerPolicyNames, Offline, PolicyName};
use crate::events::alerts::{AlertCounts, RESERVED};
use crate::node::status::{ContainerFigures, FILE, PolicyFigures, Status};

/// Number of characters of a container's id that are shown.
const SHORT_ID: usize = 12;
/// Time that an agent, starting on a busy machine, may take to write its status.
const WRITING: Duration = Duration::from_secs(3);
/// Interval at which a missing status is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// `Found` is the result of `status`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Found {
    running: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<String>,
    /// True if `status` is current, so an agent runs and can write it.
    current: bool,
    /// True if enforcement is pinned, and so continues without an agent.
    pinned: bool,
    #[serde(flatten)]
    status: Status,
}

/// Prints the status. Returns the exit status: 0 if an agent runs, 1 if not.
///
/// # Errors
/// Fails if the state directory cannot be read or the output cannot be written.
pub fn show(state_dir: &Path, pin_dir: &Path, json: bool, policies: bool) -> anyhow::Result<u8> {
    let found = look(state_dir, pin_dir)?;
    let text =
        if json { serde_json::to_string_pretty(&found)? + "\n" } else { text(&found, pin_dir, policies) };
    console::stdout().write_all(text.as_bytes())?;
    Ok(u8::from(!found.running))
}

fn look(state_dir: &Path, pin_dir: &Path) -> anyhow::Result<Found> {
    let path = state_dir.join(FILE);
    let first = Instant::now();
    let (pid, text, is_current) = loop {
        let pid = InstanceLock::State(state_dir).holder()?.map(|holder| holder.pid);
        let (text, is_current) = read(&path).map_err(|error| unusable(&path, error))?;
        // An agent that has just started has written nothing yet, or is replacing the file.
        if pid.is_none() || is_current || first.elapsed() > WRITING {
            break (pid, text, is_current);
        }
        std::thread::sleep(LOOK);
    };
    let mut status: Status = match text.as_slice() {
        [] => Status::default(),
        text => serde_json::from_slice(text).with_context(|| escaped_path(&path))?,
    };
    let is_running = pid.is_some();
    let current = is_running && is_current;
    if current {
        status.report.state = status.state_name().to_owned();
        if let ("offline", Some(offline)) = (status.report.state.as_str(), &status.offline) {
            status.report.since = Some(offline.since);
        }
    } else if is_running {
        // The agent would report first that it cannot write.
        status.report.state = "degraded".to_owned();
        status.report.since = None;
        status.report.reasons.insert(0, unwritten(state_dir));
    } else {
        status.report.state = "not running".to_owned();
        if !state_dir.exists() {
            status.report.reasons.insert(0, format!(
                "{}: the directory is not there: no agent ran with it; where one has another, name its settings with --config, or \
                 set HZN_ARMOR_STATE_DIR",
                escaped_path(state_dir)
            ));
        }
    }
    let pinned = armor_bpf::is_pinned(pin_dir);
    Ok(Found { running: is_running, pid, current, pinned, status })
}

/// Returns the file's content, empty if there is none, and whether the agent holds its lock.
fn read(path: &Path) -> Result<(Vec<u8>, bool), FileError> {
    loop {
        let file = match file::open(path, Links::Follow) {
            Ok(file) => file,
            Err(error) if error.is_missing() => return Ok((Vec::new(), false)),
            Err(error) => return Err(error),
        };
        let is_locked = match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => false,
            Err(Errno::WOULDBLOCK) => true,
            Err(error) => return Err(io::Error::from(error).into()),
        };
        // A file that was just replaced has lost its lock through that.
        if !is_locked
            && fs::metadata(path).is_ok_and(|now| file.metadata().is_ok_and(|of| of.ino() != now.ino()))
        {
            continue;
        }
        let text = file::read_start(file, MAX_FILE + 1)?;
        return if text.len() > MAX_FILE {
            Err(FileError::TooLarge(MAX_FILE))
        } else {
            Ok((text, is_locked))
        };
    }
}

/// Returns why the agent cannot write its status, as far as another process can see it.
fn unwritten(state_dir: &Path) -> String {
    let why = match statvfs(state_dir) {
        Ok(found) if found.f_flag.contains(StatVfsMountFlags::RDONLY) => "the filesystem is read-only",
        Ok(found) if found.f_bavail == 0 => "the disk is full",
        Ok(found) if found.f_files > 0 && found.f_favail == 0 => "the filesystem has no inode left",
        _ => "its log says why",
    };
    format!("the agent runs and cannot write below {}: {why}", escaped_path(state_dir))
}

fn text(found: &Found, pin_dir: &Path, with_policies: bool) -> String {
    let Status { report, offline, generation, kernel, policies, containers, spool, updated } = &found.status;
    let at =
        |moment: &Option<Timestamp>| moment.map_or("unknown".to_owned(), |moment| format!("{moment:.0}"));
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{name:<11} {value}");
    };
    if found.current {
        line("state", &format!("{} since {}", report.state, at(&report.since)));
    } else if found.running {
        let updated = at(updated);
        line(
            "state",
            &format!("{}; what follows but the first reason it said last, at {updated}", report.state),
        );
    } else if updated.is_some() {
        line("state", &format!("the agent is NOT running; what follows it said last, at {}", at(updated)));
    } else {
        line("state", "the agent is NOT running, and has said nothing yet");
    }
    line(
        "pinned",
        &match (found.pinned, found.running) {
            (true, true) => format!("yes, below {}: enforcement outlives the agent", escaped_path(pin_dir)),
            (true, false) => {
                format!(
                    "yes, below {}: enforcement goes on; `hzn-armor-agent detach` ends it",
                    escaped_path(pin_dir)
                )
            }
            (false, _) => "no".to_owned(),
        },
    );
    if report.bundles.is_empty() {
        line("bundle", "none");
    }
    for BundleReport { name, serial, policies } in &report.bundles {
        let policies = match policies {
            0 => "lifted".to_owned(),
            1 => "1 policy".to_owned(),
            count => format!("{count} policies"),
        };
        line("bundle", &format!("{name} serial {serial}, {policies}"));
    }
    if *generation > 0 {
        line("generation", &format!("{generation}"));
    }
    for reason in &report.reasons {
        line("because", reason);
    }
    if let Some(Offline { since, reason }) = offline {
        line("offline", &format!("since {since:.0}: {reason}"));
    }
    if with_policies {
        for policy in policies {
            line("policy", &policy_line(policy));
        }
    } else if !policies.is_empty() {
        let policies = || policies.iter().filter(|policy| !RESERVED.contains(&policy.name.as_str()));
        let host = policies().filter(|policy| policy.host).count();
        let selecting = policies().filter(|policy| policy.workloads > 0).count();
        let others = policies().count() - host;
        line(
            "policies",
            &format!(
                "{host} for hosts, {others} for containers, {selecting} select something; --policies names them"
            ),
        );
    }
    let ContainerFigures { runtime, known, ruled, under } = containers;
    line("containers", &format!("{known} known, {ruled} under policies; runtime: {runtime}"));
    for ContainerPolicyNames { id, name, policies } in under.iter().filter(|_| with_policies) {
        let id: String = id.chars().take(SHORT_ID).collect();
        let policies = if policies.is_empty() { "no policy".to_owned() } else { policies.join(", ") };
        line("container", &format!("{name} ({id}): {policies}"));
    }
    if kernel.unidentified > 0 {
        line(
            "unidentified",
            &format!(
                "{} programs started in containers not named yet, under all policies for containers",
                kernel.unidentified
            ),
        );
    }
    if kernel.skipped > 0 {
        line("skipped", &format!("{} times the kernel did not run a program that decides", kernel.skipped));
    }
    line("accesses", &format!("{} blocked, {} audited", kernel.blocked, kernel.audited));
    let waiting = spool.last.saturating_sub(spool.receipted);
    line(
        "alerts",
        &format!(
            "{waiting} spooled of {}, {} suppressed, {} dropped",
            spool.last, kernel.suppressed, kernel.dropped
        ),
    );
    if spool.evicted + spool.unwritten > 0 {
        line("lost", &format!("{} evicted, {} not written", spool.evicted, spool.unwritten));
    }
    for refused in &report.refused {
        line("refused", &format!("{} ({}): {}", refused.object, refused.code, refused.reason));
    }
    text
}

fn policy_line(policy: &PolicyFigures) -> String {
    let PolicyFigures { bundle, name, host, workloads, seen: AlertCounts { blocked, audited } } = policy;
    let full_name = PolicyName { bundle: bundle.clone(), policy: name.clone() };
    let of = match (host, workloads) {
        _ if RESERVED.contains(&name.as_str()) => "beside the policies".to_owned(),
        (true, 0) => "not for this host".to_owned(),
        (true, _) => "the host".to_owned(),
        (false, 1) => "1 container".to_owned(),
        (false, count) => format!("{count} containers"),
    };
    format!("{full_name}: {of}, {blocked} blocked, {audited} audited since the agent started")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::lock::tests::until_free;
    use crate::base::report::{InForce, PolicyInForce};
    use crate::node::status::{StatusFile, last_offline};
    use crate::workloads::runtime::RuntimeState;
    use armor_alerts::status::AgentReport;
    use armor_policy::model::Kind;

    #[test]
    fn tells_whether_an_agent_runs_and_whether_enforcement_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let pins = dir.path().join("pins");
        let state = dir.path().join("state");
        let lock = InstanceLock::State(&state).take().unwrap().unwrap();
        let mut file = StatusFile::new(&state);
        let report = AgentReport {
            state: "enforcing".into(),
            bundles: vec![
                BundleReport { name: "edge".into(), serial: 7, policies: 2 },
                BundleReport { name: "fleet".into(), serial: 9, policies: 0 },
            ],
            ..AgentReport::default()
        };
        let mut status = Status { report, ..Status::default() };
        file.write(status.clone()).unwrap();
        let found = look(&state, &pins).unwrap();
        assert_eq!(
            (found.running, found.pinned, found.status.report.state.as_str()),
            (true, false, "enforcing")
        );
        let away: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        status.offline = Some(Offline { since: away, reason: "refused".into() });
        status.kernel.unidentified = 3;
        status.kernel.skipped = 2;
        file.write(status).unwrap();
        let found = look(&state, &pins).unwrap().status;
        assert_eq!((found.report.state.as_str(), found.report.since), ("offline", Some(away)));
        assert_eq!(last_offline(&state).map(|offline| offline.since), Some(away));
        fs::create_dir_all(pins.join("0123456789abcdef-0123456789abcdef/links")).unwrap();
        fs::write(pins.join("0123456789abcdef-0123456789abcdef/links/file_open"), "").unwrap();
        drop(lock);
        until_free(&InstanceLock::State(&state));
        let found = look(&state, &pins).unwrap();
        assert!(!found.running && !found.pinned, "no pin is on another filesystem");
        let found = Found { pinned: true, ..found };
        let text = text(&found, &pins, false);
        for part in [
            "NOT running",
            "enforcement goes on",
            "bundle      edge serial 7, 2 policies\nbundle      fleet serial 9, lifted\n",
            "offline     since",
            "unidentified 3",
            "skipped     2",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let json = serde_json::to_value(&found).unwrap();
        assert_eq!((&json["State"], &json["Bundles"][0]["Serial"]), (&"not running".into(), &7.into()));
    }

    #[test]
    fn what_cannot_be_written_is_not_hidden_behind_what_was() {
        let dir = tempfile::tempdir().unwrap();
        let (state, pins) = (dir.path().join("state"), dir.path().join("pins"));
        let _lock = InstanceLock::State(&state).take().unwrap().unwrap();
        let mut file = StatusFile::new(&state);
        let report = AgentReport { state: "enforcing".into(), ..AgentReport::default() };
        let mut status = Status { report, ..Status::default() };
        file.write(status.clone()).unwrap();
        assert!(look(&state, &pins).unwrap().current);
        // A directory in place of the next file makes writing fail, as on a full disk.
        let next = state.join("status.json.new");
        fs::create_dir(&next).unwrap();
        file.write(status.clone()).unwrap();
        assert!(look(&state, &pins).unwrap().current, "there was nothing new to say");
        status.generation = 7;
        assert!(file.write(status.clone()).unwrap_err().to_string().contains("status.json"));
        let found = look(&state, &pins).unwrap();
        assert!(found.running && !found.current);
        assert_eq!((found.status.report.state.as_str(), found.status.report.since), ("degraded", None));
        let text = text(&found, &pins, false);
        assert!(
            text.starts_with("state       degraded; what follows but the first reason it said last"),
            "{text}"
        );
        assert!(text.contains("because     the agent runs and cannot write below"), "{text}");
        fs::remove_dir(&next).unwrap();
        file.write(status).unwrap();
        let found = look(&state, &pins).unwrap();
        assert!(found.current && found.status.generation == 7);
    }

    #[test]
    fn policies_and_what_containers_are_under_are_named() {
        let named = |bundle: &str, policy: &str| PolicyName { bundle: bundle.into(), policy: policy.into() };
        let policy =
            |name: &str, kind, workloads| PolicyInForce { name: named("edge", name), kind, workloads };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let ruled = |id: &str, name: &str, policies: &[&str]| ContainerPolicyNames {
            id: id.repeat(64),
            name: name.into(),
            policies: names(policies),
        };
        let in_force = InForce {
            containers: 1,
            policies: [
                policy("etc", Kind::Host, 1),
                policy("other-host", Kind::Host, 0),
                policy("web", Kind::Container, 1),
            ]
            .into(),
            ruled: [ruled("a", "shop", &["edge/web"]), ruled("b", "db", &[])].into(),
            ..InForce::default()
        };
        let seen = [
            (named("edge", "web"), 3, 1),
            (named("edge", RESERVED[0]), 0, 5),
            (named("fleet", RESERVED[0]), 6, 0),
            (named("fleet", "web"), 9, 9),
            (named("", RESERVED[1]), 1, 0),
        ]
        .map(|(name, blocked, audited)| (name, AlertCounts { blocked, audited }));
        let policies = PolicyFigures::of(Some(&in_force), &seen.into());
        let containers = ContainerFigures::new(&RuntimeState::Absent, 2, Some(&in_force));
        let status = Status { policies, containers, ..Status::default() };
        let found = Found { running: true, pid: None, current: true, pinned: true, status };
        let text = |policies| super::text(&found, Path::new("/pins"), policies);
        let all = text(true);
        for line in [
            "policy      edge/etc: the host, 0 blocked, 0 audited since the agent started\n",
            "policy      edge/other-host: not for this host, 0 blocked,",
            "policy      edge/web: 1 container, 3 blocked, 1 audited",
            "policy      edge/DefaultPosture: beside the policies, 0 blocked, 5 audited",
            "policy      fleet/DefaultPosture: beside the policies, 6 blocked, 0 audited",
            "policy      UnresolvedPath: beside the policies, 1 blocked, 0 audited",
            "container   shop (aaaaaaaaaaaa): edge/web\n",
            "container   db (bbbbbbbbbbbb): no policy\n",
        ] {
            assert!(all.contains(line), "{line} in {all}");
        }
        assert!(!all.contains("fleet/web"), "it is not in force: {all}");
        assert!(text(false).contains("policies    2 for hosts, 1 for containers, 2 select something"));
        assert!(!text(false).contains("shop"));
        let json = serde_json::to_value(&found).unwrap();
        assert_eq!(
            (&json["Policies"][2]["Name"], &json["Policies"][2]["Blocked"]),
            (&"web".into(), &3.into())
        );
        assert_eq!(json["Containers"]["Under"][0]["Policies"][0], "edge/web");
    }

    #[test]
    fn an_agent_that_never_ran_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let said = |state: &Path| {
            let found = look(state, &dir.path().join("pins")).unwrap();
            assert!(!found.running);
            text(&found, dir.path(), true)
        };
        let nothing = "state       the agent is NOT running, and has said nothing yet\n";
        for (state, part) in [
            ("no", "/no: the directory is not there: no agent ran with it"),
            ("no", "bundle      none"),
            ("", nothing),
        ] {
            let said = said(&dir.path().join(state));
            assert!(said.starts_with(nothing) && said.contains(part), "{said}");
        }
        assert!(!said(dir.path()).contains("not there"));
    }
}
