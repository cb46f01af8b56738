/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Looks decisions up in keyed tables, those of rules whose objects are numbers. */
#ifndef ARMOR_KEYED_H
#define ARMOR_KEYED_H

#include "core/scope.bpf.h"

/* Returns where a domain's tables of other kinds of rules than those for paths are, 0 if it has none. */
static __always_inline const struct image_kinds *tables_of_kinds(const struct scope *scope)
{
	return scope->rules->kinds ? eight_words(scope->image, scope->rules->kinds) : 0;
}

static __always_inline __u32 decision_for_subject(const struct scope *scope, __u32 table, __u32 subject, __u32 number)
{
	__u64 *row = subject == SUBJECT_CONFLICT ? 0 : word(scope->image, table + subject), *decisions = 0;
	__u32 keys;

	if (row) {
		keys = *row >> 32;
		if (number > keys)
			number = keys;
		decisions = word(scope->image, (__u32)*row + number / 2);
	}
	return decisions ? *decisions >> (number % 2 * 32) : VERDICT_BLOCK << VERDICT_SHIFT | RULE_UNRESOLVED;
}

/* Returns the stricter of two decisions, the first of equally strict ones. */
static __always_inline __u32 stricter(__u32 decision, __u32 other)
{
	return other >> VERDICT_SHIFT > decision >> VERDICT_SHIFT ? other : decision;
}

/* Returns the stricter decision on a number for the two classes of the task's program. */
static __always_inline __u32 keyed_decision(const struct scope *scope, __u32 table, __u32 number)
{
	__u32 decision = decision_for_subject(scope, table, scope->subject, number);

	if (scope->other_subject == scope->subject)
		return decision;
	return stricter(decision, decision_for_subject(scope, table, scope->other_subject, number));
}

#endif
