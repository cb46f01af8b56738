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
#include "names/classes.bpf.h"
#include "names/scan.bpf.h"
#include "syscall/path.bpf.h"

/* The argument of a function that carries out a call: the address of the registers with the call's own arguments. */
#ifdef __TARGET_ARCH_x86
#define FIRST_ARGUMENT(registers) (registers)->di
#else
#define FIRST_ARGUMENT(registers) (registers)->regs[0]
#endif

/* A call that rules may name by its path. */
struct named_call {
	const struct image_names *names;
	__u64 registers; /* address of the struct pt_regs with its arguments */
	__u32 call;
	bool compat;
};

static __always_inline __u32 scan_on(const struct scope *scope, struct scratch *scratch,
				     const struct image_automaton *automaton, __u32 state, __u32 length)
{
	scratch->scan.at = state;
	scratch->scan.position = 0;
	scratch->scan.end = length;
	return scan_path(scope->image, scratch, automaton);
}

/* Returns the decision on a call by the path in this place, VERDICT_ALLOW if rules for paths are not about it. */
static __noinline __u32 decide_call_path(const struct scope *scope, struct scratch *scratch,
					 const struct named_call *of, __u32 place)
{
	const struct image_automaton *automaton = &of->names->names;
	struct syscall_event *event = &scratch->access.tail.syscall;
	__u32 state, class;
	int length;

	event->has_path = event->path_length = 0;
	scratch->path[0] = 0x80 | of->call >> 7;
	scratch->path[1] = 0x80 | (of->call & 0x7f);
	state = scan_on(scope, scratch, automaton, automaton->start, 2);
	if (!state || state == NO_STATE)
		return VERDICT_ALLOW;
	length = read_call_path(scratch, bpf_get_current_task_btf(), of->registers, place, of->compat);
	if (length < 0 || length >= PATH_CAPACITY)
		return VERDICT_AUDIT << VERDICT_SHIFT | RULE_UNRESOLVED;
	state = scan_on(scope, scratch, automaton, state, length);
	class = state == NO_STATE ? 0 : classes_at(scope->image, automaton, state) & 0xffff;
	if (!class)
		return VERDICT_ALLOW;
	event->has_path = 1;
	event->path_length = length;
	bpf_probe_read_kernel(scratch->event.strings, length, scratch->path);
	return keyed_decision(scope, of->names->cells, class);
}

/* Reports a call. */
static __noinline int report_call(const struct scope *scope, struct scratch *scratch, __u32 call, __u32 decision)
{
	struct syscall_event event = scratch->access.tail.syscall;

	begin(scratch, bpf_get_current_task_btf(), SYSCALL_ENTER);
	scratch->access.kind = EVENT_SYSCALL;
	note_decision(scope, &scratch->access, decision);
	event.syscall = call;
	scratch->access.tail.syscall = event;
	report(scratch);
	return 0;
}

SEC("kprobe")
int syscall_enter(struct pt_regs *registers)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 cookie = bpf_get_attach_cookie(registers);
	__u32 decision = VERDICT_ALLOW;
	const struct image_kinds *tables;
	struct named_call of = {};
	struct scratch *scratch;
	struct scope scope;

	if (!enter_scope(&scope, task))
		return 0;
	tables = tables_of_kinds(&scope);
	if (!tables || !(tables->syscalls | tables->syscall_paths))
		return 0;
	of.call = cookie & 0xffff;
	of.compat = cookie >> COOKIE_COMPAT & 1;
	find_known_subject(&scope);
	if (tables->syscalls)
		decision = keyed_decision(&scope, tables->syscalls, of.call);
	of.names = tables->syscall_paths && cookie >> COOKIE_PATH ? word_pair(scope.image, tables->syscall_paths) : 0;
	if (!(decision >> VERDICT_SHIFT) && !of.names)
		return 0;
	scratch = claim_scratch();
	if (!scratch) {
		/* Whether the call is to be reported is not known with a path. */
		count(COUNT_AUDITED);
		count(COUNT_DROPPED);
		return 0;
	}
	scratch->access.tail.syscall.has_path = scratch->access.tail.syscall.path_length = 0;
	if (of.names) {
		__u32 by_path;

		of.registers = FIRST_ARGUMENT(registers);
		by_path = unknown(decide_call_path(&scope, scratch, &of, cookie >> COOKIE_PATH & 0xff));
		if (!(by_path >> VERDICT_SHIFT) && cookie >> COOKIE_SECOND_PATH)
			by_path = unknown(decide_call_path(&scope, scratch, &of, cookie >> COOKIE_SECOND_PATH & 0xff));
		if (by_path >> VERDICT_SHIFT)
			decision = by_path;
	}
	decision = unknown(decision);
	if (decision >> VERDICT_SHIFT)
		report_call(&scope, scratch, of.call, decision);
	release_scratch(scratch);
	return 0;
}

#endif
