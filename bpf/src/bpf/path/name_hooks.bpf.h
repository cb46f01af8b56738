/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* The hooks of names that are made, changed and removed. */
#ifndef ARMOR_NAME_HOOKS_H
#define ARMOR_NAME_HOOKS_H

#include "guard/writes.bpf.h"
#include "path/mount_decide.bpf.h"

/*
 * Returns whether a name is a POSIX queue's. A queue is made and removed by name without a path
 * (ipc/mqueue.c), so inode_create and inode_unlink decide, however it is done.
 */
static __always_inline bool is_queue(struct dentry *dentry)
{
	return FIELD(super_block, ADDRESS(dentry, PLAIN(dentry), d_sb), s_magic) == MQUEUE_MAGIC;
}

/* Checks a name that is written: first the guards, then the rules. */
static __always_inline int check_written(struct dentry *dentry, struct vfsmount *mnt, __u32 hook, bool making_directory)
{
	return guard_write(dentry, mnt, hook) ?: check_path(dentry, mnt, hook, 1u << WRITE, making_directory);
}

/* Checks a name that is removed, and with it what is mounted on it. */
static __always_inline int check_removed(struct dentry *dentry, struct vfsmount *mnt, __u32 hook)
{
	int verdict = guard_write(dentry, mnt, hook) ?: check_detaching(dentry, mnt, hook);

	return verdict ?: check_path(dentry, mnt, hook, 1u << WRITE, false);
}

SEC("lsm/path_truncate")
int BPF_PROG(path_truncate, const struct path *path)
{
	return check_written(path->dentry, path->mnt, PATH_TRUNCATE, false);
}

SEC("lsm/path_chmod")
int BPF_PROG(path_chmod, const struct path *path)
{
	return check_written(path->dentry, path->mnt, PATH_CHMOD, false);
}

SEC("lsm/path_chown")
int BPF_PROG(path_chown, const struct path *path)
{
	return check_written(path->dentry, path->mnt, PATH_CHOWN, false);
}

SEC("lsm/path_unlink")
int BPF_PROG(path_unlink, const struct path *dir, struct dentry *dentry)
{
	if (is_queue(dentry))
		return 0;
	return check_removed(dentry, dir->mnt, PATH_UNLINK);
}

SEC("lsm/path_rmdir")
int BPF_PROG(path_rmdir, const struct path *dir, struct dentry *dentry)
{
	return check_removed(dentry, dir->mnt, PATH_RMDIR);
}

SEC("lsm/path_mkdir")
int BPF_PROG(path_mkdir, const struct path *dir, struct dentry *dentry)
{
	return check_written(dentry, dir->mnt, PATH_MKDIR, true);
}

SEC("lsm/path_mknod")
int BPF_PROG(path_mknod, const struct path *dir, struct dentry *dentry)
{
	if (is_queue(dentry))
		return 0;
	return check_written(dentry, dir->mnt, PATH_MKNOD, false);
}

SEC("lsm/path_symlink")
int BPF_PROG(path_symlink, const struct path *dir, struct dentry *dentry)
{
	return check_written(dentry, dir->mnt, PATH_SYMLINK, false);
}

SEC("lsm/path_link")
int BPF_PROG(path_link, struct dentry *old_dentry, const struct path *new_dir, struct dentry *new_dentry)
{
	/* The old name is in the new one's mount: link() does not cross mounts. */
	return guard_two(old_dentry, new_dir->mnt, new_dentry, new_dir->mnt, PATH_LINK) ?:
		check_two(old_dentry, new_dir->mnt, new_dentry, new_dir->mnt, PATH_LINK, false);
}

SEC("lsm/path_rename")
int BPF_PROG(path_rename, const struct path *old_dir, struct dentry *old_dentry, const struct path *new_dir,
	     struct dentry *new_dentry, unsigned int flags)
{
	int verdict = guard_two(old_dentry, old_dir->mnt, new_dentry, new_dir->mnt, PATH_RENAME);

	if (!verdict)
		verdict = check_detaching(new_dentry, new_dir->mnt, PATH_RENAME);
	return verdict ?:
		check_two(old_dentry, old_dir->mnt, new_dentry, new_dir->mnt, PATH_RENAME, flags & RENAME_EXCHANGE);
}

/*
 * Checks changes that go by no path: those that an overlay makes in its upper layer for a task, and those of
 * queues. Most calls are others, which the path hooks have decided on.
 */
static __always_inline int check_pathless(struct dentry *dentry, __u32 hook, bool making_directory)
{
	if (!is_acted_for(bpf_get_current_task_btf()) && !is_queue(dentry))
		return 0;
	return check_written(dentry, 0, hook, making_directory);
}

/* The same for what is mounted in another mount tree on a name that goes so. */
static __always_inline int check_detaching_pathless(struct dentry *dentry, __u32 hook)
{
	return is_acted_for(bpf_get_current_task_btf()) ? check_detaching(dentry, 0, hook) : 0;
}

SEC("lsm/inode_create")
int BPF_PROG(inode_create, struct inode *dir, struct dentry *dentry)
{
	return check_pathless(dentry, INODE_CREATE, false);
}

SEC("lsm/inode_unlink")
int BPF_PROG(inode_unlink, struct inode *dir, struct dentry *dentry)
{
	return check_pathless(dentry, INODE_UNLINK, false) ?: check_detaching_pathless(dentry, INODE_UNLINK);
}

SEC("lsm/inode_symlink")
int BPF_PROG(inode_symlink, struct inode *dir, struct dentry *dentry)
{
	return check_pathless(dentry, INODE_SYMLINK, false);
}

SEC("lsm/inode_mkdir")
int BPF_PROG(inode_mkdir, struct inode *dir, struct dentry *dentry)
{
	return check_pathless(dentry, INODE_MKDIR, true);
}

SEC("lsm/inode_mknod")
int BPF_PROG(inode_mknod, struct inode *dir, struct dentry *dentry)
{
	return check_pathless(dentry, INODE_MKNOD, false);
}

SEC("lsm/inode_rename")
int BPF_PROG(inode_rename, struct inode *old_dir, struct dentry *old_dentry, struct inode *new_dir,
	     struct dentry *new_dentry)
{
	int verdict;

	if (!is_acted_for(bpf_get_current_task_btf()))
		return 0;
	verdict = guard_two(old_dentry, 0, new_dentry, 0, INODE_RENAME) ?: check_detaching(new_dentry, 0, INODE_RENAME);
	return verdict ?: check_two(old_dentry, 0, new_dentry, 0, INODE_RENAME, false);
}

/* Bars an inode from the cache for good once it gets a second name, whatever task gives it. */
SEC("lsm/inode_link")
int BPF_PROG(inode_link, struct dentry *old_dentry, struct inode *dir, struct dentry *new_dentry)
{
	struct inode *inode = old_dentry->d_inode;
	struct verdict_cache *cache;

	if (!inode)
		return 0;
	if (is_acted_for(bpf_get_current_task_btf())) {
		int verdict = guard_two(old_dentry, 0, new_dentry, 0, INODE_LINK) ?:
			check_two(old_dentry, 0, new_dentry, 0, INODE_LINK, false);

		if (verdict)
			return verdict;
	}
	cache = bpf_inode_storage_get(&inodes, inode, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	/* It fails once if another processor gives the inode its first storage (bpf_local_storage_alloc(), -EAGAIN). */
	if (!cache)
		cache = bpf_inode_storage_get(&inodes, inode, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!cache)
		/* Out of memory: better no second name than one that the cache does not know. */
		return -EACCES;
	cache->ever_linked = 1;
	return 0;
}

/* Counts a directory's removal before it happens: the inode's number and address may become another's. */
SEC("lsm/inode_rmdir")
int BPF_PROG(inode_rmdir, struct inode *dir, struct dentry *dentry)
{
	__sync_fetch_and_add(&removals, 1);
	return check_pathless(dentry, INODE_RMDIR, false) ?: check_detaching_pathless(dentry, INODE_RMDIR);
}

#endif
