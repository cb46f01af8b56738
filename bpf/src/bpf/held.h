/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * What tasks held already when their rules came: descriptors and mappings, which no hook sees again. Iterators go through
 * all of them at the agent's wish and write the events about those that the rules would refuse now. Nothing is counted or
 * remembered: the kernel shows the same object again where the reader's buffer was full.
 */
#ifndef ARMOR_HELD_H
#define ARMOR_HELD_H

#include "check.h"

static __always_inline bool is_entering(struct task_struct *task)
{
	return label_of(task).entered & ENTERING;
}

/* In the place of a descriptor's number: a mapping. */
#define A_MAPPING ~0u

/* Of a task that enters its container the runtime's own descriptors go when its program starts: it is looked at after that. */
static __noinline int show_held(struct seq_file *seq, struct task_struct *task, struct file *file, __u32 descriptor, __u32 permissions)
{
	__u32 hook = descriptor == A_MAPPING ? HELD_MAPPING : HELD_FILE;
	struct dentry *dentry = ADDRESS(file, file, f_path.dentry);
	struct inode *inode = ADDRESS(file, file, f_inode);
	struct task_struct *subject = task;
	struct scratch *scratch;
	struct scope scope;
	struct name *name;
	__u32 slot, decision, length, subject_class;

	/* As in check_file(). */
	if (!permissions || !inode || ADDRESS(dentry, dentry, d_inode) != inode || !enter_scope(&scope, task) || is_entering(task))
		return 0;
	slot = claim_scratch();
	scratch = scratch_at(slot);
	if (!scratch)
		return 1; /* ask again */
	permissions = PLAIN(permissions);
	begin(scratch, task, hook);
	name = &scratch->access.name;
	set_name(name, dentry, ADDRESS(file, file, f_path.mnt), FIELD(inode, inode, i_mode), FIELD(inode, inode, __i_nlink));
	if (scope.rules->flags & DOMAIN_SUBJECTS) {
		/* A program was started by another, of which the parent is all that is left. */
		if (permissions == 1u << EXEC)
			subject = ADDRESS(task_struct, task, real_parent);
		subject_class = subject_of(&scope, scratch, subject);
		if (subject_class != SUBJECT_TORN)
			set_subject(&scope, subject_class);
	}
	if (!resolve(&scope, scratch, name) || silently_allowed(&scope, &name->classes, permissions))
		goto out;
	decision = decide(&scope, scratch, &name->classes, permissions, owns(task, inode));
	if (!blocks(decision))
		goto out;
	/* A runtime's copy of itself, as spare_hosts_root() lets it start. */
	if (hook == HELD_MAPPING && scope.domain == HOST_DOMAIN && has_no_path(&name->classes) && is_runtime(task))
		goto out;
	note_decision(&scope, &scratch->access, decision);
	length = write_event(scratch);
	scratch->event.descriptor = descriptor;
	if (length <= EVENT_STRINGS)
		bpf_seq_write(seq, &scratch->event, __builtin_offsetof(struct event, strings) + length);
out:
	release_scratch(slot);
	return 0;
}

#endif
