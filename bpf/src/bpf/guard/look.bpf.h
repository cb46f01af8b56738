/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Guards access to other processes: ptrace, /proc/PID/mem and its neighbours, process_vm_writev, pidfd_getfd,
 * process_madvise, kcmp, and setns to a process's namespaces. The kernel asks one hook about all of them.
 *
 * A task under rules may look into no process outside of its domain, and into none whose program has a right
 * that its own lacks: it could use that right through the other process. Tasks of the host may look into
 * those of containers.
 */
#ifndef ARMOR_LOOK_H
#define ARMOR_LOOK_H

#include "core/keyed.bpf.h"
#include "guard/guard.bpf.h"
#include "path/answer.bpf.h"

struct borrowing {
	struct scope own, other; /* equal except for the subject */
	__u32 decision;		 /* 0: no right can be borrowed */
	__u32 table;		 /* the keyed table that is compared */
};

/* Compares one object class: whether `other` may do something that `own` is refused. */
static long compare_rights(__u32 class, struct borrowing *borrowing)
{
	__u32 own = class_mask(&borrowing->own, class), other = class_mask(&borrowing->other, class), lost, bit, rule;

	lost = (own & ~other) >> CELL_BLOCKED & CELL_ALL;
	/* Another list permits other arguments. */
	if (!lost && own >> CELL_LIST && own >> CELL_LIST != other >> CELL_LIST && blocks_mapping(own))
		lost = 1u << 2 * MAP;
	if (!lost)
		return 0;
	bit = lowest_bit(lost);
	/* The rule that refuses. For what an allow-list leaves out, the rule that permits it to `other`. */
	rule = class_decision(&borrowing->own, borrowing->own.subject, class, bit / 2, bit & 1) & RULE_MASK;
	if (!rule)
		rule = class_decision(&borrowing->other, borrowing->other.subject, class, bit / 2, bit & 1) & RULE_MASK;
	borrowing->decision = VERDICT_BLOCK << VERDICT_SHIFT | rule;
	return 1;
}

/* Compares the decisions on one number. */
static long compare_numbers(__u32 number, struct borrowing *borrowing)
{
	__u32 own = keyed_decision(&borrowing->own, borrowing->table, number);

	if (!blocks(own) || blocks(keyed_decision(&borrowing->other, borrowing->table, number)))
		return 0;
	borrowing->decision = own;
	return 1;
}

static __always_inline void compare_table(struct borrowing *borrowing, __u32 table)
{
	__u64 *row;

	if (!table || borrowing->decision)
		return;
	borrowing->table = table;
	row = word(borrowing->own.image, table);
	/* With what stands for other numbers. */
	bpf_loop(row ? (*row >> 32) + 1 : 0, compare_numbers, borrowing, 0);
}

/* Returns the word of the keyed table of names. */
static __always_inline __u32 cells_of_names(const struct borrowing *borrowing, __u32 at)
{
	const struct image_names *names = at ? word_pair(borrowing->own.image, at) : 0;

	return names ? names->cells : 0;
}

static __always_inline void compare_tables(struct borrowing *borrowing)
{
	const struct image_kinds *tables = tables_of_kinds(&borrowing->own);

	if (!tables)
		return;
	compare_table(borrowing, tables->capabilities);
	compare_table(borrowing, tables->network);
	compare_table(borrowing, tables->egress.cells);
	compare_table(borrowing, tables->ingress.cells);
	compare_table(borrowing, cells_of_names(borrowing, tables->dns));
}

/*
 * Returns nonzero if a program of the subject `own` could borrow rights of one of `other`, and reports it
 * unless the question is silent.
 */
static __noinline int judge_borrowing(struct scope *scope, struct scratch *scratch, __u32 own, __u32 other)
{
	struct borrowing borrowing = { .own = *scope, .other = *scope };
	const __u64 *tasks = scratch->question.tasks;
	bool alike;

	borrowing.own.terminal = terminal_of(scope->rules, (void *)tasks[0]);
	borrowing.other.terminal = terminal_of(scope->rules, (void *)tasks[1]);
	set_subject(&borrowing.own, own);
	set_subject(&borrowing.other, other);
	alike = own == other && borrowing.own.terminal == borrowing.other.terminal;
	if (other == SUBJECT_TORN)
		borrowing.decision = VERDICT_BLOCK << VERDICT_SHIFT | RULE_UNRESOLVED;
	else if (!alike)
		bpf_loop(scope->rules->object_count, compare_rights, &borrowing, 0);
	if (!borrowing.decision && !alike)
		compare_tables(&borrowing);
	if (!borrowing.decision)
		return 0;
	note_refusal(&scratch->access, scope->domain, VERDICT_BLOCK, borrowing.decision);
	if (!scratch->question.silent)
		report(scratch);
	return -EACCES;
}

/* Returns the subject of one of the two tasks, from its label if that is of this generation. */
static __always_inline __u32 subject_of(const struct scope *scope, const struct scratch *scratch, __u32 which)
{
	const struct label *label = &scratch->question.labels[which];

	return label->generation == scope->rules->generation ? label->subject :
							       subject_found(&scratch->access.names[PROGRAM + which]);
}

static __always_inline void begin_look(const struct scope *scope, struct scratch *scratch)
{
	for (__u32 which = 0; which < 2; which++)
		if (scratch->question.labels[which].generation != scope->rules->generation)
			want_program(scratch, PROGRAM + which, scratch->question.tasks[which]);
}

static __always_inline int judge_look(struct scope *scope, struct scratch *scratch)
{
	__u32 own = subject_of(scope, scratch, 0);

	scratch->access.permission = READ;
	return judge_borrowing(scope, scratch, own == SUBJECT_TORN ? SUBJECT_NONE : own, subject_of(scope, scratch, 1));
}

static __always_inline int judge_traced_exec(struct scope *scope, struct scratch *scratch)
{
	__u32 own = subject_found(&scratch->access.program);

	scratch->access.permission = EXEC;
	return judge_borrowing(scope, scratch, own == SUBJECT_TORN ? SUBJECT_NONE : own,
			       subject_found(&scratch->access.name));
}

static __always_inline int check_look(struct task_struct *accessor, struct task_struct *target, __u32 mode, __u32 hook)
{
	struct label own = label_of(accessor), other = label_of(target);
	__u32 verdict = VERDICT_BLOCK, rule = 0;
	struct question *question;
	struct scratch *scratch;
	struct scope scope;
	bool is_ruled;
	int result;

	if (is_exempt(&own))
		return 0;
	is_ruled = enter_scope(&scope, accessor);
	if (is_exempt(&other) && in_a_domain(&own)) {
		if (is_agent(&own, accessor))
			return 0;
		rule = RULE_AGENT;
	} else if (!is_ruled || (other.domain != scope.domain && scope.domain == HOST_DOMAIN)) {
		return 0;
	} else if (other.domain != scope.domain) {
		rule = RULE_OUTSIDE;
		verdict = guard_verdict(scope.rules);
	} else if (!(scope.rules->flags & DOMAIN_SUBJECTS) && !scope.rules->terminals) {
		return 0;
	}
	scratch = claim_scratch();
	if (!scratch)
		return refuse_unreported();
	begin(scratch, accessor, hook);
	scratch->access.other = (__u64)PLAIN(target);
	scratch->access.permission = READ;
	question = &scratch->question;
	question->silent = !!(mode & PTRACE_MODE_NOAUDIT);
	if (!rule) {
		question->tasks[0] = (__u64)PLAIN(accessor);
		question->tasks[1] = (__u64)PLAIN(target);
		question->labels[0] = own;
		question->labels[1] = other;
		result = ask(scratch, &scope, ASK_LOOK);
	} else if (question->silent) {
		result = verdict == VERDICT_BLOCK ? -EACCES : 0;
	} else {
		result = refuse(scratch, own.domain, verdict, rule);
	}
	release_scratch(scratch);
	return result;
}

SEC("lsm/ptrace_access_check")
int BPF_PROG(ptrace_access_check, struct task_struct *child, unsigned int mode)
{
	return check_look(bpf_get_current_task_btf(), child, mode, PTRACE_ACCESS_CHECK);
}

SEC("lsm/ptrace_traceme")
int BPF_PROG(ptrace_traceme, struct task_struct *parent)
{
	return check_look(parent, bpf_get_current_task_btf(), 0, PTRACE_TRACEME);
}

/*
 * Checks a program that starts while its task is traced. The tracer was checked earlier, and would get the
 * new program's rights. Every tracer's program is compared, except the agent's.
 */
SEC("lsm/bprm_check_security")
int BPF_PROG(traced_exec, struct linux_binprm *bprm)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct file *file = bprm->file;
	struct scratch *scratch;
	struct scope scope;
	int verdict;

	if (!task->ptrace || !enter_scope(&scope, task) || !(scope.rules->flags & DOMAIN_SUBJECTS))
		return 0;
	if ((__u32)label_beside_lock((__u64)ADDRESS(task_struct, task, parent), 0) > MAX_DOMAIN)
		return 0;
	scratch = claim_scratch();
	if (!scratch)
		return refuse_unreported();
	begin(scratch, task, BPRM_CHECK_SECURITY);
	set_name(&scratch->access.name, file->f_path.dentry, PLAIN(file->f_path.mnt), 0, 0);
	scratch->question.tasks[0] = (__u64)ADDRESS(task_struct, task, parent);
	scratch->question.tasks[1] = (__u64)PLAIN(task);
	scratch->question.silent = 0;
	verdict = ask(scratch, &scope, ASK_TRACED_EXEC);
	release_scratch(scratch);
	return verdict;
}

/*
 * Refuses to let a process name another file as its own program (PR_SET_MM), because it would get that file's
 * rights. Tools that restore processes in this way (CRIU) do it outside of domains with fromSource rules.
 */
SEC("lsm/task_prctl")
int BPF_PROG(task_prctl, int option, unsigned long what)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct scratch *scratch;
	struct scope scope;
	int verdict;

	if (option != PR_SET_MM || (what != PR_SET_MM_EXE_FILE && what != PR_SET_MM_MAP) ||
	    !enter_scope(&scope, task) || !(scope.rules->flags & DOMAIN_SUBJECTS))
		return 0;
	scratch = claim_scratch();
	if (!scratch)
		return refuse_unreported();
	begin(scratch, task, TASK_PRCTL);
	scratch->access.other = (__u64)PLAIN(task);
	scratch->access.permission = WRITE;
	verdict = refuse(scratch, scope.domain, guard_verdict(scope.rules), RULE_SOURCE);
	release_scratch(scratch);
	return verdict;
}

#endif
