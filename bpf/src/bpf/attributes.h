/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Changes of attributes: times, extended attributes, ACLs, flags. They need the right to write.
 *
 * Their hooks carry no mount, so an object is judged by the names that the domain's own tree gives it. Mode and owner are not
 * theirs: path_chmod and path_chown know the mount, and one access makes one alert.
 */
#ifndef ARMOR_ATTRIBUTES_H
#define ARMOR_ATTRIBUTES_H

#include "check.h"

/*
 * Whether the kernel works for itself, as an overlay does on its layers, with the credentials of who mounted it: its own name
 * was decided on before. A task can have others' credentials used as well, but by io_uring alone.
 */
static __always_inline bool is_below_an_overlay(struct task_struct *task)
{
	if (task->cred == task->real_cred || task->flags & (PF_KTHREAD | PF_IO_WORKER))
		return false;
	return !bpf_core_field_exists(task->io_uring) || !task->io_uring;
}

static __always_inline int check_attributes(struct dentry *dentry, __u32 hook)
{
	if (is_below_an_overlay(bpf_get_current_task_btf()))
		return 0;
	return check_path(dentry, 0, hook, 1u << WRITE, false);
}

/*
 * Of all changes that come to inode_setattr, those of times that a task asks for. What a write or a truncation changes beside
 * is part of that.
 */
static __always_inline int check_setattr(struct dentry *dentry, struct iattr *attr)
{
	if (!(attr->ia_valid & (ATTR_ATIME_SET | ATTR_MTIME_SET | ATTR_TIMES_SET | ATTR_TOUCH)))
		return 0;
	return check_attributes(dentry, INODE_SETATTR);
}

#endif
