/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Searches a mount tree: for the mounts by which it shows an object, for those that another mount is propagated
 * to, and for what is mounted on top of a path.
 *
 * The tree is the kernel's own, walked from the root of a mount namespace, so a mount counts from when it is made
 * until it is gone. The result is kept for the kernel's epoch of mounts (mount_lock). Code that uses it checks the
 * epochs again afterwards, with unchanged_since().
 */
#ifndef ARMOR_TREE_H
#define ARMOR_TREE_H

#include "mounts.bpf.h"

/* Maximum number of steps from mount to mount: twice the mounts that a namespace may hold (fs.mount-max). */
#define TREE_STEPS 200000

struct tree {
	struct scratch *scratch;
};

static __always_inline __u64 mount_of_child(struct list_head *node)
{
	return (__u64)node - bpf_core_field_offset(struct mount, mnt_child);
}

/* What a search through a mount tree looks for. */
enum tree_search {
	TREE_SUPER_BLOCK, /* mounts of this filesystem: address of the super_block */
	TREE_TYPE,	  /* mounts of any filesystem of this type: address of the file_system_type */
	TREE_MAGIC,	  /* mounts of any filesystem with this number */
	TREE_ROOT,	  /* mounts of this object alone: address of the dentry */
};

static __always_inline bool is_wanted(struct scratch *scratch, __u64 mount)
{
	struct super_block *sb = ADDRESS(mount, mount, mnt.mnt_sb);
	__u64 wanted = scratch->tree_wanted;

	switch (scratch->tree_search) {
	case TREE_SUPER_BLOCK:
		return (__u64)sb == wanted;
	case TREE_TYPE:
		return (__u64)ADDRESS(super_block, sb, s_type) == wanted;
	case TREE_MAGIC:
		return (__u32)FIELD(super_block, sb, s_magic) == wanted;
	case TREE_ROOT:
		return (__u64)ADDRESS(mount, mount, mnt.mnt_root) == wanted;
	}
	return false;
}

/* Adds the mount that the search is at. */
static __always_inline void add_shown(struct scratch *scratch, __u64 mount)
{
	__u32 count = scratch->shown.count;

	if (count < SHOWN_MOUNTS)
		scratch->shown.of[count & (SHOWN_MOUNTS - 1)] = mount;
	if (count <= SHOWN_MOUNTS)
		scratch->shown.count = count + 1;
}

/* Goes one step through the tree: down to the first child, on to the next one, or back to the parent. */
static __always_inline long advance_tree(struct scratch *scratch, __u64 mount)
{
	struct list_head *next;
	__u64 parent;

	if (!scratch->tree_returns) {
		next = ADDRESS(mount, mount, mnt_mounts.next);
		if (next && (__u64)next != mount + bpf_core_field_offset(struct mount, mnt_mounts)) {
			scratch->tree_at = mount_of_child(next);
			return 0;
		}
	}
	if (mount == scratch->tree_root) {
		scratch->tree_done = 1;
		return 1;
	}
	parent = (__u64)ADDRESS(mount, mount, mnt_parent);
	next = ADDRESS(mount, mount, mnt_child.next);
	if (!parent || !next)
		return 1;
	scratch->tree_returns = (__u64)next == parent + bpf_core_field_offset(struct mount, mnt_mounts);
	scratch->tree_at = scratch->tree_returns ? parent : mount_of_child(next);
	return 0;
}

static long tree_step(__u32 step, struct tree *tree)
{
	struct scratch *scratch = tree->scratch;
	__u64 mount = scratch->tree_at;

	if (!scratch->tree_returns && scratch->tree_wanted && is_wanted(scratch, mount))
		add_shown(scratch, mount);
	return advance_tree(scratch, mount);
}

static __always_inline void begin_tree(struct scratch *scratch, __u64 ns)
{
	scratch->shown.count = 0;
	scratch->tree_root = scratch->tree_at = (__u64)ADDRESS(mnt_namespace, ns, root);
	scratch->tree_returns = scratch->tree_done = 0;
}

static __always_inline struct shown_cache *shown_cache_of(__u32 number, __u64 filesystem)
{
	__u32 slot = ((filesystem >> 4) + number) * HASH_FACTOR >> (64 - SHOWN_LOG2);

	return bpf_map_lookup_elem(&shown_mounts, &slot);
}

/*
 * Fills scratch->shown with the mounts by which the mount namespace with this number shows the filesystem of
 * `dentry`, as of the epoch scratch->resolve_mounts. If `mnt` is not 0, it is a mount in the namespace
 * `place`. Returns 0 if the mounts cannot be determined. Global like write_path().
 */
__noinline __u32 find_shown(struct scratch *scratch, __u64 dentry, __u64 mnt, __u32 place, __u32 number)
{
	struct super_block *sb = ADDRESS(dentry, dentry, d_sb);
	struct tree tree = { .scratch = scratch };
	struct shown_cache *cache;
	__u32 hit, mounts;
	__u64 ns, magic;

	if (!scratch)
		return 0;
	mounts = scratch->resolve_mounts;
	magic = FIELD(super_block, sb, s_magic);
	scratch->tree_search = TREE_SUPER_BLOCK;
	scratch->tree_wanted = (__u64)sb;
	if (magic == NSFS_MAGIC) {
		scratch->tree_search = TREE_ROOT;
		scratch->tree_wanted = dentry;
	} else if (magic == AAFS_MAGIC) {
		scratch->tree_search = TREE_MAGIC;
		scratch->tree_wanted = SECURITYFS_MAGIC;
	} else if (is_the_kernels(magic)) {
		scratch->tree_search = TREE_TYPE;
		scratch->tree_wanted = (__u64)ADDRESS(super_block, sb, s_type);
	}
	cache = shown_cache_of(number, scratch->tree_wanted);
	if (!cache)
		return 0;
	bpf_spin_lock(&cache->lock);
	hit = cache->filesystem == scratch->tree_wanted && cache->mount_namespace == number && cache->mounts == mounts;
	if (hit) {
		/* There are hardly ever more. */
		scratch->shown.count = cache->shown.count;
		scratch->shown.of[0] = cache->shown.of[0];
		scratch->shown.of[1] = cache->shown.of[1];
		if (cache->shown.count > 2)
			scratch->shown = cache->shown;
	}
	bpf_spin_unlock(&cache->lock);
	if (hit)
		return 1;
	ns = mnt && place == number ? (__u64)ADDRESS(mount, mount_of((void *)mnt), mnt_ns) : namespace_at(number);
	if (!ns)
		return 0;
	begin_tree(scratch, ns);
	bpf_loop(TREE_STEPS, tree_step, &tree, 0);
	if (!scratch->tree_done)
		scratch->shown.count = SHOWN_MOUNTS + 1;
	load_fence(scratch);
	if (mounts & 1 || FIELD(seqcount, &mount_lock, sequence) != mounts)
		return 1; /* torn; the caller finds out */
	bpf_spin_lock(&cache->lock);
	cache->filesystem = scratch->tree_wanted;
	cache->mount_namespace = number;
	cache->mounts = mounts;
	cache->shown = scratch->shown;
	bpf_spin_unlock(&cache->lock);
	return 1;
}

/* Groups in a row that mounts are propagated from. A mount with more counts as one of each group. */
#define MASTERS 4

/* Returns whether what is mounted in a group is propagated to the mount. */
static __always_inline bool gets_from(__u64 mount, __u64 group)
{
	__u64 of = mount;

	for (int step = 0; step < MASTERS; step++) {
		if ((__u32)FIELD(mount, of, mnt_group_id) == group)
			return true;
		of = (__u64)ADDRESS(mount, of, mnt_master);
		if (!of)
			return false;
	}
	return true;
}

static long group_step(__u32 step, struct tree *tree)
{
	struct scratch *scratch = tree->scratch;
	__u64 mount = scratch->tree_at;

	if (!scratch->tree_returns && gets_from(mount, scratch->tree_wanted)) {
		scratch->shown.count = 1;
		return 1;
	}
	return advance_tree(scratch, mount);
}

/*
 * Returns whether what happens to a group of mounts happens in the mount namespace with this number too. True
 * if that cannot be told. Overwrites scratch->shown. Global like write_path().
 */
__noinline int is_propagated(struct scratch *scratch, __u32 group, __u32 number)
{
	struct tree tree = { .scratch = scratch };
	__u64 ns = namespace_at(number);

	if (!group || number == NAMESPACE_GONE)
		return false;
	if (!scratch || !ns)
		return true;
	begin_tree(scratch, ns);
	scratch->tree_wanted = group;
	bpf_loop(TREE_STEPS, group_step, &tree, 0);
	return scratch->shown.count || !scratch->tree_done;
}

/* Where a path leads once what is mounted on it is followed (lookup_mnt(), fs/namespace.c). */
struct topmost {
	__u64 mount, dentry;
	__u64 child; /* address of the list_head of the next child to look at; 0: none was looked at */
};

static __always_inline bool is_mountpoint(__u64 dentry)
{
	__u32 flag = DCACHE_MOUNTED_BEFORE_ENUM;

	if (bpf_core_enum_value_exists(enum dentry_flags, DCACHE_MOUNTED))
		flag = bpf_core_enum_value(enum dentry_flags, DCACHE_MOUNTED);
	return FIELD(dentry, dentry, d_flags) & flag;
}

/* Looks at one child of the mount, and goes on from it if it is mounted at the dentry. */
static long topmost_step(__u32 step, struct topmost *top)
{
	__u64 head = top->mount + bpf_core_field_offset(struct mount, mnt_mounts), child;

	if (!top->child)
		top->child = (__u64)ADDRESS(list_head, head, next);
	if (!top->child || top->child == head)
		return 1;
	child = mount_of_child((void *)top->child);
	if ((__u64)ADDRESS(mount, child, mnt_mountpoint) == top->dentry) {
		top->mount = child;
		top->dentry = (__u64)ADDRESS(mount, child, mnt.mnt_root);
		top->child = 0;
		return !is_mountpoint(top->dentry);
	}
	top->child = (__u64)ADDRESS(list_head, top->child, next);
	return 0;
}

static __always_inline void find_topmost(struct topmost *top)
{
	if (is_mountpoint(top->dentry))
		bpf_loop(TREE_STEPS, topmost_step, top, 0);
}

#endif
