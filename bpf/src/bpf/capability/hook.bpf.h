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
#include "core/keyed.bpf.h"
#include "path/check.bpf.h"
#include "path/report.bpf.h"

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
	struct scratch *scratch;
	struct scope scope;
	__u32 decision;

	if (!enter_scope(&scope, task) || !scope.rules->capabilities)
		return 0;
	if (!find_known_subject(&scope)) {
		if (!ask_subject(task, &scope)) {
			count_unreported();
			return -EPERM;
		}
		find_known_subject(&scope);
	}
	decision = keyed_decision(&scope, scope.rules->capabilities, capability);
	/* The kernel's threads run no program. */
	if (!(decision >> VERDICT_SHIFT) || task->flags & PF_KTHREAD || is_for_filesystem(&scope, task, cred))
		return 0;
	if (!(options & CAP_OPT_NOAUDIT)) {
		scratch = claim_scratch();
		if (!scratch) {
			count_unreported();
			return -EPERM;
		}
		begin(scratch, task, CAPABLE);
		scratch->access.kind = EVENT_CAPABILITY;
		scratch->access.number = capability;
		note_decision(&scope, &scratch->access, decision);
		ask_to_report(scratch);
		release_scratch(scratch);
	}
	return blocks(decision) ? -EPERM : 0;
}

#endif
