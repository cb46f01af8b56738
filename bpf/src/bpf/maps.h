/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Declares the maps, except for the scratch memory. */
#ifndef ARMOR_MAPS_H
#define ARMOR_MAPS_H

#include "contract.h"
#include "kernel.h"

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

/* Whether a device with this slot, the major number xor the minor, may have something guarded on it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, GUARDED_SLOTS);
	__type(key, __u32);
	__type(value, __u32);
} guarded_devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

/* Number of decisions that may wait until it is known whether their name exists (undecided.bpf.h). */
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

#endif
