/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Begins the question about an access, and tells what the question depends on. */
#ifndef ARMOR_ACCESS_H
#define ARMOR_ACCESS_H

#include "names/name.bpf.h"
#include "path/maps.h"

/* Returns 1 if the task's filesystem uid owns the file. A new name belongs to the task that makes it. */
static __always_inline __u32 owns(struct task_struct *task, struct inode *inode)
{
	return !inode || FIELD(inode, inode, i_uid.val) == FIELD(cred, ADDRESS(task_struct, task, cred), fsuid.val);
}

/*
 * Returns whether a filesystem acts for the task in another one with its own credentials, as an overlay does
 * in its layers. The task's access has been decided on, and an object of the other filesystem that no rule
 * names is not judged again.
 */
static __always_inline bool is_acted_for(struct task_struct *task)
{
	return PLAIN(task->cred) != PLAIN(task->real_cred);
}

/* Returns whether everything that judge() found is as of these epochs. */
static __always_inline bool is_as_of(const struct scratch *scratch, struct epochs before)
{
	return scratch->resolve.done && scratch->resolve.renames == before.renames &&
		scratch->resolve.mounts == before.mounts;
}

/* Returns whether the kernel is still looking a name up (d_in_lookup(), include/linux/dcache.h). */
static __always_inline bool is_in_lookup(__u64 dentry)
{
	__u32 flag = DCACHE_PAR_LOOKUP_BEFORE_ENUM; /* two bits, which no dentry has otherwise */

	if (bpf_core_enum_value_exists(enum dentry_flags, DCACHE_PAR_LOOKUP))
		flag = bpf_core_enum_value(enum dentry_flags, DCACHE_PAR_LOOKUP);
	return FIELD(dentry, dentry, d_flags) & flag;
}

static __always_inline __u32 *pending_of_task(__u64 task)
{
	return &pending_of[task * 0x9e3779b97f4a7c15 >> (64 - UNDECIDED_TASK_BITS)];
}

/* Returns whether a decision is pending for an open of the task (undecided.bpf.h), or one with the same hash. */
static __always_inline bool is_awaited(struct task_struct *task)
{
	return *(volatile __u32 *)&pending && *(volatile __u32 *)pending_of_task((__u64)PLAIN(task));
}

/* Sets what is asked about, except for its first name and the kind of question. */
static __always_inline void begin(struct scratch *scratch, struct task_struct *task, __u32 hook)
{
	struct access *access = &scratch->access;
	struct question *question = &scratch->question;

	access->task = (__u64)PLAIN(task);
	access->hook = hook;
	access->kind = EVENT_PATH;
	access->other = 0;
	access->object[0] = 0;
	access->arguments_length = 0;
	access->new_name.dentry = 0;
	access->about_new = 0;
	question->permissions = 0;
	question->known = 0;
	question->dated = 0;
	question->created = 0;
	question->truncates = 0;
	question->undecided = 0;
	question->inode = 0;
	question->outcome = OUTCOME_UNRULED;
	question->allowed = 0;
}

/*
 * Begins the question about an access of the current task. Returns 0 if there is nothing to ask: the hook then
 * returns what is in `verdict`.
 */
static __always_inline struct scratch *begin_check(struct scope *scope, __u32 hook, int *verdict)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct scratch *scratch;

	*verdict = 0;
	if (!enter_scope(scope, task))
		return 0;
	scratch = claim_scratch();
	if (scratch)
		begin(scratch, task, hook);
	else
		*verdict = refuse_unreported();
	return scratch;
}

#endif
