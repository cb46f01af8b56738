/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Defines what the kernel programs and the Rust side share. It is the only contract between them.
 *
 * A generation is an image, an array of 64-bit words in pages:
 *   The words [d * IMAGE_DOMAIN_WORDS ..] are the struct image_domain of domain d, for all d up to
 *   MAX_DOMAIN. A domain without DOMAIN_RULED has no rules.
 *   Automata, cells and vectors follow in any order. The offsets in struct image_domain lead to them.
 *
 * A word of an automaton is a policy::automaton::Slot, with `check` in the low half. A
 * policy::automaton::Jump is two words, aligned to two: its bytes as they lie in memory, then `from` in the low
 * half and `to` in the high half. A vector is four words, one per permission: the decision for tasks that do not own the file in
 * the low half, for its owner in the high half. A cell has a vector's index in its low half. In its high
 * half, bit 2 * permission + owner is set if that decision is not a silent allow, and bit CELL_BLOCKED + 2 *
 * permission + owner if it is a refusal; from bit CELL_LIST on it has the number of the list that decides on the arguments of
 * what is started, 0 for none.
 *
 * A keyed table (policy::keyed::KeyedTable) has a word for each subject class: the first word of the class's row
 * in the low half, the number of keys in the high half. A row has a decision for each key and one for every other
 * number, two to a word, the first in the low half.
 *
 * Where a trie of addresses begins, and each entry of its nodes, is the word of a node, of a list if it is marked with
 * ENTRY_LIST, or ENTRY_SILENT if everything is silently allowed with these addresses. A node has an entry for each value of
 * the next TRIE_STRIDE bits, two to a word, the first in the low half. A list is the number of its ranges, then for each the
 * first key in the low half and the cell in the high half.
 */
#ifndef ARMOR_CONTRACT_H
#define ARMOR_CONTRACT_H

#include <linux/types.h>

/*
 * Rust gets these enums and structs from the type information that the compiler puts into the object, so each name and number
 * stands here alone. What the policy compiler defines is asserted to be the same, member by member (contract.rs).
 */

enum domain_number {
	HOST_DOMAIN = 0,
	/* The domain of all containers that the agent has not named. */
	UNIDENTIFIED_DOMAIN = 2046,
	/* The last domain with a head in every image. Tasks whose label has a higher number are under no rules. */
	MAX_DOMAIN = 2047,
};

enum image_size {
	/* Words that one map lookup reaches. */
	IMAGE_PAGE_WORDS = 4096,
	/* A power of two, so that no head lies across two pages. */
	IMAGE_DOMAIN_WORDS = 8,
	/* Bytes of a policy::automaton::Jump. */
	JUMP_BYTES = 8,
	/* Bits of an address that one node takes. */
	TRIE_STRIDE = 4,
};

enum event_size {
	PATH_CAPACITY = 4096,
	/* A container's id has 64 hexadecimal digits, which are stored as 32 bytes. */
	CONTAINER_ID_BYTES = 32,
	/* Bytes of a script that say its interpreter: what the kernel reads of it, without "#!". */
	SCRIPT_LINE = 254,
	/* Four paths and a container's id. */
	EVENT_STRINGS = 4 * PATH_CAPACITY + CONTAINER_ID_BYTES,
};

/* Bits of policy::automaton::Slot, of policy::decision::Decision, and of a cell. */
enum table_bit {
	CELL_BLOCKED = 8,
	CELL_LIST = 16,
	VERDICT_SHIFT = 30,
	SLOT_MARK = 31,
};

#define SLOT_RECORD (1u << SLOT_MARK)
#define SLOT_JUMP (1u << SLOT_MARK)
#define ENTRY_LIST (1u << SLOT_MARK)
#define ENTRY_SILENT (~0u)
#define RULE_MASK ((1u << VERDICT_SHIFT) - 1)

enum object_class { OBJECT_NONE, OBJECT_ANONYMOUS, OBJECT_UNRESOLVED };

enum subject_class {
	SUBJECT_NONE,
	/* More than two classes at once. Rights that depend on the class are refused. */
	SUBJECT_CONFLICT = 0xffff,
};

enum verdict { VERDICT_ALLOW, VERDICT_AUDIT, VERDICT_BLOCK };

enum reserved_rule {
	RULE_POSTURE,
	RULE_UNRESOLVED,
	/* Rule numbers of the guards (guard.bpf.h), for refusals that no policy asks for. No table reaches them. */
	/* Passing for a program with rights by fromSource, by a mount over it or PR_SET_MM. */
	RULE_SOURCE = RULE_MASK - 3,
	RULE_HELPER,  /* a setting that makes the kernel start a program */
	RULE_OUTSIDE, /* a process outside of the task's domain */
	RULE_AGENT,   /* the agent's programs, maps, pins, processes and files */
};

enum permission { READ, WRITE, EXEC, MAP, PERMISSIONS };

enum hook {
	BPRM_CHECK_SECURITY,
	MMAP_FILE,
	FILE_MPROTECT,
	FILE_OPEN,
	FILE_RECEIVE,
	FILE_TRUNCATE,
	PATH_TRUNCATE,
	PATH_CHMOD,
	PATH_CHOWN,
	PATH_LINK,
	PATH_RENAME,
	PATH_UNLINK,
	PATH_RMDIR,
	PATH_MKDIR,
	PATH_MKNOD,
	PATH_SYMLINK,
	SB_MOUNT,
	MOVE_MOUNT,
	SB_PIVOTROOT,
	SB_UMOUNT,
	INODE_CREATE,
	INODE_LINK,
	INODE_UNLINK,
	INODE_SYMLINK,
	INODE_MKDIR,
	INODE_RMDIR,
	INODE_MKNOD,
	INODE_RENAME,
	/* No hooks: preexisting handles, which a task had before its rules. */
	PREEXISTING_FILE,
	PREEXISTING_MAPPING,
	/* Access without an open, and changes of attributes. */
	UNIX_STREAM_CONNECT,
	UNIX_MAY_SEND,
	PATH_NOTIFY,
	INODE_SETATTR,
	INODE_SETXATTR,
	INODE_REMOVEXATTR,
	INODE_SET_ACL,
	INODE_REMOVE_ACL,
	INODE_FILE_SETATTR,
	QUOTA_ON,
	SB_KERN_MOUNT,
	/* Hooks of the guards. */
	PTRACE_ACCESS_CHECK,
	PTRACE_TRACEME,
	TASK_KILL,
	TASK_SETRLIMIT,
	TASK_SETSCHEDULER,
	BPF_COMMAND,
	BPF_MAP,
	BPF_PROGRAM,
	FS_CONTEXT_PARSE_PARAM,
	TASK_PRCTL,
	SB_REMOUNT,
	TASK_SETIOPRIO,
	CAPABLE,
	SOCKET_CREATE,
	SOCKET_CONNECT,
	SOCKET_BIND,
	SOCKET_LISTEN,
	SOCKET_ACCEPT,
	SOCKET_SENDMSG,
	SOCKET_RECEIVE, /* file_receive, of a socket */
	SOCKET_SETSOCKOPT,
	INODE_FOLLOW_LINK,
	INODE_READLINK,
	SYSCALL_ENTER, /* no hook: a system call begins */
	CGROUP_EGRESS, /* no hook: a packet leaves a socket */
	BPRM_COMMITTED_CREDS,
	CGROUP_INGRESS, /* no hook: a packet comes to a socket */
	SOCKET_RECVMSG,
};

enum domain_flag {
	/* The domain has rules. */
	DOMAIN_RULED = 1 << 0,
	/* The domain's rules depend on the program, so its tasks need a subject class. */
	DOMAIN_SUBJECTS = 1 << 1,
	/* The domain's rules refuse something. If they only audit, the guards of guard.bpf.h only audit too. */
	DOMAIN_REFUSES = 1 << 2,
	/* A program that has rights by fromSource starts as if it were setuid. */
	DOMAIN_SECURE_SOURCES = 1 << 3,
	/* Rules for ingress depend on the peer. */
	DOMAIN_PEERS = 1 << 4,
	/* From here on a bit for each enum socket_kind, set if rules for protocols refuse or report it for some program. */
	DOMAIN_SOCKETS = 1 << 16,
};

struct image_page {
	__u64 words[IMAGE_PAGE_WORDS];
};

struct image_automaton {
	__u32 slots; /* word of slot 0 */
	__u32 jumps; /* word of jump 0 */
	__u32 start; /* state or jump at which a path begins */
};

struct image_domain {
	__u32 flags;
	__u32 generation; /* domain 0: set even if it has no rules */
	__u32 object_count;
	__u32 cells;   /* word of cell (0, 0) */
	__u32 vectors; /* word of vector 0 */
	/* Domain 0: inode number of the host's, set even if it has no rules; 0: not known. */
	__u32 mount_namespace;
	__u32 alerts_per_second; /* per rule; 0: unlimited */
	__u32 elsewhere;	 /* state of the objects automaton for a directory that no rule names */
	/* Added to the class of a program that a terminal controls: the number of classes of others; 0: it makes no difference. */
	__u32 terminals;
	struct image_automaton objects;
	struct image_automaton subjects;
	__u32 kinds; /* word of the struct image_kinds; 0: the domain has rules for paths alone */
};

/* A policy::destination::DestinationTable. */
struct image_destinations {
	__u32 ipv4; /* where the trie begins */
	__u32 ipv6;
	__u32 cells;   /* a keyed table; 0: it decides nothing */
	__u32 anybody; /* of ingress: the word of the list that decides where the peer is not known yet, like an entry */
};

/* Words of the tables of other kinds of rules than those for paths; 0: the domain has no rules of that kind. */
struct image_kinds {
	__u32 capabilities;  /* a keyed table */
	__u32 network;	     /* a keyed table */
	__u32 presets;	     /* a keyed table */
	__u32 syscalls;	     /* a keyed table */
	__u32 dns;	     /* a struct image_names */
	__u32 arguments;     /* a struct image_arguments */
	__u32 syscall_paths; /* a struct image_names, from calls and paths (policy::syscall::SyscallTable) */
	__u32 reserved;
	struct image_destinations egress, ingress;
};

/* A policy::path::ArgumentTables. */
struct image_arguments {
	struct image_automaton classes;
	__u32 lists; /* a keyed table, with the number of a list in place of a subject class */
};

/* What a list may permit: so many arguments, each of so many bytes. */
enum argument_limit { MAX_ARGUMENTS = 20, ARGUMENT_BYTES = 104 };

/* A policy::dns::NameTable. */
struct image_names {
	struct image_automaton names;
	__u32 cells; /* a keyed table */
};

/* A task's label. It is sticky, and children inherit it. */
struct label {
	__u32 domain;
	__u32 generation; /* generation that `subject` was computed for; 0: none */
	__u32 subject;	  /* two classes, one in each half, mostly the same one twice */
	__u32 entered;	  /* time of entry in seconds of CLOCK_BOOTTIME, and ENTERED_FLAGS */
};

/* Set while the program starts by which the task enters its container: some descriptors are yet to close. */
#define ENTERING (1u << 31)
/*
 * Set while a program runs that another task could make run its own code as it started: in a mount tree or
 * below a root of that task's making, or under its seccomp filter. It has no rights by fromSource.
 */
#define DISTRUSTED (1u << 30)
/* Set in what came into a container from outside after its first process, and in what that starts. */
#define SESSION (1u << 29)
#define ENTERED_FLAGS (ENTERING | DISTRUSTED | SESSION)

/* A container's id from its control group's name. */
struct container_id {
	__u8 bytes[CONTAINER_ID_BYTES];
};

/* A task with a label, as the iterator over all tasks writes it. */
struct labelled {
	__u32 domain;
	__u32 is_new; /* it had no label before */
};

/*
 * A file with several names, one of which the domain's rules give a class. For a device whose node they name,
 * `inode` is the device number (dev_t) and `device` is DEVICE_CHARACTER or DEVICE_BLOCK, which no filesystem
 * has.
 */
struct linked_key {
	__u32 generation;
	__u32 domain;
	__u64 inode;
	__u32 device;
	__u32 reserved;
};

/* Device numbers whose major no device has: they end at 511 (CHRDEV_MAJOR_MAX and BLKDEV_MAJOR_MAX, include/linux/fs.h). */
enum device_kind {
	DEVICE_CHARACTER = 1 << 30,
	DEVICE_BLOCK,
};

/* The kind of an object that the guards protect (guard.bpf.h), as the agent registers it. */
enum guarded_kind {
	GUARDED_FILE,	 /* `number` is the inode number, the value an enum guarded_reach */
	GUARDED_DEVICE,	 /* a filesystem with such files in it */
	GUARDED_PROCESS, /* `number` is the process id in the host's pid namespace */
	GUARDED_LINK,	 /* `number` is the link's id */
};

/* Slots of the map that says quickly of most devices that they have nothing guarded on them. */
enum guarded_slots { GUARDED_SLOTS = 64 };

enum guarded_reach {
	GUARDED_ITSELF, /* its name and attributes: a directory above a guarded one */
	GUARDED_BELOW,	/* it and everything below it */
};

struct guarded_key {
	__u32 kind;   /* enum guarded_kind */
	__u32 device; /* the kernel's s_dev; 0 if the kind has none */
	__u64 number; /* 0 if the kind has none */
};

enum counter {
	COUNT_BLOCKED,	    /* accesses refused */
	COUNT_AUDITED,	    /* accesses permitted that a rule or the posture reports */
	COUNT_REPORTED,	    /* events put into the ring buffer */
	COUNT_DROPPED,	    /* events for which the ring buffer had no room */
	COUNT_SUPPRESSED,   /* events past a rule's rate */
	COUNT_UNRESOLVED,   /* objects without a path, or with a path torn by renames */
	COUNT_UNIDENTIFIED, /* programs that were the first in an unidentified container */
	COUNT_ENTERED,	    /* programs by which containers were entered */
	COUNTERS,
};

/* What an event is about. */
enum event_kind {
	EVENT_PATH,	  /* struct path_event */
	EVENT_CAPABILITY, /* struct capability_event */
	EVENT_SOCKET,	  /* struct socket_event */
	EVENT_SYSCALL,	  /* struct syscall_event */
	EVENT_DNS,	  /* struct dns_event */
};

/* policy::preset::Preset. */
enum preset {
	PRESET_FILELESS_EXEC,
	PRESET_ANONYMOUS_MAP_EXEC,
	PRESET_PROTECT_ENV,
	PRESET_PROTECT_PROC,
	PRESET_EXEC,
	PRESETS,
};

/* Kinds of sockets: policy::network::SocketKind. From KIND_RAW_ICMP to KIND_PACKET, packets' own heads are the task's. */
enum socket_kind {
	KIND_TCP,
	KIND_UDP,
	KIND_PING,
	KIND_PING6,
	KIND_RAW_ICMP,
	KIND_RAW_ICMP6,
	KIND_RAW,
	KIND_PACKET,
	KIND_SCTP_STREAM,
	KIND_SCTP_SEQPACKET,
	KIND_DCCP,
	KIND_STREAM,
	KIND_DGRAM,
	KIND_RDM,
	KIND_SEQPACKET,
	KIND_OTHER,
	SOCKET_KINDS, /* at most as many as DOMAIN_SOCKETS leaves bits */
};

_Static_assert(SOCKET_KINDS <= 16, "the domain's flags have a bit for each kind");

/* What carries data between two addresses: policy::destination::Transport. */
enum transport {
	TRANSPORT_TCP,
	TRANSPORT_UDP,
	TRANSPORT_SCTP,
	TRANSPORT_DCCP,
	TRANSPORT_ICMP,
	TRANSPORT_OTHER,
};

/* Strings follow the event's tail in this order: those of the tail, then program, parent program and container. */
struct event_header {
	__u16 kind;   /* enum event_kind */
	__u16 hook;   /* enum hook */
	__u32 length; /* of the whole event with its strings, in bytes */
	__u64 time;   /* CLOCK_BOOTTIME, nanoseconds */
	__u64 cgroup;
	__u32 generation;
	__u32 domain;
	__u32 decision; /* policy::decision::Decision */
	__u32 pid, tgid, parent_tgid;
	__u32 ns_pid, ns_parent;
	__u32 uid;
	/* Lengths of strings. 0: not known. */
	__u16 program_length, parent_program_length;
	/* Of the id, for UNIDENTIFIED_DOMAIN only; other domains' numbers identify the container. */
	__u16 container_length;
	__u16 reserved[3];
	char comm[16];
};

struct path_event {
	__u32 descriptor;     /* PREEXISTING_FILE: the descriptor's number */
	__u16 permission;     /* enum permission */
	__u16 about_new_path; /* the decision is about the new name */
	/* Lengths of strings. 0: not known, or the access has none. */
	__u16 path_length, new_path_length;
	__u16 arguments_length; /* each argument with the 0 behind it */
	__u16 script_length;	/* path of the script whose interpreter the object is */
	__u16 line_length;	/* of the object, if it is a script: SCRIPT_LINE */
	__u16 reserved;
};

struct capability_event {
	__u32 capability; /* include/uapi/linux/capability.h */
};

struct socket_event {
	__u16 family;	      /* AF_* */
	__u16 type;	      /* SOCK_* */
	__u16 protocol;	      /* IPPROTO_*, or the family's own */
	__u16 address_family; /* AF_INET or AF_INET6; 0: the access has no address of these families */
	__u16 port;
	__u16 own_port;	  /* of a socket to which the address came; 0: it did not */
	__u32 descriptor; /* PREEXISTING_FILE: the descriptor's number */
	__u8 address[16]; /* in network order; the first four bytes for AF_INET */
};

struct syscall_event {
	__u32 syscall;	   /* policy::syscall::Syscall */
	__u16 path_length; /* of the path that the rule is about; 0: it is about no path, or about the root */
	__u16 has_path;	   /* the rule is about the path, which could be read */
};

/* Bits of the cookie with which a function is attached to that carries out a call: that of its number are the lowest. */
enum call_cookie {
	COOKIE_COMPAT = 16, /* set if the arguments are in the registers of programs of 32 bits */
	COOKIE_NARROW = 17, /* set if they have 32 bits */
	/* Where a path is, 0 if there is none: the path's argument from 1 on; four bits higher where a relative one begins. */
	COOKIE_PATH = 24,
	COOKIE_SECOND_PATH = 32,
};

/* Where a relative path begins, beside the number from 1 on of the argument with a descriptor. */
enum call_base {
	BASE_WORKING_DIRECTORY = 0,
	BASE_NOTHING = 15,
};

struct dns_event {
	__u32 name_length; /* of the name that is asked for; 0: that of the root */
	__u32 is_named;	   /* the name could be read */
};

union event_tail {
	struct path_event path;
	struct capability_event capability;
	struct socket_event socket;
	struct syscall_event syscall;
	struct dns_event dns;
};

/* An alert. It is cut behind the last byte of its strings when it goes into the ring buffer. */
struct event {
	struct event_header header;
	union event_tail tail;
	char strings[EVENT_STRINGS];
};

#endif
