/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Sets the name of an object from what a hook gets: a dentry and its mount, or an open file. */
#ifndef ARMOR_NAME_H
#define ARMOR_NAME_H

#include "names/tree.bpf.h"

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
	name->has_unknown_layer = 0;
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
 * Returns the dentry of a file that was opened in a layer. Before 6.7 such a file has the path of the
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

/* Returns whether files that are opened in layers have the layer's path, and keep the overlay's beside it. */
static __always_inline bool has_user_path(void)
{
	return bpf_core_field_exists(((struct backing_file *)0)->user_path);
}

/* Returns whether an overlay's file points to a structure that points to the layer's file. */
static __always_inline bool in_a_structure(void)
{
	return bpf_core_type_exists(struct ovl_file) ||
		(bpf_core_type_exists(struct backing_file_ctx) &&
		 !bpf_core_field_exists(((struct backing_file_ctx *)0)->user_file));
}

/*
 * Finds the file in a layer that an overlay's open file stands for. private_data points to it, and since 6.13 to
 * a struct ovl_file that begins with a pointer to it (fs/overlayfs/file.c). The kernel's types tell which: in
 * that change backing_file_ctx lost `user_file`. The memory itself cannot tell, because others fill what lies
 * behind that small structure.
 *
 * Only regular files have one; other files keep other things in private_data. Returns false if what is found is
 * no file of a layer: then the layers are not known.
 */
static __always_inline bool inner_file(__u64 file, __u64 *inner)
{
	struct inode *inode = ADDRESS(file, file, f_inode);

	*inner = 0;
	if (!file || FIELD(super_block, ADDRESS(inode, inode, i_sb), s_magic) != OVERLAYFS_SUPER_MAGIC ||
	    (FIELD(inode, inode, i_mode) & S_IFMT) != S_IFREG)
		return true;
	*inner = (__u64)ADDRESS(file, file, private_data);
	if (!*inner || !has_user_path())
		return true;
	if (in_a_structure() && bpf_probe_read_kernel(inner, sizeof(*inner), (void *)*inner))
		return false;
	return place_of(mount_of(ADDRESS(file, *inner, f_path.mnt))) == PLACE_BACKING;
}

/*
 * Sets the layers of a name to those that an overlay's open file is in. Global like write_path(). Its loop is
 * unrolled, because clang ends it by falling through to its start, which 6.1 refuses.
 */
__noinline int find_layers(struct name *name, __u64 file)
{
	__u64 inner = file;
	__u32 layer;

	if (!name)
		return 0;
#pragma unroll
	for (layer = 0; layer < OVERLAY_DEPTH; layer++) {
		if (!inner_file(inner, &inner)) {
			name->has_unknown_layer = 1;
			return 0;
		}
		if (!inner)
			return 0;
		name->layers[layer] = layer_dentry(inner);
	}
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
