/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * From a kernel object to its path, and from the path to a state of an automaton.
 *
 * A path is written from its end towards the front of scratch->path, as walking from a name to the root yields it. It
 * comes from dentries and mounts alone, never from user memory. A directory's path ends in a slash.
 */
#ifndef ARMOR_PATH_H
#define ARMOR_PATH_H

#include "kernel.h"
#include "maps.h"

/* The kernel's own epochs: odd while a rename or a mount is under way, moved by every one (fs/dcache.c, fs/namespace.c). */
extern const void rename_lock __ksym;
extern const void mount_lock __ksym;

struct epochs {
	__u32 renames;
	__u32 mounts;
};

static __always_inline struct epochs read_epochs(void)
{
	struct epochs now = {};

	bpf_probe_read_kernel(&now.renames, sizeof(now.renames), &rename_lock);
	bpf_probe_read_kernel(&now.mounts, sizeof(now.mounts), &mount_lock);
	return now;
}

static __always_inline bool quiet(struct epochs epochs)
{
	return !((epochs.renames | epochs.mounts) & 1);
}

/* Whether no name and no mount moved since `before`: what was walked in between is not torn. */
static __always_inline bool settled(struct epochs before)
{
	struct epochs now = read_epochs();

	return quiet(before) && now.renames == before.renames && now.mounts == before.mounts;
}

enum walk_end { WALK_TOO_LONG, WALK_ROOT, WALK_LOST };

struct walk {
	char *path;
	struct dentry *dentry;
	struct mount *mount; /* 0: stay inside the filesystem, whatever is mounted where */
	struct dentry *mount_root;
	__u32 start; /* of the path so far */
	__u32 end;   /* enum walk_end */
};

static long walk_step(__u32 step, struct walk *walk)
{
	struct dentry *dentry = walk->dentry;
	struct dentry *parent = BPF_CORE_READ(dentry, d_parent);
	struct mount *mount = walk->mount;
	const unsigned char *name;
	__u32 length, start;

	if (mount ? dentry == walk->mount_root : dentry == parent) {
		struct mount *above;

		if (!mount) {
			walk->end = dentry == walk->mount_root ? WALK_ROOT : WALK_LOST;
			return 1;
		}
		above = BPF_CORE_READ(mount, mnt_parent);
		if (above == mount) {
			walk->end = WALK_ROOT;
			return 1;
		}
		walk->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
		walk->mount = above;
		walk->mount_root = BPF_CORE_READ(above, mnt.mnt_root);
		return 0;
	}
	if (dentry == parent) {
		/* Outside of what is mounted: moved out of a bind mount's root, or never connected. */
		walk->end = WALK_LOST;
		return 1;
	}
	length = BPF_CORE_READ(dentry, d_name.len);
	name = BPF_CORE_READ(dentry, d_name.name);
	start = walk->start;
	if (!length || length > 255 || start > PATH_CAPACITY || start < length + 1) {
		walk->end = length && length <= 255 ? WALK_TOO_LONG : WALK_LOST;
		return 1;
	}
	start -= length;
	if (bpf_probe_read_kernel(&walk->path[start & (PATH_CAPACITY - 1)], length & 255, name)) {
		walk->end = WALK_LOST;
		return 1;
	}
	start--;
	walk->path[start & (PATH_CAPACITY - 1)] = '/';
	walk->start = start;
	walk->dentry = parent;
	return 0;
}

static __always_inline struct mount *mount_of(struct vfsmount *mnt)
{
	return (void *)mnt - bpf_core_field_offset(struct mount, mnt);
}

/*
 * Writes the path of `dentry` below `mount`, or inside its filesystem when `mount` is 0 and `root` is the filesystem's.
 * Returns where it starts, PATH_CAPACITY + 1 when it cannot be told. Global, so that the verifier sees it once per program
 * and not once per call.
 */
__noinline __u32 write_path(struct scratch *scratch, __u64 dentry, __u64 mount, __u64 root, __u32 directory)
{
	struct walk walk = {
		.dentry = (struct dentry *)dentry,
		.mount = (struct mount *)mount,
		.mount_root = (struct dentry *)root,
		.start = PATH_CAPACITY - (directory & 1),
		.end = WALK_TOO_LONG,
	};

	if (!scratch)
		return PATH_CAPACITY + 1;
	walk.path = scratch->path;
	if (directory)
		scratch->path[PATH_CAPACITY - 1] = '/';
	bpf_loop(PATH_CAPACITY, walk_step, &walk, 0);
	return walk.end == WALK_ROOT ? walk.start : PATH_CAPACITY + 1;
}

/* The path in the mount tree. */
static __always_inline __u32 write_view(struct scratch *scratch, __u64 dentry, __u64 mnt, __u32 directory)
{
	struct vfsmount *mount = (void *)mnt;

	return write_path(scratch, dentry, (__u64)mount_of(mount), (__u64)BPF_CORE_READ(mount, mnt_root), directory);
}

/* The path inside its filesystem, whatever is mounted where. */
static __always_inline __u32 write_inside(struct scratch *scratch, __u64 dentry, __u64 mnt, __u32 directory)
{
	struct vfsmount *mount = (void *)mnt;

	return write_path(scratch, dentry, 0, (__u64)BPF_CORE_READ(mount, mnt_sb, s_root), directory);
}

/* What scan_path returns when there is no path, or the image does not hold the automaton. */
#define NO_STATE (~0u)

struct scan {
	void *image;
	char *path;
	__u32 slots; /* word of the automaton's slot 0 */
	__u32 state;
	__u32 start;
	__u32 broken;
};

static __always_inline __u64 *word(void *image, __u32 index)
{
	return bpf_map_lookup_elem(image, &index);
}

static long scan_step(__u32 step, struct scan *scan)
{
	__u32 state = scan->state;
	__u8 byte = scan->path[(scan->start + step) & (PATH_CAPACITY - 1)];
	__u64 *slot = word(scan->image, scan->slots + state + byte);

	if (slot && (__u32)*slot == state) {
		scan->state = *slot >> 32;
		return 0;
	}
	slot = word(scan->image, scan->slots + state);
	if (!slot) {
		scan->broken = 1;
		return 1;
	}
	scan->state = (__u32)*slot & ~SLOT_RECORD;
	return 0;
}

/* The state that the path in scratch reaches from `state`. */
static __noinline __u32 scan_path(void *image, struct scratch *scratch, __u32 slots, __u32 state, __u32 start)
{
	struct scan scan = {
		.image = image,
		.path = scratch->path,
		.slots = slots,
		.state = state,
		.start = start,
	};

	if (start > PATH_CAPACITY)
		return NO_STATE;
	bpf_loop(PATH_CAPACITY - start, scan_step, &scan, 0);
	return scan.broken ? NO_STATE : scan.state;
}

#endif
