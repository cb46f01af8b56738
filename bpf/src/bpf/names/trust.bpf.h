/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Tells whether a program that is started runs its own code. Rights by fromSource are a program's, and its
 * dynamic loader and libraries are found by name: whoever chooses what these names lead to, or what their
 * system calls return, has code of his own run with the program's rights, and AT_SECURE changes nothing.
 *
 * So a program has rights only if it starts in the domain's own mount tree, or in another one that the same
 * user namespace made (as systemd does for a service), at the root of that tree, shared with nobody who could
 * change it, and with no supervisor that answers its system calls (seccomp_unotify(2)).
 */
#ifndef ARMOR_TRUST_H
#define ARMOR_TRUST_H

#include "names/topmost.bpf.h"

/*
 * Filters of one task that are looked at, more than the kernel takes (MAX_INSNS_PER_PATH, kernel/seccomp.c). A
 * task with more of them would count as one with a supervisor.
 */
#define FILTERS 4096

struct filter_search {
	__u64 filter;
	__u32 found;
};

static long filter_step(__u32 step, struct filter_search *search)
{
	if (!search->filter)
		return 1;
	search->found = !!ADDRESS(seccomp_filter, search->filter, notif);
	search->filter = (__u64)ADDRESS(seccomp_filter, search->filter, prev);
	return search->found;
}

static __always_inline bool has_supervisor(struct task_struct *task)
{
	struct filter_search search = { .filter = (__u64)ADDRESS(task_struct, task, seccomp.filter) };

	if (search.filter)
		bpf_loop(FILTERS, filter_step, &search, 0);
	return search.found || search.filter;
}

/* Returns whether a task's root is that of its mount namespace. */
static __always_inline bool is_at_root(struct task_struct *task, __u64 ns)
{
	struct fs_struct *fs = ADDRESS(task_struct, task, fs);
	__u64 mount = (__u64)ADDRESS(mnt_namespace, ns, root);
	struct topmost top = { .mount = mount, .dentry = (__u64)ADDRESS(mount, mount, mnt.mnt_root) };

	find_topmost(&top);
	return (__u64)ADDRESS(fs_struct, fs, root.dentry) == top.dentry &&
		(__u64)ADDRESS(fs_struct, fs, root.mnt) == top.mount + bpf_core_field_offset(struct mount, mnt) &&
		(int)FIELD(fs_struct, fs, users) <= 1;
}

/* Returns whether another task could have chosen code that a program runs which the task has just started. */
static __noinline bool is_distrusted(const struct scope *scope, struct task_struct *task)
{
	__u64 ns = (__u64)ADDRESS(nsproxy, ADDRESS(task_struct, task, nsproxy), mnt_ns), own;
	__u32 number = own_namespace(scope, 0, 0);

	if (!number)
		return false;
	if (has_supervisor(task) || !is_at_root(task, ns))
		return true;
	if (FIELD(mnt_namespace, ns, ns.inum) == number)
		return false;
	own = scope->domain == HOST_DOMAIN ? namespace_at(number) : 0;
	return !own || ADDRESS(mnt_namespace, ns, user_ns) != ADDRESS(mnt_namespace, own, user_ns);
}

#endif
