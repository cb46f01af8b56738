/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Every map, and the scratch memory that one decision owns while it runs. */
#ifndef ARMOR_MAPS_H
#define ARMOR_MAPS_H

#include "abi.h"

struct image {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct image_page));
};

/* The live generation. One update of its only entry makes another one live. */
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

/* Which domain the tasks of a container belong to. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_DOMAIN);
	__type(key, struct container_id);
	__type(value, __u32);
} containers SEC(".maps");

/*
 * The mount namespace that a container was given: that of the first program which entered it from outside, or of its first process
 * where it ran before the agent knew it. Where its tasks go later makes none of them the container's.
 */
struct entry_root {
	__u32 mount_namespace; /* inode number, which another may have once this one is gone; 0: not known */
	__u32 process; /* the first process, as the host numbers it */
	__u64 sequence; /* of the namespace, which no other ever has; 0: not known yet */
	__u64 signal; /* address of the process's struct signal_struct, 0: not known */
};

/* By domain. */
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
 * Where mount namespaces are: by inode number, the address of the struct mnt_namespace, which counts as long as that number
 * stands there. Written for all that tasks are in before a generation that names them becomes live, and as containers are
 * entered.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_DOMAIN + 1);
	__type(key, __u32);
	__type(value, __u64);
} namespaces SEC(".maps");

/* Mounts of one filesystem in one mount namespace that are told apart: of one with more no name is certain. */
#define SHOWN_MOUNTS 64

/* The mounts by which a mount namespace shows a filesystem. */
struct shown {
	__u32 count; /* SHOWN_MOUNTS + 1: more than there is room for */
	__u32 reserved;
	__u64 of[SHOWN_MOUNTS]; /* addresses of struct mount */
};

/* The same as of an epoch of the kernel's mounts. */
struct shown_cache {
	struct bpf_spin_lock lock;
	__u32 mount_namespace;
	__u64 filesystem; /* address of its super_block, of its type for those that the kernel fills itself; 0: empty */
	__u32 mounts;
	__u32 reserved;
	struct shown shown;
};

#define SHOWN_LOG2 8

/* By the hash of namespace and filesystem. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << SHOWN_LOG2);
	__type(key, __u32);
	__type(value, struct shown_cache);
} shown_mounts SEC(".maps");

/* Objects with more classes are not remembered. */
#define CACHED_CLASSES 4
/* A layer's file that no rule names: nothing is to be decided. */
#define CLASS_UNNAMED 0xffff

/*
 * The object classes of an inode, valid only while everything that went into them is unchanged: generation, domain, mount,
 * and the kernel's own epochs of names (rename_lock) and mounts (mount_lock). Never filled for an inode that has, or ever
 * had, a second name: link() moves neither epoch.
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
	__u16 below; /* those of an overlay's layer are among them, if it is an overlay's */
	__u32 ever_linked;
};

struct {
	__uint(type, BPF_MAP_TYPE_INODE_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct verdict_cache);
} inodes SEC(".maps");

/* That a program of this class may write to a socket's name in silence, as of these epochs. */
struct peer_cache {
	struct bpf_spin_lock lock;
	__u32 generation;
	__u32 domain;
	__u32 subject;
	__u32 renames;
	__u32 mounts;
};

/* By the socket that has the name: a log's is written to with each line. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct peer_cache);
} peers SEC(".maps");

/* Which canonical names stand beside the mount path, for all that is in one directory. */
enum other_names {
	OTHERS_NONE,	/* none: the mount path is canonical, or nothing is known of the domain's own tree */
	OTHERS_ONE,
	OTHERS_FOREIGN, /* none: the domain's own tree does not show it */
	OTHERS_MANY,	/* several, or not the same for all in the directory */
};

/* What the names in a directory have in common: where their paths, up to the slash before the last name, led. */
struct directory {
	__u32 renames, mounts, removals; /* the epochs that this is as of */
	__u32 others; /* enum other_names */
	__u32 mount_state;
	__u32 canonical_state; /* of OTHER_ONE alone */
	__u32 known;	       /* it comes from the cache */
};

/* Moved before each removal of a directory. */
__u32 removals;

/*
 * The directories that files were found in, so that a file's first open scans its last name alone. Valid under the same
 * conditions as a verdict_cache. Not storage of the inode, because of a file's directory the verifier cannot tell that it is
 * held: an address may come to be another inode's, but then that has another number, or the directory was removed.
 */
struct directory_cache {
	struct bpf_spin_lock lock;
	__u32 generation;
	__u64 inode; /* address, 0: empty */
	__u64 number;
	__u64 mount;
	__u32 domain;
	struct directory directory;
};

#define DIRECTORIES_LOG2 12

#define HASH_FACTOR 11400714819323198485ull /* 2^64 / golden ratio */

/* By the hash of the inode's address. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << DIRECTORIES_LOG2);
	__type(key, __u32);
	__type(value, struct directory_cache);
} directories SEC(".maps");

/* By the agent; the value is an enum guarded_reach. */
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

/* Decisions at a time about names that may or may not be there (undecided.h). */
#define UNDECIDED 16

struct undecided {
	__u32 state; /* enum undecided_state */
	__u32 refused;
	__u64 task; /* addresses */
	__u64 dentry, parent;
	__u64 name; /* hash and length */
	__u64 time; /* CLOCK_BOOTTIME, nanoseconds */
	__u32 alerts_per_second;
	__u32 length; /* of its event */
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

/* How many are pending. */
__u32 pending;

/*
 * The same by so many bits of a hash of the task, so that whom nothing waits for is not held up by what waits for
 * others.
 */
#define UNDECIDED_TASK_BITS 6
__u32 pending_of[1 << UNDECIDED_TASK_BITS];

/* Their events, by place in the list. */
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
 * LSM programs may be preempted by another task that enters the same program on the same processor, so a buffer per
 * processor is not enough: each decision claims one of SCRATCH_SLOTS for itself. With none left it fails closed.
 */
#define SCRATCH_SLOTS 4

/* The classes under which one object stands; the strictest decision of all holds. */
#define CLASSES 6

struct classes {
	union {
		__u16 of[CLASSES]; /* each once; the first is that of its name in the mount tree, where it has one there */
		__u64 cached; /* the first CACHED_CLASSES */
	};
	__u32 count;
};

/* Names of a directory whose states are kept. */
#define NAME_STATES 4

/* What became of looking for names. */
enum find_outcome {
	FIND_NOTHING, /* it has none that counts */
	FIND_TORN,    /* subjects: renames kept its path from being told */
	FIND_NAMES,
};

/* Filesystems below one another (FILESYSTEM_MAX_STACK_DEPTH, include/linux/fs.h). */
#define OVERLAY_DEPTH 2

/* A name that an access is about, and what it resolved to. */
struct name {
	__u64 dentry; /* addresses, 0: no such name */
	__u64 mnt;    /* 0: all its canonical names, and no other */
	__u64 layers[OVERLAY_DEPTH]; /* addresses of the dentries in the layers that an overlay's file is in, 0: none, or it does not count */
	__u64 shown_by; /* the mount of a canonical name that it has, 0: none */
	__u32 place; /* enum place, or the mount namespace that shows it */
	__u32 first_canonical; /* the class of a canonical name, NO_CLASS: there is none */
	__u32 other_canonical; /* of another, where that differs; NO_CLASS: more than two differ */
	__u32 names; /* how many it has */
	__u32 states[NAME_STATES]; /* behind the first of them */
	struct classes classes;
	struct classes below; /* directories: of all that can lie below */
	__u32 is_dir;
	__u32 several; /* it is a file that has other names too */
	__u32 device;  /* it is a device's node */
	__u32 outcome; /* enum find_outcome */
	__u32 is_layer; /* a file below an overlay, opened by the kernel: what no rule names is not judged a second time */
	struct directory directory;
};

#define NO_CLASS (~0u)
/* Bytes of what stands for an object that has no path, with a 0 behind it. */
#define OBJECT_NAME 32

/* Which of the names of an access. */
enum which_name { NAME, NEW_NAME, PROGRAM, OTHER_PROGRAM, NAMES };

/* What an alert is about. */
struct access {
	__u64 task; /* address: who accesses */
	__u64 other; /* address, 0: none; the process that the access is about instead of a name */
	char object[OBJECT_NAME]; /* what it is about that has no path; empty: none */
	union {
		struct {
			struct name name;
			struct name new_name; /* rename and link: the other name */
			struct name program;  /* of the task */
			struct name other_program; /* of another task; ASK_MOUNTING: the first name, among the sources of rights */
		};
		struct name names[NAMES];
	};
	__u32 generation;
	__u32 domain;
	__u32 alerts_per_second;
	__u32 hook;
	__u32 permission;
	__u32 decision;
	__u32 about_new; /* which of the two names the decision is about */
};

/* What a hook asks judge() about. */
enum asked {
	ASK_SUBJECT,	 /* nothing but the class of the task's program, for its label */
	ASK_NAME,	 /* access.name */
	ASK_TWO_NAMES,	 /* access.new_name becomes one of access.name's */
	ASK_MOUNTING,	 /* a mount at access.name */
	ASK_DEVICE,	 /* the block device with this number, which no name of it leads to */
	ASK_LOOK,	 /* tasks[0] looks into tasks[1] */
	ASK_TRACED_EXEC, /* tasks[0] traces a task that starts access.name */
	ASK_SOURCE,	 /* whether access.name is a program that has rights by fromSource, or may be */
	ASK_REPORT,	 /* the decision in access was made, and is to be told of */
};

enum outcome {
	OUTCOME_UNRULED, /* the domain has no rules any more */
	OUTCOME_UNNAMED, /* it has no name that counts */
	OUTCOME_NAMED,	 /* access.name has classes now */
};

/* Asked by a hook's program, about scratch->access, and answered by judge(). */
struct question {
	__u32 asked; /* enum asked */
	__u32 permissions;
	__u32 old_permissions; /* ASK_TWO_NAMES: on the name that is there before */
	__u32 exchanges;       /* ASK_TWO_NAMES: the names change places */
	__u32 mounting;	       /* ASK_MOUNTING: enum mounting */
	__u32 device;	       /* ASK_DEVICE: dev_t */
	__u32 domain;	       /* whose rules: that of the task that asks */
	__u32 generation;      /* ASK_NAME: of the rules that what is known of access.name is by */
	__u32 dated;	       /* renames and mounts are the epochs (struct epochs) that the hook began at */
	__u32 renames, mounts;
	__u32 known;	       /* ASK_NAME: its classes are */
	__u32 created;	       /* ASK_NAME: the file was made by this open */
	__u32 undecided;       /* the kernel does not know yet whether the name is there */
	__u32 silent;	       /* ASK_LOOK: the decision is not to be told of */
	__u64 inode;	       /* ASK_NAME: the address of the object's own */
	__u64 tasks[2];	       /* addresses */
	struct label labels[2]; /* theirs */
	/* The answer, beside the verdict. */
	__u32 outcome;	/* ASK_NAME: enum outcome; if it is not OUTCOME_UNRULED, by the rules of access.generation and access.domain */
	__u32 allowed;	/* ASK_NAME: whoever owns it, and there is nothing to be told */
	__u32 subjects; /* ASK_NAME: of the task, as struct label has them */
};

/* What judge_access() has to find before it can decide: what one of access.names leads to. */
struct find {
	__u64 task; /* address: the name is that of this task's program; 0: it is set */
	__u32 which; /* enum which_name */
	__u32 subjects; /* among the sources of rights, not among the objects */
};

#define FINDS 4

/* Bytes of a control group's name that are looked at: more than any runtime writes before a container's id. */
#define GROUP_NAME 128

struct scratch {
	char path[2 * PATH_CAPACITY]; /* a path ends at PATH_CAPACITY; the rest lets the verifier bound every copy */
	/* Where a scan stands: the state or jump that it is at, the page last looked at, the next byte and the last. */
	__u32 scan_at, scan_page, scan_position, scan_end;
	struct find finds[FINDS];
	__u32 find_count;
	__u32 found; /* find_step(): whether there is anything to be found */
	__u32 decided[2];
	__u64 directory; /* check_file(): the address of its inode */
	__u32 slot; /* its own number */
	struct question question;
	__u32 fence; /* written by load_fence() */
	/* How far find_names() is: the epochs at its start, the name that it is at, and where that one's last part begins. */
	__u32 resolve_renames, resolve_mounts;
	__u32 resolve_subjects; /* whether the automaton is that of sources */
	__u32 resolve_at, resolve_is_last, resolve_last;
	__u64 resolve_dentry; /* the object's own, or that in a layer below */
	__u32 resolve_layer; /* how many layers below */
	__u32 resolve_layer_state;
	__u32 resolve_scans; /* a part of a path was written, which is to be scanned */
	__u32 resolve_canonical; /* how many names are canonical */
	__u32 resolve_done;
	/* How far find_shown() is: the mount that it is at, whether it comes back to it, and what it looks for. */
	__u64 tree_at, tree_root;
	__u32 tree_returns, tree_done;
	__u64 tree_filesystem;
	__u32 tree_by_type;
	struct shown shown;
	/* domain_of_container(): a control group's name, the id in it, where its reading stands, and whose domain it is. */
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

/* A number that the verifier knows: as one that it does not, so that it does not go through all behind it once for each. */
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

/* The scratch at a slot; only for who claimed it. */
static __always_inline struct scratch *scratch_at(__u32 slot)
{
	return bpf_map_lookup_elem(&scratches, &slot);
}

/* A scratch for oneself, 0 when all are taken. */
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
	/* Or the verifier follows each slot beside the others, to the end. */
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

/* No slot left means tasks preempting each other in the same place more than SCRATCH_SLOTS deep: refuse, and count it. */
static __always_inline int refuse_without_scratch(void)
{
	count(COUNT_UNRESOLVED);
	count(COUNT_BLOCKED);
	count(COUNT_DROPPED);
	return -EACCES;
}

#endif
