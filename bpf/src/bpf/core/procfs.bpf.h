/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Tells which process a name in procfs is about. */
#ifndef ARMOR_PROCFS_H
#define ARMOR_PROCFS_H

#include "core/read.bpf.h"

/*
 * Returns the number of the process that an inode of procfs is about, in the host's pid namespace; 0 if it is about none,
 * or one that has ended. What a thread's directory shows is its process's.
 */
static __always_inline __u32 process_of_inode(__u64 inode)
{
	struct pid *pid = ADDRESS(proc_inode, inode - bpf_core_field_offset(struct proc_inode, vfs_inode), pid);
	__u64 links = (__u64)ADDRESS(pid, pid, tasks[PIDTYPE_PID].first);

	return links ? FIELD(task_struct, links - bpf_core_field_offset(struct task_struct, pid_links), tgid) : 0;
}

#endif
