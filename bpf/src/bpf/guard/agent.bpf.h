/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Guards the agent against signals, limits and priorities that would end it or keep it from running. */
#ifndef ARMOR_AGENT_H
#define ARMOR_AGENT_H

#include "guard/guard.bpf.h"
#include "path/access.bpf.h"

/* Refuses signals, limits and scheduling by which a task could end the agent or keep it from running. */
static __noinline int guard_agent(struct task_struct *target, __u32 hook)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct label own, other = label_of(target);
	struct scratch *scratch;
	int verdict;

	if (!is_exempt(&other))
		return 0;
	own = label_of(task);
	if (!in_a_domain(&own) || is_exempt(&own))
		return 0;
	scratch = claim_scratch();
	if (!scratch)
		return refuse_unreported();
	begin(scratch, task, hook);
	scratch->access.other = (__u64)PLAIN(target);
	scratch->access.permission = WRITE;
	verdict = refuse(scratch, own.domain, VERDICT_BLOCK, RULE_AGENT);
	release_scratch(scratch);
	return verdict;
}

SEC("lsm/task_kill")
int BPF_PROG(task_kill, struct task_struct *target, struct kernel_siginfo *info, int signal, const struct cred *cred)
{
	/*
	 * With `cred`, the signal comes from USB's completions with another task's rights: the current task
	 * has nothing to do with it. The verifier of later kernels takes the argument to be never 0, and
	 * would remove what follows.
	 */
	return signal && !PLAIN(cred) ? guard_agent(target, TASK_KILL) : 0;
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

SEC("lsm/task_setioprio")
int BPF_PROG(task_setioprio, struct task_struct *target)
{
	return guard_agent(target, TASK_SETIOPRIO);
}

SEC("lsm/task_setnice")
int BPF_PROG(task_setnice, struct task_struct *target, int nice)
{
	return guard_agent(target, TASK_SETSCHEDULER);
}

/* Refuses signals of files that become ready. Their originator is unknown, and the agent waits for none. */
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
