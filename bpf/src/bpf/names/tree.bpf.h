/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Searches a mount tree for the mounts by which it shows an object, and for those that another mount is
 * propagated to.
 *
 * The tree is the kernel's own, walked from the root of a mount namespace, so a mount counts from when it is made
 * until it is gone. The result is kept for the kernel's epoch of mounts (mount_lock). Code that uses it checks the
 * epochs again afterwards, with unchanged_since().
 */
#ifndef ARMOR_TREE_H
#define ARMOR_TREE_H

#include "core/mounts.bpf.h"
#include "names/maps.h"
#include "names/walk.bpf.h"

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
	__u64 wanted = scratch->tree.wanted;

	switch (scratch->tree.search) {
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
	__u32 count = scratch->tree.shown.count;

	if (count < SHOWN_MOUNTS)
		scratch->tree.shown.of[count & (SHOWN_MOUNTS - 1)] = mount;
	if (count <= SHOWN_MOUNTS)
		scratch->tree.shown.count = count + 1;
}

/* Goes one step through the tree: down to the first child, on to the next one, or back to the parent. */
static __always_inline long advance_tree(struct scratch *scratch, __u64 mount)
{
	struct list_head *next;
	__u64 parent;

	if (!scratch->tree.returns) {
		next = ADDRESS(mount, mount, mnt_mounts.next);
		if (next && (__u64)next != mount + bpf_core_field_offset(struct mount, mnt_mounts)) {
			scratch->tree.at = mount_of_child(next);
			return 0;
		}
	}
	if (mount == scratch->tree.root) {
		scratch->tree.done = 1;
		return 1;
	}
	parent = (__u64)ADDRESS(mount, mount, mnt_parent);
	next = ADDRESS(mount, mount, mnt_child.next);
	if (!parent || !next)
		return 1;
	scratch->tree.returns = (__u64)next == parent + bpf_core_field_offset(struct mount, mnt_mounts);
	scratch->tree.at = scratch->tree.returns ? parent : mount_of_child(next);
	return 0;
}

static long tree_step(__u32 step, struct tree *tree)
{
	struct scratch *scratch = tree->scratch;
	__u64 mount = scratch->tree.at;

	if (!scratch->tree.returns && scratch->tree.wanted && is_wanted(scratch, mount))
		add_shown(scratch, mount);
	return advance_tree(scratch, mount);
}

static __always_inline void begin_tree(struct scratch *scratch, __u64 ns)
{
	scratch->tree.shown.count = 0;
	scratch->tree.root = scratch->tree.at = (__u64)ADDRESS(mnt_namespace, ns, root);
	scratch->tree.returns = scratch->tree.done = 0;
}

static __always_inline struct shown_cache *shown_cache_of(__u32 number, __u64 filesystem)
{
	__u32 slot = ((filesystem >> 4) + number) * HASH_FACTOR >> (64 - SHOWN_LOG2);

	return bpf_map_lookup_elem(&shown_mounts, &slot);
}

/*
 * Fills scratch->tree.shown with the mounts by which the mount namespace with this number shows the filesystem of
 * `dentry`, as of the epoch scratch->resolve.mounts. If `mnt` is not 0, it is a mount in the namespace
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
	mounts = scratch->resolve.mounts;
	magic = FIELD(super_block, sb, s_magic);
	scratch->tree.search = TREE_SUPER_BLOCK;
	scratch->tree.wanted = (__u64)sb;
	if (magic == NSFS_MAGIC) {
		scratch->tree.search = TREE_ROOT;
		scratch->tree.wanted = dentry;
	} else if (magic == AAFS_MAGIC) {
		scratch->tree.search = TREE_MAGIC;
		scratch->tree.wanted = SECURITYFS_MAGIC;
	} else if (is_the_kernels(magic)) {
		scratch->tree.search = TREE_TYPE;
		scratch->tree.wanted = (__u64)ADDRESS(super_block, sb, s_type);
	}
	cache = shown_cache_of(number, scratch->tree.wanted);
	if (!cache)
		return 0;
	bpf_spin_lock(&cache->lock);
	hit = cache->filesystem == scratch->tree.wanted && cache->mount_namespace == number && cache->mounts == mounts;
	if (hit) {
		/* There are hardly ever more. */
		scratch->tree.shown.count = cache->shown.count;
		scratch->tree.shown.of[0] = cache->shown.of[0];
		scratch->tree.shown.of[1] = cache->shown.of[1];
		if (cache->shown.count > 2)
			scratch->tree.shown = cache->shown;
	}
	bpf_spin_unlock(&cache->lock);
	if (hit)
		return 1;
	ns = mnt && place == number ? (__u64)ADDRESS(mount, mount_of((void *)mnt), mnt_ns) : namespace_at(number);
	if (!ns)
		return 0;
	begin_tree(scratch, ns);
	bpf_loop(TREE_STEPS, tree_step, &tree, 0);
	if (!scratch->tree.done)
		scratch->tree.shown.count = SHOWN_MOUNTS + 1;
	load_fence(scratch);
	if (mounts & 1 || FIELD(seqcount, &mount_lock, sequence) != mounts)
		return 1; /* torn; the caller finds out */
	bpf_spin_lock(&cache->lock);
	cache->filesystem = scratch->tree.wanted;
	cache->mount_namespace = number;
	cache->mounts = mounts;
	cache->shown = scratch->tree.shown;
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
	__u64 mount = scratch->tree.at;

	if (!scratch->tree.returns && gets_from(mount, scratch->tree.wanted)) {
		scratch->tree.shown.count = 1;
		return 1;
	}
	return advance_tree(scratch, mount);
}

/*
 * Returns whether what happens to a group of mounts happens in the mount namespace with this number too. True
 * if that cannot be told. Overwrites scratch->tree.shown. Global like write_path().
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
	scratch->tree.wanted = group;
	bpf_loop(TREE_STEPS, group_step, &tree, 0);
	return scratch->tree.shown.count || !scratch->tree.done;
}

#endif
