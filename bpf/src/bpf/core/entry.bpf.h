/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Determines which container a task is in, and when the task comes under that container's rules.
 *
 * A container is known by its id, which runtimes write into the name of its control group. The names are read
 * when a task that is in no container's domain starts a program. There is no table of control groups that
 * could be out of date, or hold the number of a group that is gone. Only names that root gave count:
 * otherwise a user with control groups of his own could leave the host's rules for a container's.
 *
 * A runtime prepares a container with tasks in the container's control group. They stay under the host's
 * rules until they start a program in a mount namespace that is neither the host's nor their parent's. From
 * then on the label sticks, whatever namespace or control group the task moves to.
 *
 * A container that the agent has not named, because the agent is away or late, is unidentified. If
 * UNIDENTIFIED_DOMAIN has rules, the container's tasks are in that domain until it is named or found to be
 * none that the agent follows. Privileged containers in the host's pid namespace are exempt: the agent's own
 * container is one and must always start.
 */
#ifndef ARMOR_ENTRY_H
#define ARMOR_ENTRY_H

#include "core/bounding.bpf.h"
#include "core/container.bpf.h"

/*
 * Nanoseconds for which a task that runs from a file in no mount tree may be a runtime's. WAITING applies if
 * its parent is in the host's mount namespace: the container is prepared by then and waits to be started.
 */
#define PREPARING 10000000000ull
#define WAITING 600000000000ull

/* Seconds after which a container without a name counts as none that the agent follows. */
#define UNIDENTIFIED_LIMIT 10
/* Returns whether the program that a task starts is its first in a container, if it is in one at all. */
static __always_inline bool enters(struct task_struct *task)
{
	__u32 host = host_mount_namespace(), own = mount_namespace_of(task);

	return host && own && own != host && own != mount_namespace_of(ADDRESS(task_struct, task, real_parent));
}

/*
 * Returns whether a task that existed before its container was known is the container's, if it is in one at
 * all. A runtime's task is not: it has started no program since it was forked, and runs from a file of the
 * host or from a copy of it that is in no mount tree.
 */
static __always_inline bool is_inside(struct task_struct *task)
{
	__u32 host = host_mount_namespace(), own = mount_namespace_of(task);
	struct file *exe;
	__u32 place;
	__u64 limit;

	if (!host || !own || own == host)
		return false;
	if (!(FIELD(task_struct, task, flags) & PF_FORKNOEXEC))
		return true;
	exe = ADDRESS(mm_struct, ADDRESS(task_struct, task, mm), exe_file);
	place = place_of(mount_of(ADDRESS(file, exe, f_path.mnt)));
	if (is_named(place))
		return place != host;
	limit = mount_namespace_of(ADDRESS(task_struct, task, real_parent)) == host ? WAITING : PREPARING;
	return bpf_ktime_get_boot_ns() - FIELD(task_struct, task, start_boottime) > limit;
}

/*
 * Returns whether the first process of an entry root is alive. A process keeps its struct signal_struct
 * through every exec. A freed one has no live threads, or belongs to a process with another number.
 */
static __always_inline bool is_alive(const struct entry_root *entry_root)
{
	struct signal_struct *signal = (void *)entry_root->signal;
	struct pid *pid = ADDRESS(signal_struct, signal, pids[PIDTYPE_TGID]);

	return signal && FIELD(signal_struct, signal, live.counter) > 0 &&
		FIELD(pid, pid, numbers[0].nr) == entry_root->process;
}

/* Returns whether the container has an entry root already: the task comes into a container that runs. */
static __always_inline bool record_entry_root(struct task_struct *task, __u32 domain)
{
	struct entry_root entry_root = {
		.mount_namespace = mount_namespace_of(task),
		.process = FIELD(task_struct, task, tgid),
		.sequence = sequence_of((__u64)ADDRESS(nsproxy, ADDRESS(task_struct, task, nsproxy), mnt_ns)),
		.signal = (__u64)ADDRESS(task_struct, task, signal),
	};
	struct entry_root *before = bpf_map_lookup_elem(&entrances, &domain);

	/* A task that comes later may have its own namespace, even when the container's has no task left. */
	if (before && before->mount_namespace &&
	    (is_given(before, namespace_at(before->mount_namespace)) || is_alive(before)))
		return true;
	note_namespace(task);
	bpf_map_update_elem(&entrances, &domain, &entry_root, BPF_ANY);
	return false;
}

/* Returns whether the first process of the domain's entry root is alive, and is not the task's. */
static __always_inline bool has_other_first_process(struct task_struct *task, __u32 domain)
{
	struct entry_root *entry_root = bpf_map_lookup_elem(&entrances, &domain);

	return entry_root && is_alive(entry_root) && entry_root->process != FIELD(task_struct, task, tgid);
}

/*
 * Puts a task into a domain. Returns 0 if there is no memory for its label, or the lock on it is taken. Keeps
 * ENTERING, because another task may call this while the task starts its program.
 */
static __always_inline struct label *set_domain(struct task_struct *task, __u32 domain)
{
	struct label *label = bpf_task_storage_get(&labels, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	/* It fails once if another processor gives the task its first storage, as in inode_link. */
	if (!label)
		label = bpf_task_storage_get(&labels, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!label)
		return 0;
	label->domain = domain;
	label->generation = 0;
	return label;
}

/* Puts a task into its container's domain before it starts its first program there. */
static __always_inline int enter_container(struct task_struct *task)
{
	struct scratch *scratch;
	struct label *label;
	__u32 domain, session = 0;

	if (label_of(task).domain != HOST_DOMAIN || !enters(task))
		return 0;
	scratch = claim_scratch();
	if (!scratch)
		return refuse_unreported();
	domain = domain_of_container(scratch, task);
	release_scratch(scratch);
	if (domain == HOST_DOMAIN)
		return 0;
	if (domain != UNIDENTIFIED_DOMAIN) {
		/* Of the container's own, the first process has the number 1, where the container has numbers of its own. */
		if (record_entry_root(task, domain) && process_number(task) != 1 &&
		    (BPF_CORE_READ(task, thread_pid, level) || has_other_first_process(task, domain)))
			session = SESSION;
	} else {
		if (!has_rules(UNIDENTIFIED_DOMAIN) || may_be_the_agents(task))
			return 0;
		count(COUNT_UNIDENTIFIED);
	}
	note_bounding_set(task, domain);
	label = set_domain(task, domain);
	if (!label)
		return -EACCES;
	label->entered = seconds() | ENTERING | session;
	return 0;
}

/*
 * Labels a task that existed before its container was known, and writes a struct labelled for each task with
 * a label. With `release`, tasks of a container that has been unidentified for UNIDENTIFIED_LIMIT come under
 * the host's rules.
 */
static __always_inline int show_labelled(struct seq_file *seq, struct task_struct *task, bool release)
{
	struct label label = label_of(task);
	bool is_unidentified = label.domain == UNIDENTIFIED_DOMAIN;
	struct labelled labelled = {};
	struct scratch *scratch;
	__u32 domain;

	if (label.domain != HOST_DOMAIN && !is_unidentified) {
		labelled.domain = label.domain;
		note_bounding_set(task, label.domain);
		bpf_seq_write(seq, &labelled, sizeof(labelled));
		return 0;
	}
	if (!is_unidentified && !is_inside(task))
		return 0;
	scratch = claim_scratch();
	if (!scratch)
		return 1; /* retry */
	domain = domain_of_container(scratch, task);
	release_scratch(scratch);
	if (domain == HOST_DOMAIN || domain == UNIDENTIFIED_DOMAIN) {
		if (!is_unidentified)
			return 0;
		if (release && seconds() - (label.entered & ~ENTERED_FLAGS) > UNIDENTIFIED_LIMIT) {
			set_domain(task, HOST_DOMAIN);
			return 0;
		}
		labelled.domain = UNIDENTIFIED_DOMAIN;
		note_bounding_set(task, UNIDENTIFIED_DOMAIN);
		bpf_seq_write(seq, &labelled, sizeof(labelled));
		return 0;
	}
	labelled.domain = domain;
	labelled.is_new = 1;
	note_bounding_set(task, domain);
	/* If the reader's buffer was full, the kernel shows the task again. */
	if (!bpf_seq_write(seq, &labelled, sizeof(labelled)))
		set_domain(task, domain);
	return 0;
}

#endif
