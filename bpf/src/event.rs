//! Decodes the events that the kernel side puts into the ring buffer.

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

/// A `Hook` is the hook that decided, or the iterator that found a preexisting handle. The discriminant is
/// that of `enum hook` in `abi.h`.
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
    /// A descriptor that the process had before its rules.
    PreexistingFile,
    /// A mapping that the process had before its rules.
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
    /// Returns the hook's name as KubeArmor writes it in `Data`, such as `lsm=FILE_OPEN`.
    pub fn data(self) -> &'static str {
        HOOKS[self as usize].1
    }
}

/// A `Guard` protects something that no policy's rule names. Its decisions have a reserved rule number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    /// Protects the agent: its programs and maps, their pins, its process and files.
    Agent,
    /// Protects processes outside of the task's domain.
    Outside,
    /// Protects settings that name a program which the kernel starts.
    Helper,
    /// Protects programs that have rights by `fromSource`: nothing is mounted over them or over a directory
    /// that leads to them, and no process names another file as its own program.
    Source,
}

/// `RULE_AGENT` of `abi.h`, which is `RULE_MASK` there. The numbers of the other guards are just below it.
const RULE_AGENT: u32 = (1 << 30) - 1;

/// An `Event` is a blocked or audited access. Its strings are escaped by [`escaped`](crate::escaped()).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Time of the decision, CLOCK_BOOTTIME in nanoseconds.
    pub time_ns: u64,
    /// The generation that decided.
    pub generation: u32,
    /// The task's domain.
    pub domain: u32,
    /// The verdict and the rule.
    pub decision: Decision,
    /// The requested permission.
    pub permission: Permission,
    /// The hook where the access was requested, or the iterator that found the handle.
    pub hook: Hook,
    /// The descriptor's number, for [`Hook::PreexistingFile`].
    pub descriptor: Option<u32>,
    /// Thread id, in the host's pid namespace.
    pub pid: u32,
    /// Process id, in the host's pid namespace.
    pub tgid: u32,
    /// Parent's process id, in the host's pid namespace.
    pub parent_tgid: u32,
    /// Process id, in the process's own pid namespace.
    pub ns_pid: u32,
    /// Parent's process id, in the parent's own pid namespace.
    pub ns_parent: u32,
    /// Real user id, in the host's user namespace.
    pub uid: u32,
    /// Id of the task's cgroup (v2).
    pub cgroup: u64,
    /// The thread's name.
    pub comm: String,
    /// The object's path; empty if it has none.
    pub path: String,
    /// The second path of a rename or link; empty otherwise.
    pub new_path: String,
    /// True if the decision is about `new_path`, not `path`.
    pub about_new_path: bool,
    /// Path of the task's program.
    pub program: String,
    /// Path of the parent's program.
    pub parent_program: String,
    /// The container, if the domain is [`UNIDENTIFIED_DOMAIN`](crate::UNIDENTIFIED_DOMAIN) and the task is
    /// still in the container's control group. The number of any other domain says which container it is.
    pub container: Option<ContainerId>,
}

impl Event {
    /// Returns the guard that decided; `None` if the tables decided.
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

/// Offset of an event's strings.
const STRINGS: usize = offset_of!(types::event, strings);

impl Event {
    /// Decodes the first of several consecutive records, and returns it with its length; `None` if it is
    /// incomplete, or if `decode` returns `None`.
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

    /// Decodes a record; `None` if it is too short, or of a hook or permission that does not exist.
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

/// An `Events` is the reading end of the ring buffer. There is one ring buffer per pin directory, and one
/// reader at a time.
pub struct Events {
    ring: RingBuffer<'static>,
    /// Events that the ring buffer's callback has decoded while `drain` runs.
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

    /// Returns a descriptor that epoll reports as readable when events wait.
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is the ring's own epoll instance, open as long as `self.ring`, which `self`
        // keeps.
        unsafe { BorrowedFd::borrow_raw(self.ring.epoll_fd()) }
    }

    /// Takes up to `max` waiting events, the oldest first, without blocking.
    pub fn drain(&mut self, max: usize) -> Result<Vec<Event>, BpfError> {
        let taken = self.ring.consume_raw_n(max);
        if taken < 0 {
            let source = libbpf_rs::Error::from_raw_os_error(-taken);
            return Err(BpfError::Map { map: "events", source });
        }
        Ok(std::mem::take(&mut *self.decoded.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}
