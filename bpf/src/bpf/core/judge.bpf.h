/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Asks for decisions that no cache knows.
 *
 * Everything that takes a whole path, a decision or an event is in one program, judge_access(). The agent
 * puts it in place of judge() in each of the others (BPF_PROG_TYPE_EXT, kernel/bpf/verifier.c), so that the
 * verifier follows it once and not once per hook. Question and answer are in the scratch.
 *
 * Invariant: a hook's program is attached only after its judge() is replaced. Until then judge() refuses.
 */
#ifndef ARMOR_JUDGE_H
#define ARMOR_JUDGE_H

#include "core/scope.bpf.h"

/* Answers the question in the scratch at this index. Returns nonzero if the access is refused. */
__noinline int judge(__u32 slot)
{
	int refused = 1;

	/* Otherwise clang puts the result into the callers. */
	asm volatile("" : "+r"(refused) : "r"(slot));
	return refused;
}

/* Asks by the rules of a domain, and returns what the hook returns. */
static __always_inline int ask(struct scratch *scratch, const struct scope *scope, enum asked asked)
{
	scratch->question.asked = asked;
	scratch->question.domain = scope->domain;
	return judge(scratch->slot) ? -EACCES : 0;
}

/* Has the decision in scratch->access reported. */
static __always_inline void ask_to_report(struct scratch *scratch)
{
	scratch->question.asked = ASK_REPORT;
	judge(scratch->slot);
}

#endif
