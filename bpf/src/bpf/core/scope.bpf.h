/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Determines which domain's rules a task is under. */
#ifndef ARMOR_SCOPE_H
#define ARMOR_SCOPE_H

#include "core/image.bpf.h"
#include "core/label.bpf.h"

struct scope {
	void *image;
	const struct image_domain *rules;
	__u32 label_generation, label_subject; /* of the task's label */
	__u16 domain;
	__u16 terminal; /* what is added to classes, as a terminal controls the task */
	/* Classes of the task's program, mostly the same one twice; both must grant a right. */
	__u16 subject, other_subject;
};

/* Returns a class as it counts for the task of a scope. */
static __always_inline __u32 class_on_terminal(const struct scope *scope, __u32 class)
{
	return class == SUBJECT_CONFLICT ? class : class + scope->terminal;
}

/* Sets the classes that a label has. */
static __always_inline void set_subject(struct scope *scope, __u32 subject)
{
	scope->subject = class_on_terminal(scope, subject & 0xffff);
	scope->other_subject = class_on_terminal(scope, subject >> 16);
}

static __always_inline __u32 subjects_of(const struct scope *scope)
{
	return scope->subject | scope->other_subject << 16;
}

/* Returns what is added to the classes of a task. */
static __always_inline __u32 terminal_of(const struct image_domain *rules, const struct task_struct *task)
{
	__u32 terminal = rules->terminals;

	if (terminal && !BPF_CORE_READ(task, signal, tty))
		terminal = 0;
	return terminal;
}

static __always_inline bool find_rules(struct scope *scope, __u32 domain)
{
	__u32 key = 0, *host_is_ruled;

	if (domain == HOST_DOMAIN) {
		host_is_ruled = bpf_map_lookup_elem(&host_ruled, &key);
		if (!host_is_ruled || !*host_is_ruled)
			return false;
	}
	scope->label_generation = scope->label_subject = 0;
	scope->image = bpf_map_lookup_elem(&live, &key);
	if (!scope->image || domain > MAX_DOMAIN)
		return false;
	scope->domain = domain;
	scope->rules = (void *)word(scope->image, domain * IMAGE_DOMAIN_WORDS);
	return scope->rules && scope->rules->flags & DOMAIN_RULED;
}

/* Sets what is added to classes. The program is one of no class until it is known. */
static __always_inline void set_terminal(struct scope *scope, __u32 terminal)
{
	/* Not a constant, or the verifier would follow tasks with a known subject and others separately. */
	terminal = unknown(terminal);
	scope->terminal = terminal;
	scope->subject = SUBJECT_NONE + terminal;
	scope->other_subject = SUBJECT_NONE + terminal;
}

/* Sets the scope to a domain's rules. Returns false if the domain has none. */
static __always_inline bool enter_domain(struct scope *scope, __u32 domain)
{
	if (!find_rules(scope, domain))
		return false;
	set_terminal(scope, 0);
	return true;
}

/* Sets the scope to a domain's rules for a task. Returns false if the domain has none. */
static __always_inline bool enter_domain_of(struct scope *scope, __u32 domain, const struct task_struct *task)
{
	if (!find_rules(scope, domain))
		return false;
	set_terminal(scope, terminal_of(scope->rules, task));
	return true;
}

static __always_inline void note_label(struct scope *scope, struct label label)
{
	scope->label_generation = label.generation;
	scope->label_subject = label.subject;
}

/* Sets the scope to a task's rules. Returns false if the task is under none. */
static __always_inline bool enter_scope(struct scope *scope, struct task_struct *task)
{
	struct label label = label_of(task);

	if (!enter_domain_of(scope, label.domain, task))
		return false;
	note_label(scope, label);
	return true;
}

/* Sets the current task's subject if its label has it or no rule needs it. Returns false otherwise. */
static __always_inline bool find_known_subject(struct scope *scope)
{
	if (!(scope->rules->flags & DOMAIN_SUBJECTS))
		return true;
	if (scope->label_generation != scope->rules->generation)
		return false;
	set_subject(scope, scope->label_subject);
	return true;
}

/* Returns the inode number of a task's mount namespace, 0 if the task has left it while exiting. */
static __always_inline __u32 mount_namespace_of(struct task_struct *task)
{
	struct nsproxy *namespaces = ADDRESS(task_struct, task, nsproxy);

	return FIELD(mnt_namespace, ADDRESS(nsproxy, namespaces, mnt_ns), ns.inum);
}

/* Returns that of the host's mount namespace, 0 before the first generation. */
static __always_inline __u32 host_mount_namespace(void)
{
	__u32 key = 0;
	void *image = bpf_map_lookup_elem(&live, &key);
	struct image_domain *host = image ? (void *)word(image, 0) : 0;

	return host ? host->mount_namespace : 0;
}

/* Returns the number of a task's process in the pid namespace of its own. */
static __always_inline __u32 process_number(struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, group_leader, thread_pid);
	__u32 level = BPF_CORE_READ(pid, level);
	struct upid *numbers = (void *)pid + bpf_core_field_offset(struct pid, numbers);
	int number = 0;

	if (level > 32)
		return 0;
	bpf_core_read(&number, sizeof(number), &numbers[level].nr);
	return number;
}

#endif
