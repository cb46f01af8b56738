/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Looks into other processes: ptrace, /proc/PID/mem and its neighbours, process_vm_writev, pidfd_getfd, process_madvise, kcmp, setns
 * to a process's namespaces. The kernel asks for all of them in one place.
 *
 * A task under rules may look at none outside of its domain, nor at one whose program has a right that its own lacks: it could use
 * that right through the other. Tasks of the host may look at containers'.
 */
#ifndef ARMOR_PTRACE_H
#define ARMOR_PTRACE_H

#include "self.h"

struct borrowing {
	struct scope own, other; /* alike but for the subject */
	__u32 decision;		 /* 0: there is nothing to be borrowed */
	__u64 tasks[2];		 /* whose subjects are to be computed */
	__u32 subjects[2];
	struct scratch *scratch;
};

/* One object class: whether the other may do what is refused to oneself. */
static long compare_rights(__u32 class, struct borrowing *borrowing)
{
	__u32 lost = class_mask(&borrowing->own, class) & ~class_mask(&borrowing->other, class), bit, rule;

	lost = lost >> CELL_BLOCKED & 0xff;
	if (!lost)
		return 0;
	lost &= -lost;
	bit = (lost & 0xf0 ? 4 : 0) + (lost & 0xcc ? 2 : 0) + (lost & 0xaa ? 1 : 0);
	/* The rule that refuses; where that is what an allow-list leaves out, the one that permits. */
	rule = class_decision(&borrowing->own, borrowing->own.subject, class, bit / 2, bit & 1) & RULE_MASK;
	if (!rule)
		rule = class_decision(&borrowing->other, borrowing->other.subject, class, bit / 2, bit & 1) & RULE_MASK;
	borrowing->decision = VERDICT_BLOCK << VERDICT_SHIFT | rule;
	return 1;
}

/* A step each, so that the verifier goes through it once. */
static long compute_subject(__u32 which, struct borrowing *borrowing)
{
	__u64 task = borrowing->tasks[which & 1];

	if (task)
		borrowing->subjects[which & 1] = subject_of(&borrowing->own, borrowing->scratch, (void *)task);
	return 0;
}

static __always_inline __u32 find_borrowed(struct borrowing *borrowing)
{
	/* Renames kept its path from being told. */
	if (borrowing->subjects[0] == SUBJECT_TORN)
		borrowing->subjects[0] = SUBJECT_NONE;
	if (borrowing->subjects[1] == SUBJECT_TORN)
		return VERDICT_BLOCK << VERDICT_SHIFT | RULE_UNRESOLVED;
	borrowing->other = borrowing->own;
	set_subject(&borrowing->own, borrowing->subjects[0]);
	set_subject(&borrowing->other, borrowing->subjects[1]);
	if (borrowing->subjects[0] != borrowing->subjects[1])
		bpf_loop(borrowing->own.rules->object_count, compare_rights, borrowing, 0);
	return borrowing->decision;
}

static __always_inline __u64 unless_known(const struct label *label, const struct scope *scope, struct task_struct *task, __u32 *subject)
{
	if (label->generation == scope->rules->generation) {
		*subject = label->subject;
		return 0;
	}
	return (__u64)PLAIN(task);
}

static __always_inline int check_look(struct task_struct *accessor, struct task_struct *target, __u32 mode, __u32 hook)
{
	struct label other = label_of(target);
	__u32 domain = other.domain, verdict = VERDICT_BLOCK, rule = 0, slot;
	struct label own = label_of(accessor);
	struct borrowing borrowing = {};
	struct scope *scope = &borrowing.own;
	struct scratch *scratch;
	bool is_ruled;
	int result = 0;

	if (is_exempt(&own))
		return 0;
	is_ruled = enter_scope(scope, accessor);
	if (domain > MAX_DOMAIN && in_a_domain(&own)) {
		if (is_agent(&own, accessor))
			return 0;
		rule = RULE_AGENT;
	} else if (!is_ruled || (domain != scope->domain && scope->domain == HOST_DOMAIN)) {
		return 0;
	} else if (domain != scope->domain) {
		rule = RULE_OUTSIDE;
		verdict = guard_verdict(scope->rules);
	} else if (!(scope->rules->flags & DOMAIN_SUBJECTS)) {
		return 0;
	}
	slot = claim_scratch();
	scratch = scratch_at(slot);
	if (!scratch)
		return refuse_without_scratch();
	if (!rule) {
		borrowing.scratch = scratch;
		borrowing.tasks[0] = unless_known(&own, scope, accessor, &borrowing.subjects[0]);
		borrowing.tasks[1] = unless_known(&other, scope, target, &borrowing.subjects[1]);
		bpf_loop(2, compute_subject, &borrowing, 0);
		rule = find_borrowed(&borrowing);
		if (!rule)
			goto out;
	}
	begin(scratch, accessor, hook);
	scratch->access.other = (__u64)PLAIN(target);
	scratch->access.permission = READ;
	if (mode & PTRACE_MODE_NOAUDIT)
		result = verdict == VERDICT_BLOCK ? -EACCES : 0;
	else
		result = refuse(scratch, own.domain, verdict, rule);
out:
	release_scratch(slot);
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
 * A program that is started while its task is traced: the tracer looked before, and would get what the new program may. What is
 * compared is which program the tracer runs, whoever it is but the agent.
 */
SEC("lsm/bprm_check_security")
int BPF_PROG(traced_exec, struct linux_binprm *bprm)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct borrowing borrowing = {};
	struct file *file = bprm->file;
	struct scratch *scratch;
	struct name *name;
	__u32 slot, rule, tracer;
	int verdict = 0;

	if (!task->ptrace || !enter_scope(&borrowing.own, task) || !(borrowing.own.rules->flags & DOMAIN_SUBJECTS))
		return 0;
	tracer = label_beside_lock((__u64)ADDRESS(task_struct, task, parent), 0);
	if (tracer > MAX_DOMAIN)
		return 0;
	slot = claim_scratch();
	scratch = scratch_at(slot);
	if (!scratch)
		return refuse_without_scratch();
	begin(scratch, task, BPRM_CHECK_SECURITY);
	borrowing.scratch = scratch;
	borrowing.tasks[0] = (__u64)ADDRESS(task_struct, task, parent);
	bpf_loop(1, compute_subject, &borrowing, 0);
	name = &scratch->access.name;
	set_name(name, file->f_path.dentry, PLAIN(file->f_path.mnt), 0, 0);
	name->place = place_of(mount_of((void *)name->mnt));
	if (is_named(name->place)) {
		borrowing.subjects[1] = find_names(&borrowing.own, scratch, name, true) ? subject_of_names(name) : SUBJECT_TORN;
	}
	rule = find_borrowed(&borrowing);
	if (rule) {
		scratch->access.permission = EXEC;
		verdict = refuse(scratch, borrowing.own.domain, VERDICT_BLOCK, rule);
	}
	release_scratch(slot);
	return verdict;
}

/* Signals, limits and scheduling by which a task could end the agent or keep it from running. */
static __noinline int guard_agent(struct task_struct *target, __u32 hook)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct label own, other = label_of(target);
	struct scratch *scratch;
	__u32 slot;
	int verdict;

	if (!is_exempt(&other))
		return 0;
	own = label_of(task);
	if (!in_a_domain(&own) || is_exempt(&own))
		return 0;
	slot = claim_scratch();
	scratch = scratch_at(slot);
	if (!scratch)
		return refuse_without_scratch();
	begin(scratch, task, hook);
	scratch->access.other = (__u64)PLAIN(target);
	scratch->access.permission = WRITE;
	verdict = refuse(scratch, own.domain, VERDICT_BLOCK, RULE_AGENT);
	release_scratch(slot);
	return verdict;
}

SEC("lsm/task_kill")
int BPF_PROG(task_kill, struct task_struct *target, struct kernel_siginfo *info, int signal, const struct cred *cred)
{
	/* With somebody else's rights, from USB's completions: whoever runs now has nothing to do with it. */
	return signal && !cred ? guard_agent(target, TASK_KILL) : 0;
}

SEC("lsm/task_setrlimit")
int BPF_PROG(task_setrlimit, struct task_struct *target, unsigned int resource, struct rlimit *limit)
{
	return guard_agent(target, TASK_SETRLIMIT);
}

SEC("lsm/task_setscheduler")
int BPF_PROG(task_setscheduler, struct task_struct *target)
{
	return guard_agent(target, TASK_SETSCHEDULER);
}

SEC("lsm/task_setnice")
int BPF_PROG(task_setnice, struct task_struct *target, int nice)
{
	return guard_agent(target, TASK_SETSCHEDULER);
}

/* The signal of a file that becomes ready. Who asked for it cannot be told any more; the agent waits for none. */
SEC("lsm/file_send_sigiotask")
int BPF_PROG(file_send_sigiotask, struct task_struct *target, struct fown_struct *owner, int signal)
{
	struct label label = label_of(target);

	if (!is_exempt(&label))
		return 0;
	count(COUNT_BLOCKED);
	return -EACCES;
}

#endif
