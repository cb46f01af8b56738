/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * What tasks held already when their rules came: descriptors and mappings, which no hook sees again. Iterators go through
 * all of them at the agent's wish and write the events about those that the rules would refuse now. Nothing is counted or
 * remembered: the kernel shows the same object again where the reader's buffer was full.
 */
#ifndef ARMOR_PREEXISTING_H
#define ARMOR_PREEXISTING_H

#include "answer.h"
#include "check.h"

static __always_inline bool is_entering(struct task_struct *task)
{
	return label_of(task).entered & ENTERING;
}

/* In the place of a descriptor's number: a mapping. */
#define A_MAPPING ~0u

/*
 * Writes the event about what would be refused; returns its length, 0 where it would not be. Iterators decide this by themselves:
 * the kernel puts nothing in the place of their functions (check_attach_btf_id, kernel/bpf/verifier.c).
 */
static __noinline __u32 judge_preexisting(struct scope *scope, struct scratch *scratch, struct inode *inode, struct task_struct *obtained_by)
{
	struct name *name = &scratch->access.name;
	struct task_struct *task = (void *)scratch->access.task;
	__u32 permissions = scratch->question.permissions, decision, subject, length;

	scratch->find_count = 0;
	want_object(scratch, NAME);
	if (scope->rules->flags & DOMAIN_SUBJECTS)
		want_program(scratch, PROGRAM, (__u64)obtained_by);
	find_wanted(scope, scratch);
	if (scope->rules->flags & DOMAIN_SUBJECTS) {
		subject = subject_found(&scratch->access.program);
		if (subject != SUBJECT_TORN)
			set_subject(scope, subject);
	}
	if (name->outcome != FIND_NAMES || silently_allowed(scope, &name->classes, permissions))
		return 0;
	decision = decide(scope, scratch, &name->classes, permissions, owns(task, inode));
	if (!blocks(decision))
		return 0;
	/* A runtime's copy of itself, as spare_hosts_root() lets it start. */
	if (scratch->access.hook == PREEXISTING_MAPPING && scope->domain == HOST_DOMAIN && has_no_path(name) && is_runtime(task))
		return 0;
	note_decision(scope, &scratch->access, decision);
	length = write_event(scratch);
	return length > EVENT_STRINGS ? 0 : __builtin_offsetof(struct event, strings) + length;
}

/* Of a task that enters its container the runtime's own descriptors go when its program starts: it is looked at after that. */
static __noinline int show_preexisting(struct seq_file *seq, struct task_struct *task, struct file *file, __u32 descriptor, __u32 permissions)
{
	struct dentry *dentry = ADDRESS(file, file, f_path.dentry);
	struct inode *inode = ADDRESS(file, file, f_inode);
	struct task_struct *obtained_by = PLAIN(task);
	struct scratch *scratch;
	struct scope scope;
	__u32 length;

	/* As in check_file(). */
	if (!permissions || !inode || ADDRESS(dentry, dentry, d_inode) != inode || !enter_scope(&scope, task) || is_entering(task))
		return 0;
	scratch = claim_scratch();
	if (!scratch)
		return 1; /* ask again */
	begin(scratch, task, descriptor == A_MAPPING ? PREEXISTING_MAPPING : PREEXISTING_FILE);
	set_name(&scratch->access.name, dentry, ADDRESS(file, file, f_path.mnt), FIELD(inode, inode, i_mode),
		 FIELD(inode, inode, __i_nlink));
	scratch->question.permissions = permissions;
	/* A program was started by another, of which the parent is all that is left. */
	if (permissions == 1u << EXEC)
		obtained_by = ADDRESS(task_struct, task, real_parent);
	length = judge_preexisting(&scope, scratch, inode, obtained_by);
	scratch->event.descriptor = descriptor;
	if (length > sizeof(struct event))
		length = 0;
	asm volatile("" : "+r"(length)); /* or clang compares another copy of it, as in append_path() */
	if (length)
		bpf_seq_write(seq, &scratch->event, length);
	release_scratch(scratch);
	return 0;
}

#endif
