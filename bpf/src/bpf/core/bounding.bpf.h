/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Tells credentials that no task of a container can have had. A filesystem may act in place of a task with the
 * credentials of who mounted it (override_creds()), and so may io_uring with those that a task of the container had
 * earlier; only what is none of the container's own doing is no use of its rights.
 *
 * Invariant: what is noted of a container's bounding sets only grows, so that credentials are mistaken for the
 * container's own at worst.
 */
#ifndef ARMOR_BOUNDING_H
#define ARMOR_BOUNDING_H

#include "core/scope.bpf.h"

/*
 * All capabilities that the tasks of a domain's container were started with (capabilities(7), bounding set) in the
 * low 56 bits, and the level of their user namespace plus one in the high ones; 0: not known.
 */
#define BOUNDING_BITS 56
#define BOUNDING_MASK ((1ull << BOUNDING_BITS) - 1)

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_DOMAIN + 1);
	__type(key, __u32);
	__type(value, __u64);
} bounding_sets SEC(".maps");

static __always_inline __u64 bounding_set_of(const struct cred *cred)
{
	__u64 set = 0;

	bpf_core_read(&set, sizeof(set), &cred->cap_bset);
	return (set & BOUNDING_MASK) |
		((__u64)FIELD(user_namespace, ADDRESS(cred, cred, user_ns), level) + 1) << BOUNDING_BITS;
}

/* Returns the level of the user namespace to which a task's pid namespace belongs, plus one. No task leaves that. */
static __always_inline __u64 level_of_pid_namespace(struct task_struct *task)
{
	struct pid *pid = ADDRESS(task_struct, task, thread_pid);
	struct upid *numbers = (void *)pid + bpf_core_field_offset(struct pid, numbers);
	__u32 level = FIELD(pid, pid, level);
	struct pid_namespace *ns = 0;

	if (level > 32)
		return 1;
	bpf_core_read(&ns, sizeof(ns), &numbers[level].ns);
	return (__u64)FIELD(user_namespace, ADDRESS(pid_namespace, ns, user_ns), level) + 1;
}

/* Notes the bounding set of a task that is started in a container, or found in it. */
static __always_inline void note_bounding_set(struct task_struct *task, __u32 domain)
{
	__u64 own = bounding_set_of(ADDRESS(task_struct, task, real_cred)), before;
	__u64 *set = bpf_map_lookup_elem(&bounding_sets, &domain), level;

	if (!set || domain == HOST_DOMAIN)
		return;
	/* The task has made a user namespace since it was started: nothing is known of what it had before. */
	level = level_of_pid_namespace(task);
	if (level < own >> BOUNDING_BITS)
		own = level << BOUNDING_BITS | BOUNDING_MASK;
	before = __sync_val_compare_and_swap(set, 0, own);
	/* A task in a user namespace below was not started so: whoever makes one has all capabilities in it. */
	if (!before || own >> BOUNDING_BITS > before >> BOUNDING_BITS)
		return;
	if (own >> BOUNDING_BITS == before >> BOUNDING_BITS)
		__sync_fetch_and_or(set, own);
	else
		*set = own | BOUNDING_MASK;
}

/* Returns whether no task of the scope's container can have had these credentials. */
static __always_inline bool is_foreign(const struct scope *scope, const struct cred *cred)
{
	__u32 domain = scope->domain;
	__u64 *set = bpf_map_lookup_elem(&bounding_sets, &domain), own = bounding_set_of(cred), noted;

	/* Read once: the agent may clear it meanwhile, and credentials beside an empty set would all seem foreign. */
	noted = set ? *(volatile __u64 *)set : 0;
	if (!noted || domain == HOST_DOMAIN)
		return false;
	if (own >> BOUNDING_BITS != noted >> BOUNDING_BITS)
		return own >> BOUNDING_BITS < noted >> BOUNDING_BITS;
	return own & ~noted & BOUNDING_MASK;
}

#endif
