/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Writes an object's path, from its end towards the front of scratch->path, as walking from a name to the root
 * yields it. A path comes from dentries and mounts alone, never from user memory. A directory's path ends in a
 * slash.
 */
#ifndef ARMOR_WALK_H
#define ARMOR_WALK_H

#include "core/mounts.bpf.h"

/* The kernel's epochs: every rename or mount moves one, odd meanwhile (fs/dcache.c, fs/namespace.c). */
extern const void rename_lock __ksym;
extern const void mount_lock __ksym;

struct epochs {
	__u32 renames;
	__u32 mounts;
};

static __always_inline struct epochs read_epochs(void)
{
	return (struct epochs){
		.renames = FIELD(seqcount, &rename_lock, sequence),
		.mounts = FIELD(seqcount, &mount_lock, sequence),
	};
}

/* Keeps later loads behind earlier ones. x86 loads in order anyway. */
static __always_inline void load_fence(struct scratch *scratch)
{
#ifdef __TARGET_ARCH_x86
	asm volatile("" ::: "memory");
#else
	__sync_fetch_and_or(&scratch->fence, 0);
#endif
}

static __always_inline bool quiet(struct epochs epochs)
{
	return !((epochs.renames | epochs.mounts) & 1);
}

/* Returns whether no name and no mount has moved since `before`. If so, a walk in between is not torn. */
static __always_inline bool unchanged_since(struct epochs before)
{
	struct epochs now = read_epochs();

	return quiet(before) && now.renames == before.renames && now.mounts == before.mounts;
}

enum walk_end {
	WALK_UNTOLD,
	WALK_ROOT,
	WALK_OUTSIDE,
	/* Not at an end: in AppArmor's own filesystem, which is in no mount tree but linked to by securityfs. */
	WALK_APPARMORS,
};

struct walk {
	char *path;
	struct dentry *dentry;
	struct mount *mount; /* 0: stay inside the filesystem, whatever is mounted on it */
	struct dentry *root; /* root of what `mount` shows, or of the filesystem */
	__u32 start;	     /* start of the path so far */
	__u32 end;	     /* enum walk_end */
};

/* Returns whether the kernel has found no parent of a dentry yet (reconnect_path(), fs/exportfs/expfs.c). */
static __always_inline bool is_disconnected(struct dentry *dentry)
{
	__u32 flag = DCACHE_DISCONNECTED_BEFORE_ENUM;

	if (bpf_core_enum_value_exists(enum dentry_flags, DCACHE_DISCONNECTED))
		flag = bpf_core_enum_value(enum dentry_flags, DCACHE_DISCONNECTED);
	return FIELD(dentry, dentry, d_flags) & flag;
}

/* Where securityfs has the link to AppArmor's own filesystem (security/apparmor/apparmorfs.c). */
#define APPARMORS_PLACE "/apparmor/policy"

/* Puts the place of AppArmor's filesystem in securityfs before a path in it. Returns false if there is no room. */
static __always_inline bool prefix_apparmors(struct walk *walk)
{
	__u32 start = walk->start, length = sizeof(APPARMORS_PLACE) - 1;

	if (start > PATH_CAPACITY || start < length)
		return false;
	start -= length;
	asm volatile("" : "+r"(start)); /* or clang drops the mask that the verifier asks for */
	__builtin_memcpy(&walk->path[start & (PATH_CAPACITY - 1)], APPARMORS_PLACE, sizeof(APPARMORS_PLACE) - 1);
	walk->start = start;
	walk->end = WALK_UNTOLD;
	return true;
}

/* Goes up by one name. Returns true at the end. */
static __always_inline bool climb(struct walk *walk)
{
	struct dentry *dentry = walk->dentry;
	struct dentry *parent = ADDRESS(dentry, dentry, d_parent);
	struct mount *mount = walk->mount;
	struct qstr name = {};
	__u32 start;

	if (dentry == walk->root) {
		struct mount *above = mount ? ADDRESS(mount, mount, mnt_parent) : 0;

		if (above == mount) {
			walk->end = WALK_ROOT;
			return true;
		}
		if (walk->end == WALK_APPARMORS && !prefix_apparmors(walk))
			return true;
		walk->dentry = ADDRESS(mount, mount, mnt_mountpoint);
		walk->mount = above;
		walk->root = ADDRESS(mount, above, mnt.mnt_root);
		return false;
	}
	if (dentry == parent) {
		/* Opened by a handle. It has a path, but the kernel has not looked for it. */
		if (is_disconnected(dentry))
			return true;
		/* Not below the mount's root: elsewhere in the filesystem, moved out, or never connected. */
		walk->end = WALK_OUTSIDE;
		return true;
	}
	if (bpf_ksym_exists(bpf_rdonly_cast)) {
		name.len = FIELD(dentry, dentry, d_name.len);
		name.name = ADDRESS(dentry, dentry, d_name.name);
	} else {
		/* One call instead of two. */
		bpf_core_read(&name, sizeof(name), &dentry->d_name);
	}
	start = walk->start;
	if (!name.len || name.len > NAME_MAX || start > PATH_CAPACITY || start < name.len + 1)
		return true;
	start -= name.len;
	if (bpf_probe_read_kernel(&walk->path[start & (PATH_CAPACITY - 1)], name.len & NAME_MAX, name.name))
		return true;
	start--;
	walk->path[start & (PATH_CAPACITY - 1)] = '/';
	walk->start = start;
	walk->dentry = parent;
	return false;
}

/* Goes up by several names per call: a call costs as much as a name's loads. */
static long walk_step(__u32 step, struct walk *walk)
{
	return climb(walk) || climb(walk) || climb(walk);
}

/* Values that write_path() returns instead of a path's start. */
#define PATH_UNTOLD (PATH_CAPACITY + 1)	 /* too long, or it cannot be read */
#define PATH_OUTSIDE (PATH_CAPACITY + 2) /* the mount does not show the object */

/*
 * Writes the path of `dentry` by the mount `mnt`. If `mnt` is 0, writes the path inside the filesystem,
 * whatever is mounted on it. If `mnt` shows another filesystem of the same type, the path is what it would be
 * there. Returns where the path starts. Global, so that the verifier follows it once per program and not once
 * per call.
 */
__noinline __u32 write_path(struct scratch *scratch, __u64 dentry, __u64 mnt, __u32 is_dir)
{
	struct walk walk = {
		.dentry = (struct dentry *)dentry,
		.start = PATH_CAPACITY - (is_dir & 1),
		.end = FIELD(super_block, ADDRESS(dentry, dentry, d_sb), s_magic) == AAFS_MAGIC ? WALK_APPARMORS :
												  WALK_UNTOLD,
	};
	struct super_block *sb = ADDRESS(dentry, dentry, d_sb), *shown = mnt ? ADDRESS(vfsmount, mnt, mnt_sb) : 0;

	if (!scratch)
		return PATH_UNTOLD;
	walk.root = ADDRESS(super_block, sb, s_root);
	if (mnt) {
		struct dentry *root = ADDRESS(vfsmount, mnt, mnt_root);

		walk.mount = mount_of((void *)mnt);
		if (shown == sb)
			walk.root = root;
		else if (root != ADDRESS(super_block, shown, s_root))
			return PATH_OUTSIDE;
	}
	walk.path = scratch->path;
	if (is_dir)
		scratch->path[PATH_CAPACITY - 1] = '/';
	bpf_loop(PATH_CAPACITY, walk_step, &walk, 0);
	if (walk.end == WALK_ROOT)
		return walk.start;
	return walk.end == WALK_OUTSIDE ? PATH_OUTSIDE : PATH_UNTOLD;
}

#endif
