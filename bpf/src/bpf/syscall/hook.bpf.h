/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Reports system calls. A call has no hook that sees it as such, so this is a kprobe at the function of each call that a rule
 * names, and of no other (enforcer/syscalls.rs). It refuses nothing.
 *
 * The judge cannot take part: before 6.2 no kprobe may use maps with spin locks. So the class of a program is known here once
 * another hook has asked for it, which is at its start, or at its first access after a swap. Until then it is that of a program
 * which no rule names.
 */
#ifndef ARMOR_SYSCALL_HOOK_H
#define ARMOR_SYSCALL_HOOK_H

#include "number_check.bpf.h"

SEC("kprobe")
int syscall_enter(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	const struct image_kinds *tables;
	struct scratch *scratch;
	struct scope scope;
	__u32 call, decision;

	if (!enter_scope(&scope, task))
		return 0;
	tables = tables_of_kinds(&scope);
	if (!tables || !tables->syscalls)
		return 0;
	call = bpf_get_attach_cookie(ctx);
	find_known_subject(&scope);
	decision = keyed_decision(&scope, tables->syscalls, call);
	if (!(decision >> VERDICT_SHIFT))
		return 0;
	scratch = begin_number_event(&scope, task, SYSCALL_ENTER, EVENT_SYSCALL, decision);
	if (scratch) {
		scratch->access.tail.syscall.syscall = call;
		report(scratch);
		release_scratch(scratch);
	}
	return 0;
}

#endif
