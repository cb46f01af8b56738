/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Checks changes of attributes: times, extended attributes, ACLs, flags. They need the right to write.
 *
 * These hooks get no mount, so an object is judged by its canonical paths. Mode and owner are left to
 * path_chmod and path_chown, which get the mount, so that one access makes one alert.
 */
#ifndef ARMOR_ATTRIBUTES_H
#define ARMOR_ATTRIBUTES_H

#include "guard/writes.bpf.h"
#include "path/check.bpf.h"

static __noinline int check_attributes(struct dentry *dentry, __u32 hook)
{
	struct classes classes = {};
	struct scope scope;
	int verdict;

	if (may_have_guarded(FIELD(super_block, ADDRESS(dentry, PLAIN(dentry), d_sb), s_dev))) {
		verdict = guard_write(dentry, 0, hook);
		if (verdict)
			return verdict;
	}
	if (!enter_scope(&scope, bpf_get_current_task_btf()))
		return 0;
	/* What the canonical paths and a mount path allow, the canonical paths alone allow. */
	if (!is_acted_for(bpf_get_current_task_btf()) && find_known_subject(&scope) &&
	    cached(&scope, bpf_inode_storage_get(&inodes, dentry->d_inode, 0, 0), 0, read_epochs(), 0, &classes) &&
	    classes.of[0] != CLASS_UNNAMED && silently_allowed(&scope, &classes, 1u << WRITE))
		return 0;
	return check_path(dentry, 0, hook, 1u << WRITE, false);
}

/*
 * Checks, of all changes that come to inode_setattr, those of times that a task asks for. Changes by a write
 * or a truncation are part of that access. In an overlay's layer, where no path hook is called, every change
 * counts.
 */
static __always_inline int check_setattr(struct dentry *dentry, struct iattr *attr)
{
	__u64 magic = FIELD(super_block, ADDRESS(dentry, PLAIN(dentry), d_sb), s_magic);
	__u32 counts = ATTR_ATIME_SET | ATTR_MTIME_SET | ATTR_TIMES_SET | ATTR_TOUCH;

	/* Their attributes, which are changed by ioctl, come as a mode. */
	if (magic == MSDOS_SUPER_MAGIC || magic == EXFAT_SUPER_MAGIC)
		counts |= ATTR_MODE;
	if (!(attr->ia_valid & counts) && !is_acted_for(bpf_get_current_task_btf()))
		return 0;
	return check_attributes(dentry, INODE_SETATTR);
}

SEC("lsm/inode_setattr")
int BPF_PROG(inode_setattr, void *idmap, struct dentry *dentry, struct iattr *attr)
{
	return check_setattr(dentry, attr);
}

/* The same hook on kernels where it has no first argument. */
SEC("lsm/inode_setattr")
int BPF_PROG(inode_setattr_unmapped, struct dentry *dentry, struct iattr *attr)
{
	return check_setattr(dentry, attr);
}

SEC("lsm/inode_setxattr")
int BPF_PROG(inode_setxattr, void *idmap, struct dentry *dentry)
{
	return check_attributes(dentry, INODE_SETXATTR);
}

SEC("lsm/inode_removexattr")
int BPF_PROG(inode_removexattr, void *idmap, struct dentry *dentry)
{
	return check_attributes(dentry, INODE_REMOVEXATTR);
}

/* Since 6.2, like inode_remove_acl. Before, ACLs come to inode_setxattr and inode_removexattr. */
SEC("lsm/inode_set_acl")
int BPF_PROG(inode_set_acl, void *idmap, struct dentry *dentry)
{
	return check_attributes(dentry, INODE_SET_ACL);
}

SEC("lsm/inode_remove_acl")
int BPF_PROG(inode_remove_acl, void *idmap, struct dentry *dentry)
{
	return check_attributes(dentry, INODE_REMOVE_ACL);
}

/* Since 6.17: flags and project ids, changed by ioctl or system call. */
SEC("lsm/inode_file_setattr")
int BPF_PROG(inode_file_setattr, struct dentry *dentry)
{
	return check_attributes(dentry, INODE_FILE_SETATTR);
}

#endif
