/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Checks accesses to objects that are numbers, for the programs of hooks. */
#ifndef ARMOR_NUMBER_CHECK_H
#define ARMOR_NUMBER_CHECK_H

#include "core/keyed.bpf.h"
#include "path/check.bpf.h"
#include "path/report.bpf.h"

/* Sets the class of the current task's program. Returns false if it cannot be found. */
static __always_inline bool find_subject(struct scope *scope, struct task_struct *task)
{
	if (find_known_subject(scope))
		return true;
	if (!ask_subject(task, scope))
		return false;
	find_known_subject(scope);
	return true;
}

/* Decides by a keyed table for the program of the current task. */
static __always_inline __u32 decide_number(struct scope *scope, struct task_struct *task, __u32 table, __u32 number)
{
	if (!find_subject(scope, task))
		return VERDICT_BLOCK << VERDICT_SHIFT | RULE_UNRESOLVED;
	return keyed_decision(scope, table, number);
}

/*
 * Begins the event about such a decision, whose tail the caller fills in. Returns 0 if no scratch is free; the decision
 * stands, and its alert counts as lost.
 */
static __always_inline struct scratch *begin_number_event(const struct scope *scope, struct task_struct *task,
							  __u32 hook, __u32 kind, __u32 decision)
{
	struct scratch *scratch = claim_scratch();

	if (!scratch) {
		count(blocks(decision) ? COUNT_BLOCKED : COUNT_AUDITED);
		count(COUNT_DROPPED);
		return 0;
	}
	begin(scratch, task, hook);
	scratch->access.kind = kind;
	note_decision(scope, &scratch->access, decision);
	return scratch;
}

static __always_inline void end_number_event(struct scratch *scratch)
{
	ask_to_report(scratch);
	release_scratch(scratch);
}

#endif
