/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* The hooks of mounts that are made, moved and taken away. */
#ifndef ARMOR_MOUNT_HOOKS_H
#define ARMOR_MOUNT_HOOKS_H

#include "guard/writes.bpf.h"
#include "names/topmost.bpf.h"
#include "path/device.bpf.h"
#include "path/mount_decide.bpf.h"

/* Checks a mount at a path. The kernel puts it on top of all that is mounted there already. */
static __noinline int mounts_at(struct dentry *dentry, struct vfsmount *mnt, __u32 hook, enum mounting mounting)
{
	struct topmost top = { .mount = (__u64)mount_of(PLAIN(mnt)), .dentry = (__u64)PLAIN(dentry) };

	find_topmost(&top);
	dentry = (void *)top.dentry;
	mnt = (void *)top.mount + bpf_core_field_offset(struct mount, mnt);
	return guard_write(dentry, mnt, hook) ?: check_mounting(dentry, mnt, hook, mounting);
}

SEC("lsm/sb_mount")
int BPF_PROG(sb_mount, const char *dev_name, const struct path *path, const char *type, unsigned long flags, void *data)
{
	/* In the order of path_mount(), fs/namespace.c: with MS_BIND no later flag counts. */
	if (flags & MS_REMOUNT || (!(flags & MS_BIND) && flags & MS_CHANGES_PROPAGATION))
		return 0;
	/* What is moved is known only by a name in user memory, so it might be any name that rules block. */
	return mounts_at(path->dentry, path->mnt, SB_MOUNT,
			 flags & MS_MOVE && !(flags & MS_BIND) ? MOVES_ALL : MOUNTS_OVER);
}

SEC("lsm/move_mount")
int BPF_PROG(move_mount, const struct path *from, const struct path *to)
{
	struct vfsmount *mnt = from->mnt;
	int verdict = 0;

	if (is_named(place_of(mount_of(PLAIN(mnt)))))
		verdict = check_mounting(from->dentry, mnt, MOVE_MOUNT, TAKES_AWAY);
	return verdict ?: mounts_at(to->dentry, to->mnt, MOVE_MOUNT, MOUNTS_OVER);
}

SEC("lsm/sb_pivotroot")
int BPF_PROG(sb_pivotroot, const struct path *old, const struct path *new)
{
	return check_mounting(new->dentry, new->mnt, SB_PIVOTROOT, MOVES_ALL);
}

SEC("lsm/sb_umount")
int BPF_PROG(sb_umount, struct vfsmount *mnt, int flags)
{
	return guard_umount(mnt) ?: check_mounting(mnt->mnt_root, mnt, SB_UMOUNT, TAKES_AWAY);
}

#endif
