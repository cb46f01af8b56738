//! Defines presets by name.

/// A `Preset` is one of KubeArmor's presets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Preset {
    /// `filelessExec`: starts or maps a program that is in memory alone: a memfd, a file that is removed, or one below
    /// [`MEMORY_DIRECTORIES`].
    FilelessExec,
    /// `anonymousMapExec`: has memory executed that is no file's, or no longer what its file says.
    AnonymousMapExec,
    /// `protectEnv`: opens the environment of another process.
    ProtectEnv,
    /// `protectProc`: opens or follows what `/proc` has about another process.
    ProtectProc,
    /// `exec`: starts programs from outside, with a terminal (`docker exec -it`).
    Exec,
}

/// The directories whose files are in memory alone, whatever the image has. A container's `/dev` is such a filesystem, and
/// programs can be started there; `/dev/shm` is below it.
pub const MEMORY_DIRECTORIES: [&str; 2] = ["/dev/", "/run/shm/"];

impl Preset {
    /// The presets in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::FilelessExec, Self::AnonymousMapExec, Self::ProtectEnv, Self::ProtectProc, Self::Exec];

    /// Returns the name as policies write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FilelessExec => "filelessExec",
            Self::AnonymousMapExec => "anonymousMapExec",
            Self::ProtectEnv => "protectEnv",
            Self::ProtectProc => "protectProc",
            Self::Exec => "exec",
        }
    }

    /// Returns the preset of a name, in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.name().eq_ignore_ascii_case(name))
    }
}
