/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Answers the questions about names for judge_access(). */
#ifndef ARMOR_ANSWER_H
#define ARMOR_ANSWER_H

#include "path/undecided.bpf.h"

static __always_inline bool names_runtime(__u32 four)
{
	return four == FOUR('r', 'u', 'n', 'c') || four == FOUR('c', 'r', 'u', 'n');
}

/*
 * Returns whether root runs a program with the name of a container runtime, or a memfd with such a name. On
 * the host only root chooses such names for root.
 */
static __always_inline bool is_runtime(struct task_struct *task)
{
	const struct cred *cred = ADDRESS(task_struct, task, cred);
	struct file *exe = ADDRESS(mm_struct, ADDRESS(task_struct, task, mm), exe_file);
	struct dentry *dentry = ADDRESS(file, exe, f_path.dentry);
	__u32 name[3] = {};
	long length = bpf_probe_read_kernel_str(name, sizeof(name), ADDRESS(dentry, dentry, d_name.name));

	if (FIELD(cred, cred, uid.val) || FIELD(cred, cred, fsuid.val))
		return false;
	if (length == 5)
		return names_runtime(name[0]);
	return name[0] == FOUR('m', 'e', 'm', 'f') && (__u16)name[1] == (__u16)FOUR('d', ':', 0, 0) &&
		names_runtime(name[1] >> 16 | name[2] << 16);
}

static __always_inline bool has_no_path(const struct name *name)
{
	__u32 class = name->classes.of[0];

	return class == OBJECT_ANONYMOUS || class == OBJECT_UNRESOLVED ||
		(class == OBJECT_NONE && name->place == PLACE_DETACHED);
}

/*
 * Exempts root of the host from a refusal to start what has no path. Container runtimes start a copy of
 * themselves that no container can write to: a memfd, or a file of an overlay that is mounted nowhere. If
 * that were refused, no container would start, not even the agent's. Outside of every container such a start
 * is reported instead, or allowed if it is a runtime's.
 */
static __noinline __u32 spare_hosts_root(const struct scope *scope, struct task_struct *task, __u32 decision)
{
	const struct cred *cred = ADDRESS(task_struct, task, cred);

	if (scope->domain != HOST_DOMAIN || FIELD(cred, cred, uid.val) || FIELD(cred, cred, fsuid.val) ||
	    mount_namespace_of(task) != host_mount_namespace())
		return decision;
	if (is_runtime(task))
		return 0;
	return VERDICT_AUDIT << VERDICT_SHIFT | (decision & RULE_MASK);
}

/* Nanoseconds between an open and the truncation that it asks for: both are one system call. */
#define TRUNCATION_TIME 1000000000ull

/*
 * Returns whether a permitted access is the truncation that an open of the same task has asked for just now
 * and that was reported with it. Notes such an open.
 */
static __noinline bool is_part_of_open(struct scratch *scratch)
{
	__u64 task = (__u64)PLAIN(bpf_get_current_task_btf()), dentry = scratch->access.name.dentry,
	      now = bpf_ktime_get_boot_ns();
	__u32 key = task * HASH_FACTOR >> (64 - TRUNCATION_BITS), hook = scratch->access.hook;
	struct truncation *last = bpf_map_lookup_elem(&truncations, &key);
	bool is_part;

	if (!last)
		return false;
	is_part = (hook == FILE_TRUNCATE || hook == PATH_TRUNCATE) && last->task == task && last->dentry == dentry &&
		now - last->time < TRUNCATION_TIME;
	last->task = hook == FILE_OPEN && scratch->question.truncates ? task : 0;
	last->dentry = dentry;
	last->time = now;
	return is_part;
}

/* Decides on access.name. */
static __noinline int judge_name(struct scope *scope, struct scratch *scratch)
{
	struct question *question = &scratch->question;
	struct task_struct *task = bpf_get_current_task_btf();
	struct name *name = &scratch->access.name;
	__u32 decision;

	scratch->access.generation = scope->rules->generation;
	scratch->access.domain = scope->domain;
	question->outcome = OUTCOME_UNNAMED;
	if (!question->known && name->outcome != FIND_NAMES)
		return 0;
	question->outcome = OUTCOME_NAMED;
	question->subjects = subjects_of(scope);
	if (silently_allowed(scope, &name->classes, question->permissions)) {
		question->allowed = 1;
		return 0;
	}
	decision = decide(scope, scratch, &name->classes, question->permissions, owns(task, (void *)question->inode));
	if (scratch->access.hook == BPRM_CHECK_SECURITY && blocks(decision) && has_no_path(name))
		decision = spare_hosts_root(scope, task, decision);
	/* The name of a file that this open made was reported when it was made, or just now. */
	if (question->created && !blocks(decision))
		return 0;
	if (decision >> VERDICT_SHIFT && !blocks(decision) && is_part_of_open(scratch))
		return 0;
	return conclude(scope, scratch, decision);
}

struct two_names {
	struct scope *scope;
	struct scratch *scratch;
};

/* Decides on one of the two names. */
static long two_names_step(__u32 which, struct two_names *names)
{
	struct scratch *scratch = names->scratch;
	struct name *name = &scratch->access.names[which & 1];
	struct inode *inode = ADDRESS(dentry, name->dentry, d_inode);
	__u32 permissions = which & 1 ? scratch->question.permissions : scratch->question.old_permissions;

	if (name->outcome == FIND_NAMES && !silently_allowed(names->scope, &name->classes, permissions))
		scratch->decided[which & 1] = decide(names->scope, scratch, &name->classes, permissions,
						     owns(bpf_get_current_task_btf(), inode));
	return 0;
}

/*
 * Decides whether an object gets another name: on the new name, on the old one if it is removed, and on
 * whether the new one permits anything that the old one refuses. For an exchange that is decided both ways.
 */
static __noinline int judge_two_names(struct scope *scope, struct scratch *scratch)
{
	struct two_names names = { .scope = scope, .scratch = scratch };
	struct access *access = &scratch->access;
	__u32 decision;
	int verdict;

	scratch->decided[0] = scratch->decided[1] = 0;
	bpf_loop(2, two_names_step, &names, 0);
	access->permission = WRITE;
	verdict = conclude(scope, scratch, scratch->decided[0]);
	if (verdict)
		return verdict;
	access->about_new = 1;
	verdict = conclude(scope, scratch, scratch->decided[1]);
	if (verdict)
		return verdict;
	access->about_new = 0;
	/* It remains the file that rules name by another of its names. */
	if (access->name.several)
		add_linked_class(scope, &access->name, &access->new_name);
	decision = loosened(scope, scratch, &access->name, &access->new_name,
			    owns(bpf_get_current_task_btf(), ADDRESS(dentry, access->name.dentry, d_inode)));
	if (!decision && scratch->question.exchanges) {
		access->about_new = 1;
		decision = loosened(scope, scratch, &access->new_name, &access->name, 0);
	}
	access->permission = WRITE;
	return conclude(scope, scratch, decision);
}

#endif
