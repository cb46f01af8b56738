/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Declares every map, and the scratch memory that a decision owns while it runs. */
#ifndef ARMOR_MAPS_H
#define ARMOR_MAPS_H

#include "contract.h"

struct image {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct image_page));
};

/* The live generation. One update of the only entry makes another generation live. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct image);
} live SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct label);
} labels SEC(".maps");

/* The domain of each container's tasks. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_DOMAIN);
	__type(key, struct container_id);
	__type(value, __u32);
} containers SEC(".maps");

/*
 * The mount namespace that a container was given: that of the first program which entered the container from
 * outside, or of its first process if it ran before the agent knew it. Namespaces that its tasks move to
 * later do not become the container's.
 */
struct entry_root {
	/* Inode number, which another namespace may have once this one is gone; 0: not known. */
	__u32 mount_namespace;
	__u32 process;	/* number of the first process in the host's pid namespace */
	__u64 sequence; /* unique number of the namespace, never used again; 0: not known yet */
	__u64 signal;	/* address of the process's struct signal_struct; 0: not known */
};

/* The entry root of each domain's container. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_DOMAIN + 1);
	__type(key, __u32);
	__type(value, struct entry_root);
} entrances SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct linked_key);
	__type(value, __u32);
} linked_files SEC(".maps");

/*
 * The address of the struct mnt_namespace for an inode number of a mount namespace. It is valid as long as
 * that number stands there. It is written for the namespaces of all tasks before a generation that names them
 * becomes live, and when containers are entered.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_DOMAIN + 1);
	__type(key, __u32);
	__type(value, __u64);
} namespaces SEC(".maps");

/* Mounts of one filesystem kept for one mount namespace. With more, no path on that filesystem is certain. */
#define SHOWN_MOUNTS 64

/* The mounts by which a mount namespace shows a filesystem. */
struct shown {
	__u32 count; /* SHOWN_MOUNTS + 1: there are more than fit */
	__u32 reserved;
	__u64 of[SHOWN_MOUNTS]; /* addresses of struct mount */
};

/* The mounts by which a namespace shows a filesystem, as of an epoch of the kernel's mounts. */
struct shown_cache {
	struct bpf_spin_lock lock;
	__u32 mount_namespace;
	/* Address of its super_block, or of its type if the kernel fills it (is_the_kernels()); 0: empty. */
	__u64 filesystem;
	__u32 mounts;
	__u32 reserved;
	struct shown shown;
};

#define SHOWN_LOG2 8

/* Indexed by a hash of namespace and filesystem. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << SHOWN_LOG2);
	__type(key, __u32);
	__type(value, struct shown_cache);
} shown_mounts SEC(".maps");

/* Objects with more classes are not cached. */
#define CACHED_CLASSES 4
/* Class of a file in an overlay's layer that no rule names: there is nothing to decide. */
#define CLASS_UNNAMED 0xffff

/*
 * The object classes of an inode. They are valid only while everything they depend on is unchanged:
 * generation, domain, mount, and the kernel's own epochs of names (rename_lock) and mounts (mount_lock). An
 * inode that has, or ever had, a second name is never cached, because link() moves neither epoch.
 */
struct verdict_cache {
	struct bpf_spin_lock lock;
	__u32 generation;
	__u32 domain;
	__u32 reserved;
	__u64 mount;
	__u32 renames;
	__u32 mounts;
	__u64 classes; /* as in struct classes */
	__u16 count;
	__u16 below; /* if it is an overlay's file, the classes of its layer's file are included */
	__u32 ever_linked;
};

struct {
	__uint(type, BPF_MAP_TYPE_INODE_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct verdict_cache);
} inodes SEC(".maps");

/* Records that programs of a subject may write to a socket's name without an alert, as of these epochs. */
struct peer_cache {
	struct bpf_spin_lock lock;
	__u32 generation;
	__u32 domain;
	__u32 subject;
	__u32 renames;
	__u32 mounts;
};

/* Attached to the socket that has the name. A log's socket is written to for each line. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct peer_cache);
} peers SEC(".maps");

/* The canonical paths that all objects in a directory have besides their mount path. */
enum other_names {
	OTHERS_NONE, /* none: the mount path is canonical, or the domain's own mount tree is not known */
	OTHERS_ONE,
	OTHERS_FOREIGN, /* none: the domain's own mount tree does not show the object */
	OTHERS_MANY,	/* several, or not the same for all objects in the directory */
};

/* The states of the automaton behind the path of a directory, from which the names in it are scanned. */
struct directory {
	__u32 renames, mounts, removals; /* epochs at which the states were found */
	__u32 others;			 /* enum other_names */
	__u32 mount_state;
	__u32 canonical_state; /* OTHERS_ONE: state of the canonical path */
	__u32 known;	       /* it comes from the cache */
};

/* Number of directory removals, counted before each one. */
__u32 removals;

/*
 * The directories of opened files, so that a file's first open scans only its last name. An entry is valid
 * under the same conditions as a verdict_cache. Entries are no inode storage, because the verifier cannot see
 * that the inode of a file's directory is held. The address may come to be another inode's, but that one has
 * another number, or the directory was removed.
 */
struct directory_cache {
	struct bpf_spin_lock lock;
	__u32 generation;
	__u64 inode; /* address; 0: empty */
	__u64 number;
	__u64 mount;
	__u32 domain;
	struct directory directory;
};

#define DIRECTORIES_LOG2 12

#define HASH_FACTOR 11400714819323198485ull /* 2^64 / golden ratio */

/* Indexed by a hash of the inode's address. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << DIRECTORIES_LOG2);
	__type(key, __u32);
	__type(value, struct directory_cache);
} directories SEC(".maps");

/* The objects that the guards protect, written by the agent. The value is an enum guarded_reach. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct guarded_key);
	__type(value, __u32);
} guarded SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

/* Number of decisions that may wait until it is known whether their name exists (undecided.h). */
#define UNDECIDED 16

struct undecided {
	__u32 state; /* enum undecided_state */
	__u32 refused;
	__u64 task; /* addresses */
	__u64 dentry, parent;
	__u64 name; /* hash and length */
	__u64 time; /* CLOCK_BOOTTIME, nanoseconds */
	__u32 alerts_per_second;
	__u32 length; /* length of the event's strings */
};

enum undecided_state { UNDECIDED_FREE, UNDECIDED_BUSY, UNDECIDED_PENDING };

struct undecided_list {
	struct undecided of[UNDECIDED];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct undecided_list);
} undecided SEC(".maps");

/* Number of pending decisions. */
__u32 pending;

/* The same by a hash of the task with so many bits: a task without pending decisions skips the list. */
#define UNDECIDED_TASK_BITS 6
__u32 pending_of[1 << UNDECIDED_TASK_BITS];

/* The events of the pending decisions, with the same indices. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, UNDECIDED);
	__type(key, __u32);
	__type(value, struct event);
} undecided_events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct rate_key {
	__u32 domain;
	__u32 rule;
};

struct rate {
	__u64 second;
	__u64 count;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct rate_key);
	__type(value, struct rate);
} rates SEC(".maps");

/*
 * An LSM program may be preempted by another task that enters the same program on the same processor, so one
 * buffer per processor is not enough. Each decision claims one of SCRATCH_SLOTS. If none is free, the access
 * is refused.
 */
#define SCRATCH_SLOTS 4

/*
 * The last open of each task that is to truncate the file and was reported. The truncation that follows is
 * part of that access. Tasks are told apart by so many bits of a hash.
 */
#define TRUNCATION_BITS 6

struct truncation {
	__u64 task, dentry; /* addresses */
	__u64 time;	    /* CLOCK_BOOTTIME, nanoseconds */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << TRUNCATION_BITS);
	__type(key, __u32);
	__type(value, struct truncation);
} truncations SEC(".maps");

/* Number of classes that an object may have. The strictest decision over all of them holds. */
#define CLASSES 6

struct classes {
	union {
		__u16 of[CLASSES]; /* each class once; the first is that of the mount path, if there is one */
		__u64 cached;	   /* the first CACHED_CLASSES */
	};
	__u32 count;
};

/* Number of paths of a directory whose states are kept. */
#define NAME_STATES 4

/* The result of a search for the paths of a name. */
enum find_outcome {
	FIND_NOTHING, /* there is no path that counts */
	FIND_TORN,    /* subjects: renames kept the path from being determined */
	FIND_NAMES,
};

/* Filesystems stacked on one another (FILESYSTEM_MAX_STACK_DEPTH, include/linux/fs.h). */
#define OVERLAY_DEPTH 2

/* A name that an access is about, and what it resolved to. */
struct name {
	__u64 dentry; /* addresses; 0: no such name */
	__u64 mnt;    /* 0: only the canonical paths count */
	/* Dentries of the file in an overlay's layers; 0: none, or not counted. */
	__u64 layers[OVERLAY_DEPTH];
	__u64 shown_by;	       /* mount of one of its canonical paths; 0: it has none */
	__u32 place;	       /* enum place, or the mount namespace that the mount is in */
	__u32 first_canonical; /* class of a canonical path; NO_CLASS: there is none */
	/* Class of another one, if it differs; SUBJECT_CONFLICT: more than two differ. */
	__u32 other_canonical;
	__u32 names;		   /* number of its paths */
	__u32 states[NAME_STATES]; /* states of the first of them */
	struct classes classes;
	struct classes below; /* directories: classes of everything that can lie below */
	__u32 is_dir;
	__u32 several; /* it is a file with other names too */
	__u32 device;  /* it is a device node */
	__u32 outcome; /* enum find_outcome */
	/* Of a mount's root: the mount tree has another mount at the same mountpoint, which goes with this one. */
	__u32 has_twin;
	__u32 is_layer; /* file that the kernel opened in a layer: judged only if a rule names it */
	struct directory directory;
};

#define NO_CLASS (~0u)
/* Bytes of the text that stands for an object without a path, with the final 0. */
#define OBJECT_NAME 32

/* Index of a name in struct access. */
enum which_name { NAME, NEW_NAME, PROGRAM, OTHER_PROGRAM, NAMES };

/* An access, as an alert reports it. */
struct access {
	__u64 task;		  /* address of the task that accesses */
	__u64 other;		  /* address of the task that the access is about instead of a name; 0: none */
	char object[OBJECT_NAME]; /* text for an object that has no path; empty: none */
	union {
		struct {
			struct name name;
			struct name new_name; /* rename and link: the other name */
			struct name program;  /* program of the task */
			/* Of another task; ASK_MOUNTING: the first name, by the subjects automaton. */
			struct name other_program;
		};
		struct name names[NAMES];
	};
	__u32 generation;
	__u32 domain;
	__u32 alerts_per_second;
	__u32 hook;
	__u32 permission;
	__u32 decision;
	__u32 about_new; /* the decision is about new_name */
};

/* The question that a hook asks judge(). */
enum asked {
	ASK_SUBJECT,	 /* only the class of the task's program, for its label */
	ASK_NAME,	 /* an access to access.name */
	ASK_TWO_NAMES,	 /* access.new_name becomes a name of access.name's object */
	ASK_MOUNTING,	 /* a mount is made, moved or taken away at access.name */
	ASK_DEVICE,	 /* the block device with this number is mounted; no name of it is known */
	ASK_LOOK,	 /* tasks[0] looks into tasks[1] */
	ASK_TRACED_EXEC, /* tasks[0] traces a task that starts access.name */
	ASK_SOURCE,	 /* whether access.name may be a program with rights by fromSource */
	ASK_REPORT,	 /* no question: the decision in access is made, and has to be reported */
};

enum outcome {
	OUTCOME_UNRULED, /* the domain has lost its rules */
	OUTCOME_UNNAMED, /* it has no path that counts */
	OUTCOME_NAMED,	 /* access.name has classes */
};

/* The question of a hook's program about scratch->access, which judge() answers. */
struct question {
	__u32 asked; /* enum asked */
	__u32 permissions;
	__u32 old_permissions; /* ASK_TWO_NAMES: those asked for on the existing name */
	__u32 exchanges;       /* ASK_TWO_NAMES: the names change places */
	__u32 mounting;	       /* ASK_MOUNTING: enum mounting */
	__u32 device;	       /* ASK_DEVICE: dev_t */
	__u32 domain;	       /* that of the task that asks; its rules apply */
	__u32 generation;      /* ASK_NAME: generation of the cached facts about access.name */
	__u32 dated;	       /* renames and mounts are the epochs (struct epochs) at which the hook began */
	__u32 renames, mounts;
	__u32 known;		/* ASK_NAME: the classes are known */
	__u32 created;		/* ASK_NAME: the file was made by this open */
	__u32 truncates;	/* ASK_NAME: this open truncates the file, in another hook */
	__u32 undecided;	/* the kernel does not know yet whether the name exists */
	__u32 silent;		/* ASK_LOOK: the decision is not reported */
	__u64 inode;		/* ASK_NAME: address of the object's own inode */
	__u64 tasks[2];		/* addresses */
	struct label labels[2]; /* labels of these tasks */
	/* The answer, besides the verdict. */
	/* ASK_NAME: enum outcome, by the rules of access.generation and access.domain if any. */
	__u32 outcome;
	__u32 allowed;	/* ASK_NAME: allowed for every owner, and nothing is to be reported */
	__u32 subjects; /* ASK_NAME: classes of the task's program, as in struct label */
};

/* A name in access.names that judge_access() has to resolve before it can decide. */
struct find {
	__u64 task;	/* address of the task whose program it is; 0: the name is already set */
	__u32 which;	/* enum which_name */
	__u32 subjects; /* with the subjects automaton, not with that of objects */
};

#define FINDS 4

/* Bytes of a control group's name that are read: more than any runtime writes before a container's id. */
#define GROUP_NAME 128

struct scratch {
	/* A path ends at PATH_CAPACITY; the rest lets the verifier bound every copy. */
	char path[2 * PATH_CAPACITY];
	/* Position of a scan: its state or jump, the last page used, the next byte and the end. */
	__u32 scan_at, scan_page, scan_position, scan_end;
	struct find finds[FINDS];
	__u32 find_count;
	__u32 found; /* find_step(): there is something to resolve */
	__u32 decided[2];
	__u64 directory; /* check_file(): address of the directory's inode */
	__u32 slot;	 /* index of this scratch */
	struct question question;
	__u32 fence; /* written by load_fence() */
	/* find_names(): epochs at its start, the path it is at, and the start of that path's last part. */
	__u32 resolve_renames, resolve_mounts;
	__u32 resolve_subjects; /* it uses the subjects automaton */
	__u32 resolve_at, resolve_is_last, resolve_last;
	__u64 resolve_dentry; /* the object's own, or that in a layer below */
	__u32 resolve_layer;  /* number of layers below the object */
	__u32 resolve_layer_state;
	__u32 resolve_scans;	 /* a part of a path was written and is to be scanned */
	__u32 resolve_canonical; /* number of canonical paths found */
	__u32 resolve_done;
	/* find_shown(): the mount it is at, whether it returns to that mount, and what it searches for. */
	__u64 tree_at, tree_root;
	__u32 tree_returns, tree_done;
	__u64 tree_wanted; /* what it looks for, by enum tree_search */
	__u32 tree_search;
	struct shown shown;
	/* domain_of_container(): a group's name, the id in it, the reading position, the container found. */
	char group_name[GROUP_NAME];
	struct container_id container;
	__u32 container_digits, container_found;
	struct container_id outermost;
	struct access access;
	struct event event;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCH_SLOTS);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} claims SEC(".maps");

/* Always 0, which the verifier cannot know. */
volatile __u32 never;

/* Hides a constant from the verifier, which would otherwise go through the code behind it for each value. */
static __always_inline __u32 unknown(__u32 number)
{
	return number + never;
}

static __always_inline void count(enum counter which)
{
	__u32 key = which;
	__u64 *value = bpf_map_lookup_elem(&counters, &key);

	if (value)
		__sync_fetch_and_add(value, 1);
}

/* Returns the scratch at an index. Only the code that claimed it may use it. */
static __always_inline struct scratch *scratch_at(__u32 slot)
{
	return bpf_map_lookup_elem(&scratches, &slot);
}

/* Claims a scratch. Returns 0 if all are taken. */
static __always_inline struct scratch *claim_scratch(void)
{
	__u32 key = 0, *claimed = bpf_map_lookup_elem(&claims, &key), slot;
	struct scratch *scratch;

	if (!claimed)
		return 0;
#pragma unroll
	for (slot = 0; slot < SCRATCH_SLOTS; slot++) {
		__u32 bit = 1u << slot;

		if (!(__sync_fetch_and_or(claimed, bit) & bit))
			break;
	}
	/* Otherwise the verifier follows each index separately, to the end. */
	slot = unknown(slot);
	scratch = scratch_at(slot);
	if (scratch)
		scratch->slot = slot;
	return scratch;
}

static __always_inline void release_scratch(const struct scratch *scratch)
{
	__u32 key = 0, *claimed = bpf_map_lookup_elem(&claims, &key);

	if (claimed)
		__sync_fetch_and_and(claimed, ~(1u << (scratch->slot & 31)));
}

/* Refuses and counts an access for which tasks that preempt each other in one place left no scratch. */
static __always_inline int refuse_without_scratch(void)
{
	count(COUNT_UNRESOLVED);
	count(COUNT_BLOCKED);
	count(COUNT_DROPPED);
	return -EACCES;
}

#endif
