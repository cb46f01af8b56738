/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Describes an access for a hook: the task, the operation, and the names of the objects. */
#ifndef ARMOR_ACCESS_H
#define ARMOR_ACCESS_H

#include "tree.bpf.h"

/* Returns 1 if the task's filesystem uid owns the file. A new name belongs to the task that makes it. */
static __always_inline __u32 owns(struct task_struct *task, struct inode *inode)
{
	return !inode || FIELD(inode, inode, i_uid.val) == FIELD(cred, ADDRESS(task_struct, task, cred), fsuid.val);
}

static __always_inline bool is_device(__u32 mode)
{
	return (mode & S_IFMT) == S_IFCHR || (mode & S_IFMT) == S_IFBLK;
}

/* Sets a name. Its addresses go through memory, so that the verifier takes them for plain numbers. */
static __always_inline void set_name(struct name *name, struct dentry *dentry, struct vfsmount *mnt, __u32 mode,
				     __u32 links)
{
	name->dentry = (__u64)dentry;
	name->mnt = (__u64)mnt;
	name->is_dir = (mode & S_IFMT) == S_IFDIR;
	name->several = !name->is_dir && links > 1;
	name->device = is_device(mode);
	name->layers[0] = 0;
	name->layers[1] = 0;
	name->is_layer = 0;
	name->directory.known = 0;
	name->directory.mount_state = NO_STATE;
}

/*
 * Sets a name that may have no inode. 6.12 takes d_inode to be never 0 and would load from it unguarded, so
 * it must not be followed by its own type.
 */
static __always_inline void set_dentry(struct name *name, struct dentry *dentry, struct vfsmount *mnt)
{
	struct inode *inode = ADDRESS(dentry, dentry, d_inode);

	set_name(name, dentry, mnt, FIELD(inode, inode, i_mode), FIELD(inode, inode, __i_nlink));
}

/*
 * Returns whether a filesystem acts for the task in another one with its own credentials, as an overlay does
 * in its layers. The task's access has been decided on, and an object of the other filesystem that no rule
 * names is not judged again.
 */
static __always_inline bool is_acted_for(struct task_struct *task)
{
	return PLAIN(task->cred) != PLAIN(task->real_cred);
}

/* Returns whether everything that judge() found is as of these epochs. */
static __always_inline bool is_as_of(const struct scratch *scratch, struct epochs before)
{
	return scratch->resolve_done && scratch->resolve_renames == before.renames &&
		scratch->resolve_mounts == before.mounts;
}

/* Returns whether the kernel is still looking a name up (d_in_lookup(), include/linux/dcache.h). */
static __always_inline bool is_in_lookup(__u64 dentry)
{
	__u32 flag = DCACHE_PAR_LOOKUP_BEFORE_ENUM; /* two bits, which no dentry has otherwise */

	if (bpf_core_enum_value_exists(enum dentry_flags, DCACHE_PAR_LOOKUP))
		flag = bpf_core_enum_value(enum dentry_flags, DCACHE_PAR_LOOKUP);
	return FIELD(dentry, dentry, d_flags) & flag;
}

static __always_inline __u32 *pending_of_task(__u64 task)
{
	return &pending_of[task * 0x9e3779b97f4a7c15 >> (64 - UNDECIDED_TASK_BITS)];
}

/* Returns whether a decision is pending for an open of the task (undecided.bpf.h), or one with the same hash. */
static __always_inline bool is_awaited(struct task_struct *task)
{
	return *(volatile __u32 *)&pending && *(volatile __u32 *)pending_of_task((__u64)PLAIN(task));
}

/* Sets what is asked about, except for its first name and the kind of question. */
static __always_inline void begin(struct scratch *scratch, struct task_struct *task, __u32 hook)
{
	struct access *access = &scratch->access;
	struct question *question = &scratch->question;

	access->task = (__u64)PLAIN(task);
	access->hook = hook;
	access->other = 0;
	access->object[0] = 0;
	access->new_name.dentry = 0;
	access->about_new = 0;
	question->permissions = 0;
	question->known = 0;
	question->dated = 0;
	question->created = 0;
	question->truncates = 0;
	question->undecided = 0;
	question->inode = 0;
	question->outcome = OUTCOME_UNRULED;
	question->allowed = 0;
}

/*
 * Returns the dentry of a file that was opened in a layer. Before 6.5 such a file has the path of the
 * overlay, but the layer's inode.
 */
static __always_inline __u64 layer_dentry(__u64 file)
{
	struct dentry *dentry = ADDRESS(file, file, f_path.dentry);
	struct inode *inode = ADDRESS(file, file, f_inode);
	struct hlist_node *alias;

	if (ADDRESS(dentry, dentry, d_inode) == inode || !bpf_core_field_exists(((struct dentry *)0)->d_u))
		return (__u64)dentry;
	alias = ADDRESS(inode, inode, i_dentry.first);
	return alias ? (__u64)alias - bpf_core_field_offset(struct dentry, d_u.d_alias) : 0;
}

/*
 * Returns the file in a layer that an open file of an overlay stands for, 0 if there is none. The overlay's
 * file points to it, since 6.13 to a structure that begins with it (fs/overlayfs/file.c).
 */
static __always_inline __u64 inner_file(__u64 file)
{
	struct inode *inode = ADDRESS(file, file, f_inode);
	__u64 inner;

	if (!file || FIELD(super_block, ADDRESS(inode, inode, i_sb), s_magic) != OVERLAYFS_SUPER_MAGIC)
		return 0;
	inner = (__u64)ADDRESS(file, file, private_data);
	if (inner && bpf_core_type_exists(struct backing_file) &&
	    place_of(mount_of(ADDRESS(file, inner, f_path.mnt))) != PLACE_BACKING &&
	    bpf_probe_read_kernel(&inner, sizeof(inner), (void *)inner))
		return 0;
	return inner;
}

/* Sets the layers of a name to those that an overlay's open file is in. Global like write_path(). */
__noinline int find_layers(struct name *name, __u64 file)
{
	__u64 inner = inner_file(file);

	if (!name || !inner)
		return 0;
	name->layers[0] = layer_dentry(inner);
	inner = inner_file(inner);
	if (inner)
		name->layers[1] = layer_dentry(inner);
	return 0;
}

static __always_inline void set_layer(struct name *name, __u64 file)
{
	struct inode *inode = ADDRESS(file, file, f_inode);

	set_name(name, (struct dentry *)layer_dentry(file), 0, FIELD(inode, inode, i_mode),
		 FIELD(inode, inode, __i_nlink));
	name->is_layer = 1;
}

#endif
