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

#define MAX_CALL_PATHS 2
/* Stands for a path that cannot be read (policy::syscall::SyscallTable::UNREADABLE). */
#define UNREADABLE_PATH 1

static __always_inline __u32 scan_on(const struct scope *scope, struct scratch *scratch,
				     const struct image_automaton *automaton, __u32 state, __u32 length)
{
	scratch->scan.at = state;
	scratch->scan.position = 0;
	scratch->scan.end = length;
	return scan_path(scope->image, scratch, automaton);
}

/*
 * Returns the decision on a call by the path in this place, VERDICT_ALLOW if rules for paths are not about it. A rule without a path
 * can be that which decides.
 */
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
	length = read_call_path(scratch, bpf_get_current_task_btf(), of, place);
	if (length == NO_PATH)
		return VERDICT_ALLOW;
	if (length >= 0 && length < PATH_CAPACITY) {
		event->has_path = 1;
		event->path_length = length;
		bpf_probe_read_kernel(scratch->event.strings, length, scratch->path);
	} else {
		scratch->path[0] = UNREADABLE_PATH;
		length = 1;
	}
	state = scan_on(scope, scratch, automaton, state, length);
	class = state == NO_STATE ? 0 : classes_at(scope->image, automaton, state) & 0xffff;
	return class ? keyed_decision(scope, of->names->cells, class) : VERDICT_ALLOW;
}

/* Reports a call, whose path is in the scratch if it has one. */
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

struct paths_walk {
	const struct scope *scope;
	struct scratch *scratch;
	const struct named_call *of;
	__u64 places;	/* of the paths that are left, a byte for each */
	__u32 decision; /* on the call whatever its paths */
	__u32 reported;
};

/* Reports the call if rules are about its next path. */
static long report_path(__u32 step, struct paths_walk *walk)
{
	__u32 decision;

	if (!walk->places)
		return 1;
	decision = unknown(decide_call_path(walk->scope, walk->scratch, walk->of, walk->places & 0xff));
	walk->places >>= 8;
	if (decision >> VERDICT_SHIFT && decision != walk->decision) {
		report_call(walk->scope, walk->scratch, walk->of->call, decision);
		walk->reported = 1;
	}
	return 0;
}

SEC("kprobe")
int syscall_enter(struct pt_regs *registers)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 cookie = bpf_get_attach_cookie(registers);
	const struct image_kinds *tables;
	struct paths_walk walk = {};
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
	of.narrow = cookie >> COOKIE_NARROW & 1;
	of.registers = FIRST_ARGUMENT(registers);
	find_known_subject(&scope);
	if (tables->syscalls)
		walk.decision = unknown(keyed_decision(&scope, tables->syscalls, of.call));
	of.names = tables->syscall_paths && cookie >> COOKIE_PATH ? word_pair(scope.image, tables->syscall_paths) : 0;
	if (!(walk.decision >> VERDICT_SHIFT) && !of.names)
		return 0;
	scratch = claim_scratch();
	if (!scratch) {
		/* Whether the call is to be reported is not known with a path. */
		count(COUNT_AUDITED);
		count(COUNT_DROPPED);
		return 0;
	}
	if (of.names) {
		walk.scope = &scope;
		walk.scratch = scratch;
		walk.of = &of;
		walk.places = cookie >> COOKIE_PATH;
		bpf_loop(MAX_CALL_PATHS, report_path, &walk, 0);
	}
	if (!walk.reported && walk.decision >> VERDICT_SHIFT) {
		scratch->access.tail.syscall.has_path = scratch->access.tail.syscall.path_length = 0;
		report_call(&scope, scratch, of.call, walk.decision);
	}
	release_scratch(scratch);
	return 0;
}

#endif
