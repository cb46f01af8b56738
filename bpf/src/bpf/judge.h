/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * How the programs of the hooks come to a decision that no cache knows.
 *
 * All that takes a whole path, a decision or an event is in one program, judge_access(), which the agent puts into the place of
 * judge() in each of the others (BPF_PROG_TYPE_EXT, kernel/bpf/verifier.c). So the verifier goes through it once, and not once
 * for each hook. What goes over is in the scratch.
 *
 * Invariant: a program of a hook is attached only with that done, and until then judge() refuses.
 */
#ifndef ARMOR_JUDGE_H
#define ARMOR_JUDGE_H

#include "access.h"

/* Answers the question in the scratch at this slot: not 0 where the access is refused. */
__noinline int judge(__u32 slot)
{
	int refused = 1;

	/* Or clang puts what it returns into who calls it. */
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

/* Has the decision in scratch->access told. */
static __always_inline void ask_to_report(struct scratch *scratch)
{
	scratch->question.asked = ASK_REPORT;
	judge(scratch->slot);
}

#endif
