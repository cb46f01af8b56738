//! What the kernel side reports: the events of the ring, decoded.

use std::cell::RefCell;
use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

use armor_policy::escaped;
use armor_policy::tables::{Decision, PERMISSIONS, Permission};
use libbpf_rs::{MapHandle, RingBuffer, RingBufferBuilder};

use crate::container::ContainerId;
use crate::error::BpfError;
use crate::skeleton::types;

/// The hook that decided, or the iterator that found what no hook saw. The discriminant is that of `enum hook` in `abi.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
#[allow(missing_docs)] // each is the kernel's hook of that name
pub enum Hook {
    BprmCheckSecurity,
    MmapFile,
    FileMprotect,
    FileOpen,
    FileReceive,
    FileTruncate,
    PathTruncate,
    PathChmod,
    PathChown,
    PathLink,
    PathRename,
    PathUnlink,
    PathRmdir,
    PathMkdir,
    PathMknod,
    PathSymlink,
    SbMount,
    MoveMount,
    SbPivotroot,
    SbUmount,
    InodeCreate,
    InodeLink,
    InodeUnlink,
    InodeSymlink,
    InodeMkdir,
    InodeRmdir,
    InodeMknod,
    InodeRename,
    /// A descriptor from before the rules.
    PreexistingFile,
    /// A mapping from before the rules.
    PreexistingMapping,
    UnixStreamConnect,
    UnixMaySend,
    PathNotify,
    InodeSetattr,
    InodeSetxattr,
    InodeRemovexattr,
    InodeSetAcl,
    InodeRemoveAcl,
    InodeFileSetattr,
    QuotaOn,
    SbKernMount,
    PtraceAccessCheck,
    PtraceTraceme,
    TaskKill,
    TaskSetrlimit,
    TaskSetscheduler,
    Bpf,
    BpfMap,
    BpfProg,
    FsContextParseParam,
    TaskPrctl,
}

const HOOKS: [(Hook, &str); 51] = [
    (Hook::BprmCheckSecurity, "lsm=SECURITY_BPRM_CHECK"),
    (Hook::MmapFile, "lsm=MMAP_FILE"),
    (Hook::FileMprotect, "lsm=FILE_MPROTECT"),
    (Hook::FileOpen, "lsm=FILE_OPEN"),
    (Hook::FileReceive, "lsm=FILE_RECEIVE"),
    (Hook::FileTruncate, "lsm=FILE_TRUNCATE"),
    (Hook::PathTruncate, "lsm=PATH_TRUNCATE"),
    (Hook::PathChmod, "lsm=PATH_CHMOD"),
    (Hook::PathChown, "lsm=PATH_CHOWN"),
    (Hook::PathLink, "lsm=PATH_LINK"),
    (Hook::PathRename, "lsm=PATH_RENAME"),
    (Hook::PathUnlink, "lsm=PATH_UNLINK"),
    (Hook::PathRmdir, "lsm=PATH_RMDIR"),
    (Hook::PathMkdir, "lsm=PATH_MKDIR"),
    (Hook::PathMknod, "lsm=PATH_MKNOD"),
    (Hook::PathSymlink, "lsm=PATH_SYMLINK"),
    (Hook::SbMount, "lsm=SB_MOUNT"),
    (Hook::MoveMount, "lsm=MOVE_MOUNT"),
    (Hook::SbPivotroot, "lsm=SB_PIVOTROOT"),
    (Hook::SbUmount, "lsm=SB_UMOUNT"),
    (Hook::InodeCreate, "lsm=INODE_CREATE"),
    (Hook::InodeLink, "lsm=INODE_LINK"),
    (Hook::InodeUnlink, "lsm=INODE_UNLINK"),
    (Hook::InodeSymlink, "lsm=INODE_SYMLINK"),
    (Hook::InodeMkdir, "lsm=INODE_MKDIR"),
    (Hook::InodeRmdir, "lsm=INODE_RMDIR"),
    (Hook::InodeMknod, "lsm=INODE_MKNOD"),
    (Hook::InodeRename, "lsm=INODE_RENAME"),
    (Hook::PreexistingFile, "iter=TASK_FILE"),
    (Hook::PreexistingMapping, "iter=TASK_VMA"),
    (Hook::UnixStreamConnect, "lsm=UNIX_STREAM_CONNECT"),
    (Hook::UnixMaySend, "lsm=UNIX_MAY_SEND"),
    (Hook::PathNotify, "lsm=PATH_NOTIFY"),
    (Hook::InodeSetattr, "lsm=INODE_SETATTR"),
    (Hook::InodeSetxattr, "lsm=INODE_SETXATTR"),
    (Hook::InodeRemovexattr, "lsm=INODE_REMOVEXATTR"),
    (Hook::InodeSetAcl, "lsm=INODE_SET_ACL"),
    (Hook::InodeRemoveAcl, "lsm=INODE_REMOVE_ACL"),
    (Hook::InodeFileSetattr, "lsm=INODE_FILE_SETATTR"),
    (Hook::QuotaOn, "lsm=QUOTA_ON"),
    (Hook::SbKernMount, "lsm=SB_KERN_MOUNT"),
    (Hook::PtraceAccessCheck, "lsm=PTRACE_ACCESS_CHECK"),
    (Hook::PtraceTraceme, "lsm=PTRACE_TRACEME"),
    (Hook::TaskKill, "lsm=TASK_KILL"),
    (Hook::TaskSetrlimit, "lsm=TASK_SETRLIMIT"),
    (Hook::TaskSetscheduler, "lsm=TASK_SETSCHEDULER"),
    (Hook::Bpf, "lsm=BPF"),
    (Hook::BpfMap, "lsm=BPF_MAP"),
    (Hook::BpfProg, "lsm=BPF_PROG"),
    (Hook::FsContextParseParam, "lsm=FS_CONTEXT_PARSE_PARAM"),
    (Hook::TaskPrctl, "lsm=TASK_PRCTL"),
];

impl Hook {
    /// The hook's name as KubeArmor writes it in `Data`: `lsm=FILE_OPEN`.
    pub fn data(self) -> &'static str {
        HOOKS[self as usize].1
    }
}

/// A refusal that no policy's rule asks for, by the reserved number that its decision has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    /// What belongs to the agent: its programs and maps, their pins, its process and files.
    Agent,
    /// A process outside of the task's domain.
    Outside,
    /// A setting that names a program which the kernel starts.
    Helper,
    /// What would pass for a program that has rights by `fromSource`: a mount over it or over what leads there, or another file
    /// that a process names as its own program.
    Source,
}

/// `RULE_MASK` of `abi.h`.
const RULE_AGENT: u32 = (1 << 30) - 1;

/// A blocked or audited access. Names are as [`escaped`](crate::escaped()) writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// CLOCK_BOOTTIME, nanoseconds.
    pub time_ns: u64,
    /// The generation that decided.
    pub generation: u32,
    /// The task's domain.
    pub domain: u32,
    /// The verdict and the rule.
    pub decision: Decision,
    /// What was asked for.
    pub permission: Permission,
    /// Where it was asked, or found.
    pub hook: Hook,
    /// Of [`Hook::PreexistingFile`] the descriptor's number.
    pub descriptor: Option<u32>,
    /// Thread, in the host's pid namespace.
    pub pid: u32,
    /// Process, in the host's pid namespace.
    pub tgid: u32,
    /// Parent process, in the host's pid namespace.
    pub parent_tgid: u32,
    /// Process, in its own pid namespace.
    pub ns_pid: u32,
    /// Parent process, in the parent's own pid namespace.
    pub ns_parent: u32,
    /// Real user id, in the host's user namespace.
    pub uid: u32,
    /// Id of the task's cgroup (v2).
    pub cgroup: u64,
    /// The thread's name.
    pub comm: String,
    /// The object's path; empty where it has none.
    pub path: String,
    /// The other name of a rename or link; empty otherwise.
    pub new_path: String,
    /// Whether the decision is about `new_path`, not `path`.
    pub about_new_path: bool,
    /// The task's program.
    pub program: String,
    /// The parent's program.
    pub parent_program: String,
    /// In [`UNIDENTIFIED_DOMAIN`](crate::UNIDENTIFIED_DOMAIN) the container, if the task still is in its control group: of other domains
    /// the number says which it is.
    pub container: Option<ContainerId>,
}

impl Event {
    /// The guard that decided; `None` where it was a rule of the tables.
    pub fn guard(&self) -> Option<Guard> {
        match RULE_AGENT - self.decision.rule() {
            0 => Some(Guard::Agent),
            1 => Some(Guard::Outside),
            2 => Some(Guard::Helper),
            3 => Some(Guard::Source),
            _ => None,
        }
    }
}

/// Where an event's strings begin.
const STRINGS: usize = offset_of!(types::event, strings);

impl Event {
    /// The first of several records in a row, and how long it is; `None` where it is not all there, or as for `decode`.
    pub(crate) fn decode_first(records: &[u8]) -> Option<(Self, usize)> {
        let lengths = [
            offset_of!(types::event, path_length),
            offset_of!(types::event, new_path_length),
            offset_of!(types::event, program_length),
            offset_of!(types::event, parent_program_length),
            offset_of!(types::event, container_length),
        ];
        let mut length = STRINGS;
        for at in lengths {
            length += usize::from(u16::from_ne_bytes(records.get(at..at + 2)?.try_into().ok()?));
        }
        Some((Self::decode(records.get(..length)?)?, length))
    }

    /// `None` where the record is none of ours: too short, or of a hook or permission that does not exist.
    fn decode(record: &[u8]) -> Option<Self> {
        let array = |offset: usize| record.get(offset..offset + 4)?.try_into().ok();
        let number = |offset: usize| array(offset).map(u32::from_ne_bytes);
        let long = |offset: usize| Some(u64::from_ne_bytes(record.get(offset..offset + 8)?.try_into().ok()?));
        let short =
            |offset: usize| Some(u16::from_ne_bytes(record.get(offset..offset + 2)?.try_into().ok()?));

        let mut at = STRINGS;
        let mut string = |length_at: usize| {
            let length = usize::from(short(length_at)?);
            let bytes = record.get(at..at + length)?;
            at += length;
            Some(bytes)
        };
        let path = escaped(string(offset_of!(types::event, path_length))?);
        let new_path = escaped(string(offset_of!(types::event, new_path_length))?);
        let program = escaped(string(offset_of!(types::event, program_length))?);
        let parent_program = escaped(string(offset_of!(types::event, parent_program_length))?);
        let container = string(offset_of!(types::event, container_length))?;
        let hook = HOOKS.get(usize::from(short(offset_of!(types::event, hook))?))?.0;
        let descriptor = number(offset_of!(types::event, descriptor))?;
        let comm = record.get(offset_of!(types::event, comm)..)?.get(..16)?;
        Some(Self {
            time_ns: long(offset_of!(types::event, time))?,
            generation: number(offset_of!(types::event, generation))?,
            domain: number(offset_of!(types::event, domain))?,
            decision: Decision(number(offset_of!(types::event, decision))?),
            permission: *PERMISSIONS.get(usize::from(short(offset_of!(types::event, permission))?))?,
            hook,
            descriptor: (hook == Hook::PreexistingFile).then_some(descriptor),
            pid: number(offset_of!(types::event, pid))?,
            tgid: number(offset_of!(types::event, tgid))?,
            parent_tgid: number(offset_of!(types::event, parent_tgid))?,
            ns_pid: number(offset_of!(types::event, ns_pid))?,
            ns_parent: number(offset_of!(types::event, ns_parent))?,
            uid: number(offset_of!(types::event, uid))?,
            cgroup: long(offset_of!(types::event, cgroup))?,
            comm: escaped(comm.split(|&byte| byte == 0).next()?),
            about_new_path: short(offset_of!(types::event, about_new_path))? != 0,
            path,
            new_path,
            program,
            parent_program,
            container: container.try_into().ok().map(ContainerId),
        })
    }
}

/// The reading end of the ring. There is one ring per pin directory, and one reader at a time.
pub struct Events {
    ring: RingBuffer<'static>,
    /// Filled by the ring's callback while `drain` runs.
    decoded: Arc<Mutex<Vec<Event>>>,
    /// Keeps the map's descriptor open that `ring` waits on.
    _map: MapHandle,
}

impl Events {
    pub(crate) fn new(map: MapHandle) -> Result<Self, BpfError> {
        let decoded = Arc::new(Mutex::new(Vec::new()));
        let sink = RefCell::new(Arc::clone(&decoded));
        let mut builder = RingBufferBuilder::new();
        let added = builder.add(&map, move |record| {
            if let Some(event) = Event::decode(record) {
                sink.borrow_mut().lock().unwrap_or_else(PoisonError::into_inner).push(event);
            }
            0
        });
        added.map_err(|source| BpfError::Map { map: "events", source })?;
        let ring = builder.build().map_err(|source| BpfError::Map { map: "events", source })?;
        Ok(Self { ring, decoded, _map: map })
    }

    /// Readable (epoll) when events wait.
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is the ring's own epoll instance, open as long as `self.ring`, which `self` keeps.
        unsafe { BorrowedFd::borrow_raw(self.ring.epoll_fd()) }
    }

    /// Takes up to `max` events that wait, the oldest first, without blocking.
    pub fn drain(&mut self, max: usize) -> Result<Vec<Event>, BpfError> {
        let taken = self.ring.consume_raw_n(max);
        if taken < 0 {
            let source = libbpf_rs::Error::from_raw_os_error(-taken);
            return Err(BpfError::Map { map: "events", source });
        }
        Ok(std::mem::take(&mut *self.decoded.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}
