//! Decodes the events that the kernel side puts into the ring buffer.

use std::cell::RefCell;
use std::mem::offset_of;
use std::net::SocketAddr;
use std::num::NonZero;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

use armor_policy::capability::Capability;
use armor_policy::decision::Decision;
use armor_policy::escaped;
use armor_policy::path::{PERMISSIONS, Permission};
use armor_policy::syscall::Syscall;
use libbpf_rs::{MapHandle, RingBuffer, RingBufferBuilder};

use crate::container::ContainerId;
use crate::contract::{
    self, capability_event, dns_event, event, event_header, event_kind, path_event, reserved_rule,
    socket_event, syscall_event,
};
use crate::error::BpfError;
use crate::socket_names;

/// Defines `Hook` from rows of its variant, its number in `enum hook`, and its name in `Data` of KubeArmor's alerts.
macro_rules! hooks {
    ($($(#[$doc:meta])* $hook:ident = $number:ident, $data:literal;)*) => {
        /// A `Hook` is the hook that decided, or the iterator that found a preexisting handle.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        #[allow(missing_docs)] // named after the kernel's hooks, include/linux/lsm_hook_defs.h
        pub enum Hook {
            $($(#[$doc])* $hook = contract::hook::$number.0 as u16,)*
        }

        impl Hook {
            fn from_number(number: u16) -> Option<Self> {
                match contract::hook(number.into()) {
                    $(contract::hook::$number => Some(Self::$hook),)*
                    _ => None,
                }
            }

            /// Returns the hook's name as KubeArmor writes it in `Data`, such as `lsm=FILE_OPEN`.
            pub fn data(self) -> &'static str {
                match self {
                    $(Self::$hook => $data,)*
                }
            }
        }
    };
}

hooks! {
    BprmCheckSecurity = BPRM_CHECK_SECURITY, "lsm=SECURITY_BPRM_CHECK";
    MmapFile = MMAP_FILE, "lsm=MMAP_FILE";
    FileMprotect = FILE_MPROTECT, "lsm=FILE_MPROTECT";
    FileOpen = FILE_OPEN, "lsm=FILE_OPEN";
    FileReceive = FILE_RECEIVE, "lsm=FILE_RECEIVE";
    FileTruncate = FILE_TRUNCATE, "lsm=FILE_TRUNCATE";
    PathTruncate = PATH_TRUNCATE, "lsm=PATH_TRUNCATE";
    PathChmod = PATH_CHMOD, "lsm=PATH_CHMOD";
    PathChown = PATH_CHOWN, "lsm=PATH_CHOWN";
    PathLink = PATH_LINK, "lsm=PATH_LINK";
    PathRename = PATH_RENAME, "lsm=PATH_RENAME";
    PathUnlink = PATH_UNLINK, "lsm=PATH_UNLINK";
    PathRmdir = PATH_RMDIR, "lsm=PATH_RMDIR";
    PathMkdir = PATH_MKDIR, "lsm=PATH_MKDIR";
    PathMknod = PATH_MKNOD, "lsm=PATH_MKNOD";
    PathSymlink = PATH_SYMLINK, "lsm=PATH_SYMLINK";
    SbMount = SB_MOUNT, "lsm=SB_MOUNT";
    MoveMount = MOVE_MOUNT, "lsm=MOVE_MOUNT";
    SbPivotroot = SB_PIVOTROOT, "lsm=SB_PIVOTROOT";
    SbUmount = SB_UMOUNT, "lsm=SB_UMOUNT";
    InodeCreate = INODE_CREATE, "lsm=INODE_CREATE";
    InodeLink = INODE_LINK, "lsm=INODE_LINK";
    InodeUnlink = INODE_UNLINK, "lsm=INODE_UNLINK";
    InodeSymlink = INODE_SYMLINK, "lsm=INODE_SYMLINK";
    InodeMkdir = INODE_MKDIR, "lsm=INODE_MKDIR";
    InodeRmdir = INODE_RMDIR, "lsm=INODE_RMDIR";
    InodeMknod = INODE_MKNOD, "lsm=INODE_MKNOD";
    InodeRename = INODE_RENAME, "lsm=INODE_RENAME";
    /// A descriptor that the process had before its rules.
    PreexistingFile = PREEXISTING_FILE, "iter=TASK_FILE";
    /// A mapping that the process had before its rules.
    PreexistingMapping = PREEXISTING_MAPPING, "iter=TASK_VMA";
    UnixStreamConnect = UNIX_STREAM_CONNECT, "lsm=UNIX_STREAM_CONNECT";
    UnixMaySend = UNIX_MAY_SEND, "lsm=UNIX_MAY_SEND";
    PathNotify = PATH_NOTIFY, "lsm=PATH_NOTIFY";
    InodeSetattr = INODE_SETATTR, "lsm=INODE_SETATTR";
    InodeSetxattr = INODE_SETXATTR, "lsm=INODE_SETXATTR";
    InodeRemovexattr = INODE_REMOVEXATTR, "lsm=INODE_REMOVEXATTR";
    InodeSetAcl = INODE_SET_ACL, "lsm=INODE_SET_ACL";
    InodeRemoveAcl = INODE_REMOVE_ACL, "lsm=INODE_REMOVE_ACL";
    InodeFileSetattr = INODE_FILE_SETATTR, "lsm=INODE_FILE_SETATTR";
    QuotaOn = QUOTA_ON, "lsm=QUOTA_ON";
    SbKernMount = SB_KERN_MOUNT, "lsm=SB_KERN_MOUNT";
    PtraceAccessCheck = PTRACE_ACCESS_CHECK, "lsm=PTRACE_ACCESS_CHECK";
    PtraceTraceme = PTRACE_TRACEME, "lsm=PTRACE_TRACEME";
    TaskKill = TASK_KILL, "lsm=TASK_KILL";
    TaskSetrlimit = TASK_SETRLIMIT, "lsm=TASK_SETRLIMIT";
    TaskSetscheduler = TASK_SETSCHEDULER, "lsm=TASK_SETSCHEDULER";
    Bpf = BPF_COMMAND, "lsm=BPF";
    BpfMap = BPF_MAP, "lsm=BPF_MAP";
    BpfProg = BPF_PROGRAM, "lsm=BPF_PROG";
    FsContextParseParam = FS_CONTEXT_PARSE_PARAM, "lsm=FS_CONTEXT_PARSE_PARAM";
    TaskPrctl = TASK_PRCTL, "lsm=TASK_PRCTL";
    SbRemount = SB_REMOUNT, "lsm=SB_REMOUNT";
    TaskSetioprio = TASK_SETIOPRIO, "lsm=TASK_SETIOPRIO";
    Capable = CAPABLE, "lsm=CAPABLE";
    SocketCreate = SOCKET_CREATE, "lsm=SOCKET_CREATE";
    SocketConnect = SOCKET_CONNECT, "lsm=SOCKET_CONNECT";
    SocketBind = SOCKET_BIND, "lsm=SOCKET_BIND";
    SocketListen = SOCKET_LISTEN, "lsm=SOCKET_LISTEN";
    SocketAccept = SOCKET_ACCEPT, "lsm=SOCKET_ACCEPT";
    SocketSendmsg = SOCKET_SENDMSG, "lsm=SOCKET_SENDMSG";
    /// Of a socket's descriptor.
    SocketReceive = SOCKET_RECEIVE, "lsm=FILE_RECEIVE";
    /// An option that sends what goes over a socket elsewhere.
    SocketSetsockopt = SOCKET_SETSOCKOPT, "lsm=SOCKET_SETSOCKOPT";
    InodeFollowLink = INODE_FOLLOW_LINK, "lsm=INODE_FOLLOW_LINK";
    InodeReadlink = INODE_READLINK, "lsm=INODE_READLINK";
    /// A system call begins.
    SyscallEnter = SYSCALL_ENTER, "syscall";
    /// A packet leaves a socket.
    CgroupEgress = CGROUP_EGRESS, "cgroup_skb=EGRESS";
    /// A program has its memory and has not begun to run.
    BprmCommittedCreds = BPRM_COMMITTED_CREDS, "lsm=BPRM_COMMITTED_CREDS";
    /// A packet with which communication begins comes to a socket.
    CgroupIngress = CGROUP_INGRESS, "cgroup_skb=INGRESS";
    SocketRecvmsg = SOCKET_RECVMSG, "lsm=SOCKET_RECVMSG";
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

/// An `Event` is a blocked or audited access. Its strings are escaped by [`escaped`](armor_policy::escaped()).
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
    /// The hook where the access was requested, or the iterator that found the handle.
    pub hook: Hook,
    /// The task that requested the access.
    pub task: Task,
    /// What was requested.
    pub access: Access,
}

/// A `Task` is the task that an [`Event`] is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
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
    /// Path of the task's program.
    pub program: String,
    /// Path of the parent's program.
    pub parent_program: String,
    /// The container, if the domain is [`UNIDENTIFIED_DOMAIN`](crate::UNIDENTIFIED_DOMAIN) and the task is
    /// still in the container's control group. The number of any other domain says which container it is.
    pub container: Option<ContainerId>,
}

/// An `Access` is what an [`Event`]'s task requested, by the kind of rule that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// An access to an object with a path, or one that a guard protects.
    Path(PathAccess),
    /// The use of a capability: its name in capabilities(7), or its number if it has none there.
    Capability(String),
    /// The use of a socket.
    Socket(SocketAccess),
    /// A question to a resolver: the name that it is for, or `None` if the name cannot be read.
    Dns(Option<String>),
    /// A system call.
    Syscall(SyscallAccess),
}

/// A `PathAccess` is an access to an object with a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathAccess {
    /// The requested permission.
    pub permission: Permission,
    /// The object's path; empty if it has none.
    pub path: String,
    /// The second path of a rename or link; empty otherwise.
    pub new_path: String,
    /// True if the decision is about `new_path`, not `path`.
    pub about_new_path: bool,
    /// The arguments of the started program with blanks between them, for [`Hook::BprmCommittedCreds`]; empty otherwise.
    pub arguments: String,
    /// The path of the script that was started, or of what else the kernel hands to an interpreter, if the object of an exec is not
    /// itself that file; empty otherwise.
    pub script: String,
    /// The interpreter that a started script names, in its own words; empty if the object is no script.
    pub interpreter: String,
    /// The descriptor's number, for [`Hook::PreexistingFile`].
    pub descriptor: Option<u32>,
}

/// A `SyscallAccess` is a system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyscallAccess {
    /// The call's name, or its number in the table if it has none.
    pub call: String,
    /// The path that the call names, if it was reported for that.
    pub path: Option<String>,
}

/// A `SocketAccess` is the use of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketAccess {
    /// The socket in KubeArmor's words, such as `protocol=TCP type=SOCK_STREAM`. Families other than IPv4 and IPv6
    /// are named too.
    pub socket: String,
    /// The address that the access names; `None` if it names none of IPv4 or IPv6.
    pub address: Option<SocketAddr>,
    /// The port of the socket to which the address came; `None` if it did not come to the socket.
    pub own_port: Option<NonZero<u16>>,
    /// The descriptor's number, for [`Hook::PreexistingFile`].
    pub descriptor: Option<u32>,
}

impl Access {
    /// Returns what is accessed, in a form for messages: a path, a capability's name, or a socket.
    #[must_use]
    pub fn object(&self) -> &str {
        match self {
            Self::Path(access) => &access.path,
            Self::Capability(name) => name,
            Self::Syscall(access) => access.path.as_ref().unwrap_or(&access.call),
            Self::Socket(access) => &access.socket,
            Self::Dns(name) => name.as_deref().unwrap_or("a name that cannot be read"),
        }
    }

    /// Returns the descriptor's number, for [`Hook::PreexistingFile`].
    #[must_use]
    pub fn descriptor(&self) -> Option<u32> {
        match self {
            Self::Path(access) => access.descriptor,
            Self::Capability(_) | Self::Syscall(_) | Self::Dns(_) => None,
            Self::Socket(access) => access.descriptor,
        }
    }
}

impl Event {
    /// Returns the guard that decided; `None` if the tables decided.
    pub fn guard(&self) -> Option<Guard> {
        match reserved_rule(self.decision.rule()) {
            reserved_rule::RULE_AGENT => Some(Guard::Agent),
            reserved_rule::RULE_OUTSIDE => Some(Guard::Outside),
            reserved_rule::RULE_HELPER => Some(Guard::Helper),
            reserved_rule::RULE_SOURCE => Some(Guard::Source),
            _ => None,
        }
    }
}

impl Event {
    /// Decodes the first of several consecutive records as the kernel side writes them, and returns it with its
    /// length in bytes; `None` if it is incomplete, or of a kind, hook or permission that does not exist.
    pub fn decode_first(records: &[u8]) -> Option<(Self, usize)> {
        let header: event_header = contract::read(records)?;
        let length = header.length as usize;
        Some((Self::decode(records.get(..length)?)?, length))
    }

    /// Decodes a record; `None` if it is too short, or of a kind, hook or permission that does not exist.
    fn decode(record: &[u8]) -> Option<Self> {
        let header: event_header = contract::read(record)?;
        let tail = record.get(offset_of!(event, tail)..)?;
        let mut strings = record.get(offset_of!(event, strings)..)?;
        let mut string = |length: u16| strings.split_off(..usize::from(length));
        let hook = Hook::from_number(header.hook)?;
        let access = match event_kind(header.kind.into()) {
            event_kind::EVENT_PATH => {
                let of_path: path_event = contract::read(tail)?;
                Access::Path(PathAccess {
                    permission: *PERMISSIONS.get(usize::from(of_path.permission))?,
                    path: escaped(string(of_path.path_length)?),
                    new_path: escaped(string(of_path.new_path_length)?),
                    about_new_path: of_path.about_new_path != 0,
                    arguments: arguments(string(of_path.arguments_length)?),
                    script: escaped(string(of_path.script_length)?),
                    interpreter: escaped(interpreter(string(of_path.line_length)?)),
                    descriptor: (hook == Hook::PreexistingFile).then_some(of_path.descriptor),
                })
            }
            event_kind::EVENT_CAPABILITY => {
                let number = contract::read::<capability_event>(tail)?.capability;
                let named = Capability::all().find(|capability| capability.number() as u32 == number);
                Access::Capability(named.map_or_else(|| number.to_string(), |named| named.to_string()))
            }
            event_kind::EVENT_SYSCALL => {
                let event: syscall_event = contract::read(tail)?;
                let named = Syscall::all().find(|call| call.number() as u32 == event.syscall);
                let path = escaped(string(event.path_length)?);
                let path = if path.is_empty() { "/".to_owned() } else { path };
                Access::Syscall(SyscallAccess {
                    call: named.map_or_else(|| event.syscall.to_string(), |named| named.to_string()),
                    path: (event.has_path != 0).then_some(path),
                })
            }
            event_kind::EVENT_DNS => {
                let question: dns_event = contract::read(tail)?;
                let name = escaped(string(u16::try_from(question.name_length).ok()?)?);
                let name = if name.is_empty() { ".".to_owned() } else { name };
                Access::Dns((question.is_named != 0).then_some(name))
            }
            event_kind::EVENT_SOCKET => {
                let socket: socket_event = contract::read(tail)?;
                Access::Socket(SocketAccess {
                    socket: socket_names::socket(&socket),
                    address: socket_names::address(&socket),
                    own_port: NonZero::new(socket.own_port),
                    descriptor: (hook == Hook::PreexistingFile).then_some(socket.descriptor),
                })
            }
            _ => return None,
        };
        let program = escaped(string(header.program_length)?);
        let parent_program = escaped(string(header.parent_program_length)?);
        let container = string(header.container_length)?;
        let task = Task {
            pid: header.pid,
            tgid: header.tgid,
            parent_tgid: header.parent_tgid,
            ns_pid: header.ns_pid,
            ns_parent: header.ns_parent,
            uid: header.uid,
            cgroup: header.cgroup,
            comm: escaped(header.comm.map(i8::cast_unsigned).split(|&byte| byte == 0).next()?),
            program,
            parent_program,
            container: container.try_into().ok().map(ContainerId),
        };
        Some(Self {
            time_ns: header.time,
            generation: header.generation,
            domain: header.domain,
            decision: Decision(header.decision),
            hook,
            task,
            access,
        })
    }
}

/// Returns arguments, each with a NUL behind it, in one line. What was cut off is marked.
fn arguments(strings: &[u8]) -> String {
    let (whole, mark) = strings.strip_suffix(b"\0").map_or((strings, "..."), |whole| (whole, ""));
    if strings.is_empty() {
        return String::new();
    }
    let shown: Vec<String> = whole.split(|&byte| byte == 0).map(escaped).collect();
    shown.join(" ") + mark
}

/// Returns the interpreter that a script's line names, by the kernel's rules (load_script(), fs/binfmt_script.c).
fn interpreter(line: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let name = &line[line.iter().take_while(|byte| is_blank(byte)).count()..];
    let end = name.iter().position(|byte| is_blank(byte) || matches!(byte, b'\n' | 0));
    &name[..end.unwrap_or(name.len())]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interpreter_is_what_the_kernel_would_look_for() {
        for (line, expected) in [
            ("/bin/sh\nexit", "/bin/sh"),
            (" \t /bin/sh -e -u\n", "/bin/sh"),
            ("/bin/sh\t-e\n", "/bin/sh"),
            ("/bin/sh\0\0\0", "/bin/sh"),
            ("/bin/sh\r\n", "/bin/sh\r"),
            ("  \n/bin/sh\n", ""),
            ("\0/bin/sh\n", ""),
            ("/a/name/without/an/end", "/a/name/without/an/end"),
            ("", ""),
        ] {
            assert_eq!(interpreter(line.as_bytes()), expected.as_bytes(), "{line:?}");
        }
    }
}
