//! What this kernel can do: each prerequisite by itself, and whether a denial really happens.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libbpf_rs::skel::OpenSkel;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Serialize;

use crate::enforcer::{Enforcer, open};
use crate::home::Home;
use crate::image::Generation;

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Probe {
    /// The kernel's release.
    pub kernel: String,
    /// Whether the kernel describes its types (`/sys/kernel/btf/vmlinux`): CO-RE needs it.
    pub btf: bool,
    /// The active security modules; empty where securityfs does not tell.
    pub lsm: Vec<String>,
    /// `none`, `integrity` or `confidentiality`; the last refuses the programs. `None` where the kernel has no lockdown.
    pub lockdown: Option<String>,
    /// 2 where the unified hierarchy is mounted at /sys/fs/cgroup, 1 for the old one, 0 for none.
    pub cgroup: u8,
    /// Whether a bpf filesystem is mounted at /sys/fs/bpf: enforcement without the agent needs it.
    pub bpffs: bool,
    /// Every program.
    pub programs: Vec<ProgramProbe>,
    /// Why a denied operation was not denied; `None` when it was.
    pub denial: Option<String>,
}

/// One program, loaded by itself.
#[derive(Clone, Debug, Serialize)]
pub struct ProgramProbe {
    /// Its name, which is its hook's.
    pub name: String,
    /// How many instructions the verifier processed.
    pub verified_instructions: Option<u32>,
    /// Why it does not load.
    pub error: Option<String>,
}

impl Probe {
    /// Whether this kernel enforces: shown by a denial, not by what it says of itself.
    pub fn enforces(&self) -> bool {
        self.denial.is_none()
    }
}

/// Tries everything. Loads the programs beside any that already run; takes them out again.
pub fn probe() -> Probe {
    let words = |path: &str, separator| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.trim().split(separator).filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let lockdown = words("/sys/kernel/security/lockdown", ' ');
    let (programs, denial) = match Enforcer::attach(None) {
        Ok(enforcer) => {
            let programs = enforcer.verified_instructions().iter().map(|(name, count)| ProgramProbe {
                name: name.clone(),
                verified_instructions: Some(*count),
                error: None,
            });
            (programs.collect(), denied(enforcer).err())
        }
        Err(error) => (each_program(), Some(error.to_string())),
    };
    Probe {
        kernel: words("/proc/sys/kernel/osrelease", '\n').concat(),
        btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        lsm: words("/sys/kernel/security/lsm", ','),
        lockdown: lockdown
            .into_iter()
            .find_map(|word| Some(word.strip_prefix('[')?.strip_suffix(']')?.to_owned())),
        cgroup: match (
            Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
            Path::new("/sys/fs/cgroup").exists(),
        ) {
            (true, _) => 2,
            (false, true) => 1,
            (false, false) => 0,
        },
        bpffs: words("/proc/self/mounts", '\n').iter().any(|mount| mount.contains(" /sys/fs/bpf bpf ")),
        programs,
        denial,
    }
}

/// Loads the programs one at a time, to name the ones that the kernel refuses.
fn each_program() -> Vec<ProgramProbe> {
    let mut object = MaybeUninit::uninit();
    let Ok(skeleton) = open(&mut object) else { return Vec::new() };
    let names: Vec<_> =
        skeleton.open_object().progs().filter(|p| p.autoload()).map(|p| p.name().to_owned()).collect();
    drop(skeleton);
    let load = |wanted: &std::ffi::OsStr| {
        let mut object = MaybeUninit::uninit();
        let mut skeleton = open(&mut object).map_err(|error| error.to_string())?;
        for mut program in skeleton.open_object_mut().progs_mut() {
            let chosen = program.name() == wanted;
            program.set_autoload(chosen);
        }
        skeleton.load().map(drop).map_err(|error| error.to_string())
    };
    names
        .iter()
        .map(|name| ProgramProbe {
            name: name.to_string_lossy().into_owned(),
            verified_instructions: None,
            error: load(name).err(),
        })
        .collect()
}

/// Has a child under a rule of its own read a file of its own that the rule blocks.
fn denied(mut enforcer: Enforcer) -> Result<(), String> {
    const DOMAIN: u32 = 1;
    let file = PrivateFile::new().map_err(|error| format!("no private file to be denied: {error}"))?;
    let policy = format!(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {{name: probe}}\n\
         spec: {{nodeSelector: {{matchLabels: {{a: b}}}}, file: {{matchPaths: [{{path: {:?}}}]}}, action: Block}}\n",
        file.0
    );
    let policies = armor_policy::parse("probe", &policy).map_err(|error| error.to_string())?;
    let domain = armor_policy::compile(&policies.iter().collect::<Vec<_>>(), &Default::default())
        .map_err(|error| error.to_string())?;
    let home = Home::of_process("self").map_err(|error| format!("/proc/self/mountinfo: {error}"))?;
    let generation = Generation { id: 1, domains: &[(DOMAIN, &domain, home)], alerts_per_second: 0 };
    enforcer.swap(&generation).map_err(|error| error.to_string())?;

    // The child waits for its first line of input, which it gets when it is labelled, and then opens the file.
    let mut child = Command::new("/bin/sh")
        .args(["-c", "read go && exec 3<\"$0\"", &file.0.to_string_lossy()])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("no child to be denied: /bin/sh: {error}"))?;
    let labelled = Pid::from_raw(child.id() as i32)
        .ok_or_else(|| "the child has no process id".to_owned())
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).map_err(|error| format!("pidfd_open: {error}")))
        .and_then(|task| enforcer.label(task.as_fd(), DOMAIN).map_err(|error| error.to_string()));
    if let Some(input) = child.stdin.as_mut() {
        // A child that is gone says more by its status than by this error.
        io::Write::write_all(input, b"go\n").ok();
    }
    let status = child.wait().map_err(|error| format!("the child's status: {error}"))?;
    labelled?;
    if !status.success() && enforcer.counters().map_err(|error| error.to_string())?.blocked > 0 {
        return Ok(());
    }
    Err("the programs load and attach, but an operation that a rule blocks was permitted: bpf is missing from the \
         active security modules (boot with lsm=...,bpf)"
        .to_owned())
}

/// A file that goes with this value.
struct PrivateFile(PathBuf);

impl PrivateFile {
    fn new() -> io::Result<Self> {
        let directory = std::env::temp_dir().canonicalize()?;
        let path = directory.join(format!("hzn-armor-probe.{}", std::process::id()));
        fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Self(path))
    }
}

impl Drop for PrivateFile {
    fn drop(&mut self) {
        // Nothing can be done about a temporary file that stays.
        fs::remove_file(&self.0).ok();
    }
}
