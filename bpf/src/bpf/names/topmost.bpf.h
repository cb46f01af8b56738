/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Follows what is mounted on a path, as a look-up of the path does. */
#ifndef ARMOR_TOPMOST_H
#define ARMOR_TOPMOST_H

#include "names/tree.bpf.h"

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
