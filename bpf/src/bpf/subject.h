/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* The class of a task's program: what grants rights by fromSource. */
#ifndef ARMOR_SUBJECT_H
#define ARMOR_SUBJECT_H

#include "resolve.h"

/* Not a class: renames kept the program's path from being told, so ask again next time. */
#define SUBJECT_TORN (~0u)

/* The classes of a program whose names were found. */
static __always_inline __u32 subject_of_names(const struct name *name)
{
	if (name->first_canonical == NO_CLASS)
		return SUBJECT_NONE;
	return (name->first_canonical & 0xffff) | name->other_canonical << 16;
}

/*
 * The classes of a task's program, as struct label has them. Only canonical names count, which nobody under rules can choose;
 * a program without one is of no class.
 */
static __noinline __u32 subject_of(struct scope *scope, struct scratch *scratch, struct task_struct *task)
{
	struct file *exe = ADDRESS(mm_struct, ADDRESS(task_struct, task, mm), exe_file);
	struct name *name = &scratch->program;

	name->dentry = (__u64)ADDRESS(file, exe, f_path.dentry);
	name->mnt = (__u64)ADDRESS(file, exe, f_path.mnt);
	name->directory = 0;
	name->layer = name->is_layer = 0;
	name->folder.known = 0;
	if (!name->mnt)
		return SUBJECT_NONE;
	name->place = place_of(mount_of((void *)name->mnt));
	if (!is_named(name->place))
		return SUBJECT_NONE;
	if (!find_names(scope, scratch, name, true))
		return SUBJECT_TORN;
	return subject_of_names(name);
}

/* Sets the current task's subject where its label has it, or no rule asks for it; false where it is to be found. */
static __always_inline bool find_known_subject(struct scope *scope)
{
	if (!(scope->rules->flags & DOMAIN_SUBJECTS))
		return true;
	if (!scope->label || scope->label->generation != scope->rules->generation)
		return false;
	set_subject(scope, scope->label->subject);
	return true;
}

/* Sets the current task's subject, and keeps it in the task's label. */
static __always_inline void find_subject(struct scope *scope, struct scratch *scratch)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 subject;

	if (find_known_subject(scope))
		return;
	if (!task->mm)
		return;
	subject = subject_of(scope, scratch, task);
	if (subject == SUBJECT_TORN)
		return;
	set_subject(scope, subject);
	if (!scope->label)
		scope->label = bpf_task_storage_get(&labels, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (scope->label) {
		scope->label->subject = subject;
		scope->label->generation = scope->rules->generation;
	}
}

#endif
