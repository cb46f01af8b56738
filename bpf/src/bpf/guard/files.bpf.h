/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Tells which names are the agent's: its pins, files and processes, as the agent registered them. */
#ifndef ARMOR_FILES_H
#define ARMOR_FILES_H

#include "core/procfs.bpf.h"
#include "guard/guard.bpf.h"
#include "path/access.bpf.h"

struct guarded_search {
	__u64 dentry;
	__u32 device;
	__u32 is_process; /* in procfs, where a directory stands for a process */
	__u32 only_below; /* directories above a guarded one do not count */
	__u32 found;
};

/* Looks at one name, and goes on to its parent. */
static long search_guarded(__u32 step, struct guarded_search *search)
{
	struct dentry *dentry = (void *)search->dentry;
	__u64 inode = (__u64)ADDRESS(dentry, dentry, d_inode), parent = (__u64)ADDRESS(dentry, dentry, d_parent);
	struct guarded_key key = {};
	__u32 *reach;

	if (search->is_process) {
		key.kind = GUARDED_PROCESS;
		key.number = process_of_inode(inode);
	} else {
		key.kind = GUARDED_FILE;
		key.device = search->device;
		key.number = FIELD(inode, inode, i_ino);
	}
	reach = inode ? bpf_map_lookup_elem(&guarded, &key) : 0;
	if (reach && (*reach == GUARDED_BELOW || (!step && !search->only_below))) {
		search->found = 1;
		return 1;
	}
	search->dentry = parent;
	return parent == (__u64)dentry;
}

/* Returns whether there may be something guarded on a device. Costs next to nothing. */
static __always_inline bool may_have_guarded(__u32 device)
{
	__u32 slot = (device ^ device >> 20) & (GUARDED_SLOTS - 1), *has = bpf_map_lookup_elem(&guarded_devices, &slot);

	return has && *has;
}

/* Returns whether a name is one of the agent's, or below one. */
static __noinline bool is_guarded(__u64 dentry, __u64 magic, bool only_below)
{
	struct guarded_search search = {
		.dentry = dentry,
		.device = FIELD(super_block, ADDRESS(dentry, (void *)dentry, d_sb), s_dev),
		.is_process = magic == PROC_SUPER_MAGIC,
		.only_below = only_below,
	};
	struct guarded_key device = { .kind = GUARDED_DEVICE, .device = search.device };

	if (!search.is_process && (!may_have_guarded(search.device) || !bpf_map_lookup_elem(&guarded, &device)))
		return false;
	bpf_loop(PATH_CAPACITY, search_guarded, &search, 0);
	return search.found;
}

static __noinline int refuse_name(__u64 dentry, __u64 mnt, __u32 hook, __u32 verdict, __u32 rule)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct label label = label_of(task);
	struct scratch *scratch;
	int result;

	scratch = claim_scratch();
	if (!scratch)
		return refuse_unreported();
	begin(scratch, task, hook);
	set_dentry(&scratch->access.name, (void *)dentry, (void *)mnt);
	scratch->access.permission = WRITE;
	scratch->question.undecided = hook == PATH_MKNOD && is_in_lookup(dentry);
	result = refuse(scratch, label.domain, verdict, rule);
	release_scratch(scratch);
	return result;
}

#endif
