/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* The iterators, which find what no hook sees. */
#ifndef ARMOR_ITERATORS_H
#define ARMOR_ITERATORS_H

#include "core/entry.bpf.h"
#include "path/file_hooks.bpf.h"
#include "path/preexisting.bpf.h"
#include "path/undecided.bpf.h"

SEC("iter/task")
int label_tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;

	return task && is_shown() ? show_labelled(ctx->meta->seq, task, false) : 0;
}

/* The extent to which the kernel lets tasks be preempted (kernel/sched/core.c), if that is set at boot. */
extern const void preempt_dynamic_mode __ksym __weak;

/* preempt_dynamic_mode plus one, for the agent; 0 if the kernel has none. */
__u32 preempt_mode;

/* Records where mount namespaces are, before a generation that names them becomes live. */
SEC("iter/task")
int note_namespaces(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	__s32 mode = 0;

	if (task)
		note_namespace(task);
	else if (&preempt_dynamic_mode && !bpf_probe_read_kernel(&mode, sizeof(mode), &preempt_dynamic_mode))
		preempt_mode = mode + 1;
	return 0;
}

/* Settles the refusals of names that did not exist, for tasks that have asked nothing since. */
SEC("iter/task")
int settle_undecided(struct bpf_iter__task *ctx)
{
	if (!ctx->task && is_shown())
		settle_all();
	return 0;
}

SEC("iter/task")
int release_unidentified(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;

	return task && is_shown() ? show_labelled(ctx->meta->seq, task, true) : 0;
}

SEC("iter/task_file")
int preexisting_files(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;

	if (!task || !file || !is_shown())
		return 0;
	return show_preexisting(ctx->meta->seq, task, file, ctx->fd, rights_of(file));
}

/* Notes who takes what comes to the sockets that tasks hold, as those that they had before their rules. */
SEC("iter/task_file")
int note_receivers(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct socket *socket;

	if (!task || !file || !is_shown())
		return 0;
	socket = bpf_sock_from_file(file);
	return socket ? note_held_socket(socket->sk, task) : 0;
}

SEC("iter/task_vma")
int preexisting_mappings(struct bpf_iter__task_vma *ctx)
{
	struct task_struct *task = ctx->task;
	struct vm_area_struct *vma = ctx->vma;
	unsigned long flags;
	struct file *file, *exe;
	__u32 rights = 0;

	if (!task || !vma || !is_shown())
		return 0;
	flags = vma->vm_flags;
	file = ADDRESS(vm_area_struct, vma, vm_file);
	if (!file)
		return 0;
	if (flags & VM_EXEC) {
		/* The running program itself was started, not mapped. */
		exe = ADDRESS(mm_struct, ADDRESS(task_struct, task, mm), exe_file);
		rights = ADDRESS(file, exe, f_inode) == ADDRESS(file, file, f_inode) ? 1u << EXEC : 1u << MAP;
	}
	if (flags & VM_SHARED && flags & VM_WRITE)
		rights |= 1u << WRITE;
	return show_preexisting(ctx->meta->seq, task, file, A_MAPPING, rights);
}

#endif
