//! What this kernel can do: each prerequisite by itself, and whether a denial really happens.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use armor_policy::escaped_path;
use armor_policy::tables::Domain;
use libbpf_rs::skel::OpenSkel;
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use serde::Serialize;
use thiserror::Error;

use crate::MAX_DOMAIN;
use crate::enforcer::{Enforcer, open};
use crate::error::BpfError;
use crate::hooks::sees_file_attributes;
use crate::image::Generation;
use crate::judge::{self, JUDGE};
use crate::mount_tree::MountTree;
use crate::symbols;

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Probe {
    /// The kernel's release.
    pub kernel: String,
    /// Whether the kernel describes its types (`/sys/kernel/btf/vmlinux`): CO-RE needs it.
    pub btf: bool,
    /// Why the addresses of the kernel's variables that the programs read are not seen; `None` when they are.
    pub kallsyms: Option<String>,
    /// The active security modules; empty where securityfs does not tell.
    pub lsm: Vec<String>,
    /// `none`, `integrity` or `confidentiality`; the last refuses the programs. `None` where the kernel has no lockdown.
    pub lockdown: Option<String>,
    /// 2 where the unified hierarchy is mounted at /sys/fs/cgroup, 1 for the old one, 0 for none.
    pub cgroup: u8,
    /// Whether a bpf filesystem is mounted at /sys/fs/bpf: enforcement without the agent needs it.
    pub bpffs: bool,
    /// As [`sees_file_attributes`].
    pub file_attributes: bool,
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

/// The active security modules; empty where securityfs does not tell.
pub fn active_modules() -> Vec<String> {
    words("/sys/kernel/security/lsm", ',')
}

fn words(path: &str, separator: char) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim().split(separator).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Tries everything. Loads the programs beside any that already run; takes them out again. Only for the main thread, as
/// [`Enforcer::prove`].
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

/// Loads the programs one at a time, to name the ones that the kernel refuses.
fn each_program() -> Vec<ProgramProbe> {
    let mut object = MaybeUninit::uninit();
    let Ok(skeleton) = open(&mut object) else { return Vec::new() };
    let mut names: Vec<_> =
        skeleton.open_object().progs().filter(|p| p.autoload()).map(|p| p.name().to_owned()).collect();
    names.push(JUDGE.into());
    drop(skeleton);
    let load = |wanted: &OsStr| {
        // That one is loaded for another.
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

/// Why a denial was not seen to happen.
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
        /// What was opened.
        path: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// This process cannot read what the proof needs.
    #[error("{}: {error}: needed to show that the kernel denies", escaped_path(path))]
    Prepare {
        /// What was read.
        path: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// The rule cannot be made: its path is none that a policy can name.
    #[error("{}: no rule can be made for it: {reason}", escaped_path(path))]
    Rule {
        /// The path.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Maps of the programs.
    #[error(transparent)]
    Bpf(#[from] BpfError),
}

impl Enforcer {
    /// Shows that the kernel denies: makes a rule live against reading this process's own program, for a domain of its own,
    /// enters that domain, tries, and leaves it. Everything that this counted and reported is gone afterwards; the rule
    /// stays until the first [`swap`](Self::swap).
    ///
    /// Only for the main thread, which the process's pidfd names, and only while [`generation`](Self::generation) is 0: a
    /// generation in force would be replaced.
    pub fn prove(&mut self) -> Result<(), ProofError> {
        // No workload's, should some of their tasks have labels already.
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

        // Should one that was killed here have left its own.
        self.forget_entry_root(DOMAIN)?;
        // Number 0: an agent that is killed here leaves what the next one finds unproven.
        self.make_live(&Generation {
            id: 0,
            host_mount_namespace: 0,
            domains: &[(DOMAIN, &domain, tree)],
            alerts_per_second: 0,
            secure_sources: false,
        })?;
        let before = self.counters()?.blocked;
        self.label(this.as_fd(), DOMAIN)?;
        let outcome = open();
        self.unlabel(this.as_fd())?;
        self.forget_entry_root(DOMAIN)?;
        let refused = self.counters()?.blocked > before;

        // Nobody else was under any rule: what is counted and waits in the ring is the proof's, and no event of the node.
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

/// A domain with one rule, which blocks `path`.
fn rule_against(path: &Path) -> Result<Domain, ProofError> {
    let refuse = |reason: String| ProofError::Rule { path: path.to_owned(), reason };
    let policy = format!(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {{name: probe}}\n\
         spec: {{nodeSelector: {{matchLabels: {{a: b}}}}, file: {{matchPaths: [{{path: {path:?}}}]}}, action: Block}}\n"
    );
    let policies = armor_policy::parse("probe", &policy).map_err(|error| refuse(error.to_string()))?;
    armor_policy::compile(&policies.iter().collect::<Vec<_>>(), &Default::default())
        .map_err(|error| refuse(error.to_string()))
}
