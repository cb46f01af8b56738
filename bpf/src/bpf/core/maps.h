/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Declares the maps that are no rule kind's own, except for the scratch memory. */
#ifndef ARMOR_MAPS_H
#define ARMOR_MAPS_H

#include "core/contract.h"
#include "core/kernel.h"

#define HASH_FACTOR 11400714819323198485ull /* 2^64 / golden ratio */

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

/*
 * Not 0 if the live generation may have rules for the host. Most tasks are the host's, and most hosts have none: this look takes a
 * quarter of the time of one into the image. It is set before such a generation is live, and cleared after the first that is none.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} host_ruled SEC(".maps");

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

/* A digest of the pins' names, which the agent writes once all are made, and no program reads. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} pinned SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

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

#endif
