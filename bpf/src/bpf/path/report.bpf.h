/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Turns a decision into an event in the ring buffer. */
#ifndef ARMOR_REPORT_H
#define ARMOR_REPORT_H

#include "core/entry.bpf.h"
#include "path/decide.bpf.h"
#include "path/start.bpf.h"

/* Appends the path that ends in scratch to the event's strings. Returns its length. */
static __always_inline __u32 append_path(struct scratch *scratch, __u32 offset, __u32 start)
{
	__u32 length;

	if (start > PATH_CAPACITY)
		return 0;
	length = PATH_CAPACITY - start;
	/* Otherwise clang checks one copy of it and uses another, and 6.1 does not connect the two. */
	asm volatile("" : "+r"(offset));
	if (offset > EVENT_STRINGS - PATH_CAPACITY || length > PATH_CAPACITY)
		return 0;
	if (bpf_probe_read_kernel(&scratch->event.strings[offset], length, &scratch->path[start]))
		return 0;
	return length;
}

/* Appends the name of a kernel thread, which has no program, as ps(1) writes it: [kworker/0:1]. */
static __always_inline __u32 append_comm(struct scratch *scratch, __u32 offset, struct task_struct *task)
{
	char *name = &scratch->path[PATH_CAPACITY];
	long length;

	if (!(FIELD(task_struct, task, flags) & PF_KTHREAD))
		return 0;
	name[0] = '[';
	length = bpf_probe_read_kernel_str(name + 1, 16, &task->comm);
	if (length < 2 || length > 16)
		return 0;
	name[length & 31] = ']';
	asm volatile("" : "+r"(offset)); /* as in append_path() */
	if (offset > EVENT_STRINGS - PATH_CAPACITY ||
	    bpf_probe_read_kernel(&scratch->event.strings[offset], length + 1, name))
		return 0;
	return length + 1;
}

static __always_inline __u32 append_program(struct scratch *scratch, __u32 offset, struct task_struct *task)
{
	struct file *exe = BPF_CORE_READ(task, mm, exe_file);
	struct vfsmount *mnt = BPF_CORE_READ(exe, f_path.mnt);

	if (!mnt)
		return append_comm(scratch, offset, task);
	return append_path(scratch, offset,
			   write_path(scratch, (__u64)BPF_CORE_READ(exe, f_path.dentry), (__u64)mnt, 0));
}

/* Writes the text for an access that is not about a path but about another process or a kernel object. */
static __noinline __u32 append_object(struct scratch *scratch, struct access *access)
{
	long length;

	if (access->other)
		return append_program(scratch, 0, (void *)access->other);
	length = bpf_probe_read_kernel_str(scratch->event.strings, OBJECT_NAME, access->object);
	return length > 1 && length <= OBJECT_NAME ? length - 1 : 0;
}

/* Appends the id of a task's container. */
static __always_inline __u32 append_container(struct scratch *scratch, __u32 offset, struct task_struct *task)
{
	if (offset > EVENT_STRINGS - CONTAINER_ID_BYTES || domain_of_container(scratch, task) == HOST_DOMAIN ||
	    bpf_probe_read_kernel(&scratch->event.strings[offset], CONTAINER_ID_BYTES, &scratch->group.outermost))
		return 0;
	return CONTAINER_ID_BYTES;
}

static __always_inline __u32 append_dentry(struct scratch *scratch, __u32 offset, __u64 dentry, __u64 mnt, __u32 is_dir)
{
	__u32 length = append_path(scratch, offset, write_path(scratch, dentry, mnt, is_dir));

	/* Without a path in a mount tree, the path inside the filesystem says more than none. */
	return length ?: append_path(scratch, offset, write_path(scratch, dentry, 0, is_dir));
}

static __always_inline __u32 append_name(struct scratch *scratch, __u32 offset, struct name *name)
{
	return append_dentry(scratch, offset, name->dentry, name->mnt ?: name->shown_by, name->is_dir);
}

/* Appends the arguments of a program that starts, from its own memory. */
static __always_inline __u32 append_arguments(struct scratch *scratch, __u32 offset, const struct access *access)
{
	__u32 length = access->arguments_length;

	asm volatile("" : "+r"(offset), "+r"(length)); /* as in append_path() */
	if (offset > EVENT_STRINGS - PATH_CAPACITY || length > PATH_CAPACITY ||
	    bpf_probe_read_user(&scratch->event.strings[offset], length, (void *)access->arguments))
		return 0;
	return length;
}

/* Appends the path of the script that has led to the file which is started, if that leaves room for both programs. */
static __always_inline __u32 append_script(struct scratch *scratch, __u32 offset, const struct start *start)
{
	if (!start->file || start->file == (__u64)ADDRESS(linux_binprm, start->bprm, file))
		return 0;
	if (offset > EVENT_STRINGS - 3 * PATH_CAPACITY)
		return 0;
	if (scratch->access.hook == BPRM_COMMITTED_CREDS && start->has_ring)
		return 0;
	return append_dentry(scratch, offset, (__u64)ADDRESS(file, start->file, f_path.dentry),
			     (__u64)ADDRESS(file, start->file, f_path.mnt), false);
}

/* Appends what a script that is started says of its interpreter. */
static __always_inline __u32 append_line(struct scratch *scratch, __u32 offset, const struct start *start)
{
	struct linux_binprm *bprm = (void *)start->bprm;
	__u16 mark = 0;

	bpf_core_read(&mark, sizeof(mark), &bprm->buf);
	asm volatile("" : "+r"(offset)); /* as in append_path() */
	if (mark != (__u16)FOUR('#', '!', 0, 0) || offset > EVENT_STRINGS - PATH_CAPACITY ||
	    bpf_probe_read_kernel(&scratch->event.strings[offset], SCRIPT_LINE, &bprm->buf[sizeof(mark)]))
		return 0;
	return SCRIPT_LINE;
}

/* Writes what an event about a path has of its own. Returns the length of its strings. */
static __always_inline __u32 write_path_tail(struct scratch *scratch)
{
	struct access *access = &scratch->access;
	struct path_event *tail = &scratch->event.tail.path;
	__u32 length;

	tail->permission = access->permission;
	tail->about_new_path = access->about_new;
	tail->path_length = access->other || access->object[0] ? append_object(scratch, access) :
								 append_name(scratch, 0, &access->name);
	length = tail->path_length;
	tail->new_path_length = 0;
	if (access->new_name.dentry) {
		tail->new_path_length = append_name(scratch, length, &access->new_name);
		length += tail->new_path_length;
	}
	tail->arguments_length = 0;
	if (access->arguments_length) {
		tail->arguments_length = append_arguments(scratch, length, access);
		length += tail->arguments_length;
	}
	tail->script_length = 0;
	tail->line_length = 0;
	if (access->hook == BPRM_CHECK_SECURITY || access->hook == BPRM_COMMITTED_CREDS) {
		struct start start = current_start();

		tail->script_length = append_script(scratch, length, &start);
		length += tail->script_length;
		tail->line_length = append_line(scratch, length, &start);
		length += tail->line_length;
	}
	return length;
}

/* Writes the event about scratch->access. Returns the length of its strings. Global like write_path(). */
__noinline __u32 write_event(struct scratch *scratch)
{
	struct task_struct *task, *parent;
	struct access *access;
	struct event *event;
	__u32 length = 0;

	if (!scratch)
		return 0;
	access = &scratch->access;
	event = &scratch->event;
	task = (void *)access->task;
	parent = BPF_CORE_READ(task, real_parent);

	event->header.kind = access->kind;
	event->header.time = bpf_ktime_get_boot_ns();
	event->header.cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
	event->header.generation = access->generation;
	event->header.domain = access->domain;
	event->header.decision = access->decision;
	event->header.pid = BPF_CORE_READ(task, pid);
	event->header.tgid = BPF_CORE_READ(task, tgid);
	event->header.parent_tgid = BPF_CORE_READ(parent, tgid);
	event->header.ns_pid = process_number(task);
	event->header.ns_parent = process_number(parent);
	event->header.uid = BPF_CORE_READ(task, cred, uid.val);
	event->header.hook = access->hook;
	bpf_core_read(&event->header.comm, sizeof(event->header.comm), &task->comm);

	if (access->kind == EVENT_PATH)
		length = write_path_tail(scratch);
	else
		event->tail = access->tail;
	if (access->kind == EVENT_DNS)
		length = access->tail.dns.name_length & NAME_MAX;
	else if (access->kind == EVENT_SYSCALL)
		length = access->tail.syscall.path_length & (PATH_CAPACITY - 1);
	event->header.program_length = append_program(scratch, length, task);
	length += event->header.program_length;
	event->header.parent_program_length = append_program(scratch, length, parent);
	length += event->header.parent_program_length;
	event->header.container_length = 0;
	if (access->domain == UNIDENTIFIED_DOMAIN) {
		event->header.container_length = append_container(scratch, length, task);
		length += event->header.container_length;
	}
	event->header.length = __builtin_offsetof(struct event, strings) + length;
	return length;
}

/* Sends the event about scratch->access, which it writes only within the rate. Global like write_path(). */
__noinline int report(struct scratch *scratch)
{
	if (scratch &&
	    count_decision(scratch->access.domain, scratch->access.decision, scratch->access.alerts_per_second))
		put(&scratch->event, write_event(scratch));
	return 0;
}

static __always_inline void note_decision(const struct scope *scope, struct access *access, __u32 decision)
{
	access->decision = decision;
	access->generation = scope->rules->generation;
	access->domain = scope->domain;
	access->alerts_per_second = scope->rules->alerts_per_second;
}

#endif
