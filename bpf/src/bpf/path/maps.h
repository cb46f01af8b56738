/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Declares the maps that rules on paths need: caches of verdicts, and decisions that wait. */
#ifndef ARMOR_PATH_MAPS_H
#define ARMOR_PATH_MAPS_H

#include "core/maps.h"

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
