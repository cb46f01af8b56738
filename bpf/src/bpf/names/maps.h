/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Declares the maps by which objects and programs are named. */
#ifndef ARMOR_NAMES_MAPS_H
#define ARMOR_NAMES_MAPS_H

#include "core/maps.h"
#include "names/types.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct linked_key);
	__type(value, __u32);
} linked_files SEC(".maps");

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

/* Indexed by a hash of the inode's address. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << DIRECTORIES_LOG2);
	__type(key, __u32);
	__type(value, struct directory_cache);
} directories SEC(".maps");

#endif
