// SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause
/*
 * Brings the programs together: one per hook, which says what an access needs and leaves the rest to
 * check.bpf.h; the iterators that find what no hook sees; and the judge, to which all of them turn.
 *
 * Invariants:
 * - A program returns 0 or -EACCES (-EPERM for capabilities), whatever happens to the alert: decide first, report second.
 * - No decision depends on user memory that a task can write: only arguments.bpf.h reads any, that of a program before it
 *   runs. No hook runs on read or write.
 * - What cannot be determined (no path, no scratch, a table that ends early) is refused if the domain has
 *   rules of that kind.
 */
#include "capability/hook.bpf.h"
#include "dns/egress.bpf.h"
#include "exec_hooks.bpf.h"
#include "guard/agent.bpf.h"
#include "guard/look.bpf.h"
#include "guard/objects.bpf.h"
#include "iterators.bpf.h"
#include "network/hooks.bpf.h"
#include "network/ingress.bpf.h"
#include "path/arguments.bpf.h"
#include "path/attributes.bpf.h"
#include "path/file_hooks.bpf.h"
#include "path/mount_hooks.bpf.h"
#include "path/name_hooks.bpf.h"
#include "path/socket.bpf.h"
#include "preset/hooks.bpf.h"
#include "syscall/hook.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Makes the skeleton generate the contract's types for Rust. No program reads it. */
struct contract {
	enum domain_number domain_number;
	enum image_size image_size;
	enum event_size event_size;
	enum table_bit table_bit;
	enum object_class object_class;
	enum subject_class subject_class;
	enum verdict verdict;
	enum reserved_rule reserved_rule;
	enum permission permission;
	enum hook hook;
	enum domain_flag domain_flag;
	enum device_kind device_kind;
	enum guarded_kind guarded_kind;
	enum guarded_slots guarded_slots;
	enum guarded_reach guarded_reach;
	enum counter counter;
	enum event_kind event_kind;
	enum preset preset;
	enum socket_kind socket_kind;
	enum transport transport;
	enum argument_limit argument_limit;
	enum call_cookie call_cookie;
	enum call_base call_base;
	struct image_domain image_domain;
	struct image_kinds image_kinds;
	struct image_destinations image_destinations;
	struct image_names image_names;
	struct image_arguments image_arguments;
	struct label label;
	struct container_id container_id;
	struct labelled labelled;
	struct linked_key linked_key;
	struct guarded_key guarded_key;
	struct event event;
};
const volatile struct contract contract = {};

/* Sets up the names to find for an answer. Returns whether the current task's program is among them. */
static __always_inline bool begin_answer(struct scope *scope, struct scratch *scratch)
{
	struct question *question = &scratch->question;

	switch (question->asked) {
	case ASK_NAME:
		/* The generation has changed: what was cached for the last one does not count. */
		if (question->generation != scope->rules->generation)
			question->known = scratch->access.name.directory.known = 0;
		if (!question->known)
			want_object(scratch, NAME);
		break;
	case ASK_TWO_NAMES:
		want_object(scratch, NAME);
		want_object(scratch, NEW_NAME);
		break;
	case ASK_ARGUMENTS:
		want_object(scratch, NAME);
		break;
	case ASK_MOUNTING:
		begin_mounting(scope, scratch);
		break;
	case ASK_DEVICE:
		break;
	case ASK_LOOK:
		begin_look(scope, scratch);
		return false;
	case ASK_TRACED_EXEC:
		want_program(scratch, PROGRAM, question->tasks[0]);
		want_program(scratch, NAME, 0);
		return false;
	case ASK_SOURCE:
		want_program(scratch, NAME, 0);
		return false;
	}
	if (find_known_subject(scope))
		return false;
	want_program(scratch, PROGRAM, (__u64)PLAIN(bpf_get_current_task_btf()));
	return true;
}

/* Decides on the question in a scratch, in place of judge(). */
SEC("?freplace/judge")
int judge_access(__u32 slot)
{
	struct scratch *scratch = scratch_at(slot);
	struct scope scope;
	bool finds_subject;
	__u32 asked;

	if (!scratch)
		return 1;
	asked = scratch->question.asked;
	settle_own(bpf_get_current_task_btf(), scratch);
	if (asked == ASK_REPORT) {
		report_or_defer(scratch);
		return 0;
	}
	if (!enter_domain_of(&scope, scratch->question.domain, bpf_get_current_task_btf()))
		return 0;
	if (scope.rules->flags & DOMAIN_SUBJECTS)
		note_label(&scope, label_of(bpf_get_current_task_btf()));
	scratch->find_count = 0;
	finds_subject = begin_answer(&scope, scratch);
	find_wanted(&scope, scratch);
	if (finds_subject)
		store_subject(&scope, &scratch->access.program);
	switch (scratch->question.asked) {
	case ASK_SUBJECT:
		return 0;
	case ASK_NAME:
		return judge_name(&scope, scratch);
	case ASK_TWO_NAMES:
		return judge_two_names(&scope, scratch);
	case ASK_MOUNTING:
		return judge_mounting(&scope, scratch);
	case ASK_DEVICE:
		return judge_device(&scope, scratch);
	case ASK_LOOK:
		return judge_look(&scope, scratch);
	case ASK_TRACED_EXEC:
		return judge_traced_exec(&scope, scratch);
	case ASK_SOURCE:
		return subject_found(&scratch->access.name) != SUBJECT_NONE;
	case ASK_ARGUMENTS:
		return judge_arguments(&scope, scratch);
	}
	return 1;
}
