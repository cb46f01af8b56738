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

static __noinline int check_attributes(struct dentry *dentry, __u32 hook)
{
	struct classes classes = {};
	struct scope scope;

	if (!enter_scope(&scope, bpf_get_current_task_btf()))
		return 0;
	/* What is allowed by all names and a mount's, is so by all names. */
	if (!is_acted_for(bpf_get_current_task_btf()) && find_known_subject(&scope) &&
	    cached(&scope, bpf_inode_storage_get(&inodes, dentry->d_inode, 0, 0), 0, read_epochs(), 0, &classes) &&
	    classes.of[0] != CLASS_UNNAMED && silently_allowed(&scope, &classes, 1u << WRITE))
		return 0;
	return check_path(dentry, 0, hook, 1u << WRITE, false);
}

/*
 * Of all changes that come to inode_setattr, those of times that a task asks for: what a write or a truncation changes beside is
 * part of that. In the layer of an overlay, where no path is asked about, every one counts.
 */
static __always_inline int check_setattr(struct dentry *dentry, struct iattr *attr)
{
	if (!(attr->ia_valid & (ATTR_ATIME_SET | ATTR_MTIME_SET | ATTR_TIMES_SET | ATTR_TOUCH)) &&
	    !is_acted_for(bpf_get_current_task_btf()))
		return 0;
	return check_attributes(dentry, INODE_SETATTR);
}

#endif
