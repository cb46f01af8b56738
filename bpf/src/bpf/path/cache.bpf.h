/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Caches for later opens what an open found: the classes of an inode, and the states behind the path of a
 * directory. Both are valid only while everything they depend on is unchanged. docs/design/kernel.md says why
 * nothing that moves a name escapes that.
 */
#ifndef ARMOR_CACHE_H
#define ARMOR_CACHE_H

#include "path/access.bpf.h"

/*
 * Returns whether the cache holds the object's current classes. With `below`, those of an overlay's file must
 * include those of its layer's file. Without a mount an entry for any mount counts, because it has the
 * classes of all canonical paths.
 */
static __always_inline bool cached(const struct scope *scope, struct verdict_cache *cache, struct vfsmount *mnt,
				   struct epochs now, __u32 below, struct classes *classes)
{
	bool hit;

	if (!cache || !quiet(now))
		return false;
	bpf_spin_lock(&cache->lock);
	hit = !cache->ever_linked && cache->generation == scope->rules->generation && cache->domain == scope->domain &&
		(!mnt || cache->mount == (__u64)mnt) && cache->renames == now.renames && cache->mounts == now.mounts &&
		cache->below >= below;
	classes->cached = cache->classes;
	classes->count = cache->count;
	bpf_spin_unlock(&cache->lock);
	return hit;
}

static __always_inline void fill(const struct scratch *scratch, struct inode *inode, struct vfsmount *mnt,
				 struct epochs before, __u32 below, const struct classes *classes)
{
	struct verdict_cache *cache = bpf_inode_storage_get(&inodes, inode, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!cache)
		return;
	bpf_spin_lock(&cache->lock);
	cache->generation = scratch->access.generation;
	cache->domain = scratch->access.domain;
	cache->mount = (__u64)mnt;
	cache->renames = before.renames;
	cache->mounts = before.mounts;
	cache->classes = classes->cached;
	cache->count = classes->count;
	cache->below = below;
	bpf_spin_unlock(&cache->lock);
}

/* Caches the classes found with the scratch. */
static __always_inline void remember(const struct scratch *scratch, struct inode *inode, struct vfsmount *mnt,
				     struct epochs before, __u32 below)
{
	const struct name *name = &scratch->access.name;

	/* If an object in no mount tree has paths nevertheless, none of them comes from its mount. */
	if ((!name->mnt && name->place != PLACE_BACKING) || name->classes.of[0] == OBJECT_UNRESOLVED ||
	    name->classes.count > CACHED_CLASSES || (!name->is_dir && inode->__i_nlink != 1))
		return;
	fill(scratch, inode, mnt, before, below, &name->classes);
}

/* Caches that no rule names a layer's file by any of its paths. */
static __always_inline void remember_unnamed(const struct scratch *scratch, struct inode *inode, struct vfsmount *mnt,
					     struct epochs before)
{
	struct classes unnamed = { .of = { CLASS_UNNAMED }, .count = 1 };

	if (inode->__i_nlink == 1 || (inode->i_mode & S_IFMT) == S_IFDIR)
		fill(scratch, inode, mnt, before, 1, &unnamed);
}

static __always_inline struct directory_cache *directory_cache_of(__u64 inode)
{
	__u32 slot = (inode >> 4) * HASH_FACTOR >> (64 - DIRECTORIES_LOG2);

	return bpf_map_lookup_elem(&directories, &slot);
}

/* Sets `directory` to the valid cache entry of the directory with this inode, if there is one. */
static __always_inline void recall_directory(const struct scope *scope, __u64 inode, struct vfsmount *mnt,
					     struct epochs now, struct directory *directory)
{
	struct directory_cache *cache = directory_cache_of(inode);
	__u64 number = FIELD(inode, inode, i_ino);

	directory->removals = *(volatile __u32 *)&removals;
	if (!cache || !quiet(now))
		return;
	bpf_spin_lock(&cache->lock);
	if (cache->inode == inode && cache->number == number && cache->generation == scope->rules->generation &&
	    cache->domain == scope->domain && cache->mount == (__u64)mnt &&
	    cache->directory.removals == directory->removals)
		*directory = cache->directory;
	bpf_spin_unlock(&cache->lock);
}

/*
 * Returns whether a directory keeps an inode number, unique in its filesystem, for as long as it exists, and
 * is only removed through inode_rmdir. On Btrfs, snapshots have the same numbers and are removed by an ioctl.
 * An overlay's layers may be such snapshots.
 */
static __always_inline bool has_unique_numbers(__u64 inode)
{
	unsigned long magic = FIELD(super_block, ADDRESS(inode, inode, i_sb), s_magic);

	return magic == EXT4_SUPER_MAGIC || magic == XFS_SUPER_MAGIC || magic == F2FS_SUPER_MAGIC ||
		magic == TMPFS_MAGIC || magic == RAMFS_MAGIC;
}

/*
 * Caches the directory of a name, as of the epochs that recall_directory() found. A name that is still in its
 * directory (not d_unhashed(), include/linux/dcache.h) keeps it from being removed: no removal so far was
 * this directory's.
 */
static __always_inline void remember_directory(const struct scratch *scratch, __u64 inode, struct vfsmount *mnt,
					       struct epochs before)
{
	const struct name *name = &scratch->access.name;
	const struct directory *directory = &name->directory;
	struct directory_cache *cache;
	__u64 number;

	if (directory->known)
		return;
	cache = directory_cache_of(inode);
	number = FIELD(inode, inode, i_ino);
	if (!cache || directory->others == OTHERS_MANY || directory->mount_state == NO_STATE ||
	    !FIELD(dentry, name->dentry, d_hash.pprev) || !has_unique_numbers(inode))
		return;
	bpf_spin_lock(&cache->lock);
	cache->generation = scratch->access.generation;
	cache->inode = inode;
	cache->number = number;
	cache->mount = (__u64)mnt;
	cache->domain = scratch->access.domain;
	cache->directory = *directory;
	cache->directory.renames = before.renames;
	cache->directory.mounts = before.mounts;
	cache->directory.known = 1;
	bpf_spin_unlock(&cache->lock);
}

#endif
