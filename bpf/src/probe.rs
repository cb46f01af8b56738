//! Finds out what this kernel can do: each prerequisite by itself, and whether it really refuses a blocked
//! access.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use armor_policy::{Domain, Links, PolicySet, escaped_path};
use libbpf_rs::skel::OpenSkel;
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use serde::Serialize;
use thiserror::Error;

use crate::MAX_DOMAIN;
use crate::enforcer::{Enforcer, open};
use crate::error::BpfError;
use crate::hooks::sees_file_attributes;
use crate::image::{DomainRules, DomainSettings, Generation};
use crate::judge::{self, JUDGE};
use crate::mount_tree::MountTree;
use crate::symbols;

/// A `Probe` is the result of [`probe`].
#[derive(Clone, Debug, Serialize)]
pub struct Probe {
    /// The kernel's release.
    pub kernel: String,
    /// True if the kernel describes its types (`/sys/kernel/btf/vmlinux`), which CO-RE needs.
    pub btf: bool,
    /// Reason why the addresses of the kernel variables that the programs read are not visible; `None` if
    /// they are.
    pub kallsyms: Option<String>,
    /// The active security modules; empty if securityfs does not list them.
    pub lsm: Vec<String>,
    /// `none`, `integrity` or `confidentiality`; under the last the programs do not load. `None` if the
    /// kernel has no lockdown.
    pub lockdown: Option<String>,
    /// 2 if the unified hierarchy is mounted at /sys/fs/cgroup, 1 for the old one, 0 for none.
    pub cgroup: u8,
    /// True if a bpf filesystem is mounted at /sys/fs/bpf, which enforcement without the agent needs.
    pub bpffs: bool,
    /// Result of [`sees_file_attributes`].
    pub file_attributes: bool,
    /// Result for every program.
    pub programs: Vec<ProgramProbe>,
    /// Reason why a blocked access was not refused; `None` if it was.
    pub denial: Option<String>,
}

/// A `ProgramProbe` is the result of loading one program by itself.
#[derive(Clone, Debug, Serialize)]
pub struct ProgramProbe {
    /// The program's name, which is its hook's.
    pub name: String,
    /// Number of instructions that the verifier processed.
    pub verified_instructions: Option<u32>,
    /// Reason why it does not load.
    pub error: Option<String>,
}

impl Probe {
    /// Returns whether this kernel enforces. That is shown by a refusal, not by what the kernel says about
    /// itself.
    pub fn enforces(&self) -> bool {
        self.denial.is_none()
    }
}

/// Returns the active security modules; empty if securityfs does not list them.
pub fn active_modules() -> Vec<String> {
    words("/sys/kernel/security/lsm", ',')
}

fn words(path: &str, separator: char) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim().split(separator).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Tries everything. Loads the programs beside any that already run, and unloads them again. Call it only on
/// the main thread, like [`Enforcer::prove`].
pub fn probe() -> Probe {
    let lockdown = words("/sys/kernel/security/lockdown", ' ');
    let (programs, denial) = match Enforcer::attach(None) {
        Ok(mut enforcer) => {
            let programs = enforcer.verified_instructions().iter().map(|(name, count)| ProgramProbe {
                name: name.clone(),
                verified_instructions: Some(*count),
                error: None,
            });
            (programs.collect(), enforcer.prove().err().map(|error| error.to_string()))
        }
        Err(error) => (each_program(), Some(error.to_string())),
    };
    Probe {
        kernel: words("/proc/sys/kernel/osrelease", '\n').concat(),
        btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        kallsyms: symbols::seen().err().map(|unseen| unseen.to_string()),
        lsm: active_modules(),
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
        file_attributes: sees_file_attributes(),
        bpffs: words("/proc/self/mounts", '\n').iter().any(|mount| mount.contains(" /sys/fs/bpf bpf ")),
        programs,
        denial,
    }
}

/// Loads the programs one at a time, to name those that the kernel rejects.
fn each_program() -> Vec<ProgramProbe> {
    let mut object = MaybeUninit::uninit();
    let Ok(skeleton) = open(&mut object) else { return Vec::new() };
    let mut names: Vec<_> =
        skeleton.open_object().progs().filter(|p| p.autoload()).map(|p| p.name().to_owned()).collect();
    names.push(JUDGE.into());
    drop(skeleton);
    let load = |wanted: &OsStr| {
        // The judge is loaded for a program that calls it.
        let alone = if wanted == JUDGE { OsStr::new("file_open") } else { wanted };
        let mut object = MaybeUninit::uninit();
        let mut skeleton = open(&mut object).map_err(|error| error.to_string())?;
        for mut program in skeleton.open_object_mut().progs_mut() {
            let chosen = program.name() == alone;
            program.set_autoload(chosen);
        }
        let skeleton = skeleton.load().map_err(|error| error.to_string())?;
        if wanted == JUDGE {
            judge::load(&mut MaybeUninit::uninit(), &skeleton).map(drop).map_err(|error| error.to_string())
        } else {
            Ok(())
        }
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

/// A `ProofError` says why no refusal was seen.
#[derive(Debug, Error)]
pub enum ProofError {
    /// The kernel never calls the programs.
    #[error(
        "the programs load and attach, but an access that a rule blocks was permitted: bpf is missing from the active \
         security modules (boot with lsm=...,bpf)"
    )]
    Permitted,
    /// The access failed, but not because of the rule.
    #[error("{}: an access that a rule blocks was not refused by the rule: {error}", escaped_path(path))]
    Otherwise {
        /// The file that was opened.
        path: PathBuf,
        /// The kernel's error.
        error: io::Error,
    },
    /// This process cannot read what the proof needs.
    #[error("{}: {error}: needed to show that the kernel denies", escaped_path(path))]
    Prepare {
        /// The file that was read.
        path: PathBuf,
        /// The kernel's error.
        error: io::Error,
    },
    /// No rule can be made for the path, since a policy cannot name it.
    #[error("{}: no rule can be made for it: {reason}", escaped_path(path))]
    Rule {
        /// The path.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The kernel side failed.
    #[error(transparent)]
    Bpf(#[from] BpfError),
}

impl Enforcer {
    /// Shows that the kernel refuses what a rule blocks. Makes a rule live that blocks reading this process's
    /// own program, for a domain of its own, enters that domain, tries to read, and leaves it. Everything
    /// that this counted and reported is removed afterwards; the rule stays until the first
    /// [`swap`](Self::swap).
    ///
    /// Call this only on the main thread, which the process's pidfd stands for, and only while
    /// [`generation`](Self::generation) is 0, since a live generation would be replaced.
    pub fn prove(&mut self) -> Result<(), ProofError> {
        // No workload's domain, in case tasks of workloads have labels already.
        const DOMAIN: u32 = MAX_DOMAIN;
        let path = PathBuf::from("/proc/self/exe");
        let program = fs::read_link(&path).map_err(|error| ProofError::Prepare { path, error })?;
        let open = || fs::File::open(&program).map(drop);
        open().map_err(|error| ProofError::Prepare { path: program.clone(), error })?;
        let domain = rule_against(&program)?;
        let tree = MountTree::of_process("self")
            .map_err(|error| ProofError::Prepare { path: "/proc/self/mountinfo".into(), error })?;
        let this = pidfd_open(getpid(), PidfdFlags::empty())
            .map_err(|error| ProofError::Prepare { path: "/proc/self".into(), error: error.into() })?;

        // A process that was killed here may have left its entry root.
        self.forget_container(DOMAIN)?;
        // With number 0 the next agent finds nothing proven, should this one be killed here.
        self.make_live(&Generation {
            id: 0,
            host_mount_namespace: 0,
            domains: &[DomainRules {
                number: DOMAIN,
                tables: &domain,
                tree,
                settings: DomainSettings::default(),
            }],
        })?;
        let before = self.counters()?.blocked;
        let label = self.label_of(this.as_fd())?;
        self.label(this.as_fd(), DOMAIN)?;
        let outcome = open();
        match label {
            Some(domain) => self.label(this.as_fd(), domain)?,
            None => self.unlabel(this.as_fd())?,
        }
        self.forget_container(DOMAIN)?;
        let refused = self.counters()?.blocked > before;

        // No other task was under any rule, so all counts and all events in the ring buffer are the proof's.
        let mut events = self.events()?;
        while !events.drain(64)?.is_empty() {}
        self.reset_counters()?;
        match outcome {
            Ok(()) => Err(ProofError::Permitted),
            Err(error) if refused && error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            Err(error) => Err(ProofError::Otherwise { path: program, error }),
        }
    }
}

/// Compiles a domain with one rule, which blocks `path`.
fn rule_against(path: &Path) -> Result<Domain, ProofError> {
    let refuse = |reason: String| ProofError::Rule { path: path.to_owned(), reason };
    let policy = format!(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {{name: probe}}\n\
         spec: {{nodeSelector: {{matchLabels: {{a: b}}}}, file: {{matchPaths: [{{path: {path:?}}}]}}, action: Block}}\n"
    );
    let policies = armor_policy::parse("probe", &policy).map_err(|error| refuse(error.to_string()))?;
    armor_policy::compile(&[PolicySet::of(&policies)], &Links::new())
        .map_err(|error| refuse(error.to_string()))
}
