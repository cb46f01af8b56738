/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Finds the class of a task's program, which grants rights by fromSource. */
#ifndef ARMOR_SUBJECT_H
#define ARMOR_SUBJECT_H

#include "names/find.bpf.h"

/* Not a class: renames kept the program's path from being determined, so the next access tries again. */
#define SUBJECT_TORN (~0u)

/*
 * Returns the classes of a program whose paths were searched for, as in struct label. Only canonical paths
 * count, which no task under rules can choose. A program without one has no class.
 */
static __always_inline __u32 subject_found(const struct name *name)
{
	if (name->outcome == FIND_TORN)
		return SUBJECT_TORN;
	if (name->outcome == FIND_NOTHING || name->first_canonical == NO_CLASS)
		return SUBJECT_NONE;
	return (name->first_canonical & 0xffff) | name->other_canonical << 16;
}

/* Sets the current task's subject after the search, and keeps it in the task's label. */
static __always_inline void store_subject(struct scope *scope, const struct name *program)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 subject = subject_found(program);
	struct label *label;

	if (subject == SUBJECT_TORN)
		return;
	if (label_of(task).entered & DISTRUSTED)
		subject = SUBJECT_NONE;
	set_subject(scope, subject);
	label = bpf_task_storage_get(&labels, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	/* The task may have come into another domain meanwhile. */
	if (label && label->domain == scope->domain) {
		label->subject = subject;
		label->generation = scope->rules->generation;
	}
}

#endif
