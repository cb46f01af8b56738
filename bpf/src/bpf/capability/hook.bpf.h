/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Decides uses of capabilities. The kernel's own check comes first (security/commoncap.c), so this hook is asked
 * only about capabilities that a task has.
 *
 * A capability counts as used by the current task, whoever's credentials it acts with: those of a descriptor's
 * opener, of its tracer, or of an io_uring personality. Of the credentials that it puts on, only those that it can
 * never have had do not count (core/bounding.bpf.h): an overlay works in its layers with the rights of who mounted it.
 */
#ifndef ARMOR_CAPABILITY_HOOK_H
#define ARMOR_CAPABILITY_HOOK_H

#include "core/bounding.bpf.h"
#include "number_check.bpf.h"

/* Returns whether a check is about the rights of a filesystem that acts for the task, not about the task's own. */
static __always_inline bool is_for_filesystem(const struct scope *scope, struct task_struct *task,
					      const struct cred *cred)
{
	return is_acted_for(task) && PLAIN(cred) == PLAIN(task->cred) && is_foreign(scope, cred);
}

SEC("lsm/capable")
int BPF_PROG(capable, const struct cred *cred, struct user_namespace *user_ns, int capability, unsigned int options)
{
	struct task_struct *task = bpf_get_current_task_btf();
	const struct image_kinds *tables;
	struct scratch *scratch;
	struct scope scope;
	__u32 decision;

	if (!enter_scope(&scope, task))
		return 0;
	tables = tables_of_kinds(&scope);
	if (!tables || !tables->capabilities)
		return 0;
	decision = decide_number(&scope, task, tables->capabilities, capability);
	/* The kernel's threads run no program. */
	if (!(decision >> VERDICT_SHIFT) || task->flags & PF_KTHREAD || is_for_filesystem(&scope, task, cred))
		return 0;
	if (!(options & CAP_OPT_NOAUDIT)) {
		scratch = begin_number_event(&scope, task, CAPABLE, EVENT_CAPABILITY, decision);
		if (!scratch)
			return blocks(decision) ? -EPERM : 0;
		scratch->access.tail.capability.capability = capability;
		end_number_event(scratch);
	}
	return blocks(decision) ? -EPERM : 0;
}

#endif
