/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Keeps in mind what each task is starting, for alerts alone. When the kernel asks about a script's interpreter, it has let go
 * of the script and kept no more than the name that the caller gave.
 *
 * Invariant: what current_start() names is there while the kernel asks about the files of a start. A script's file stays until the
 * task goes back to its program. If the task has an io_uring, it is gone before arguments are decided on
 * (io_uring_task_cancel(), include/linux/io_uring.h).
 */
#ifndef ARMOR_START_H
#define ARMOR_START_H

#include "core/maps.h"
#include "core/read.bpf.h"

/* Starts are told apart by so many bits of a hash of the task. Of two in one place, the later one is known. */
#define START_BITS 10

struct start {
	__u64 bprm;	/* address of its struct linux_binprm */
	__u64 file;	/* address of the file that it names */
	__u64 has_ring; /* the task has an io_uring */
	__u64 seal;	/* sum of these and of the task's address: no sum of what two tasks have written here */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << START_BITS);
	__type(key, __u32);
	__type(value, struct start);
} starts SEC(".maps");

static __always_inline volatile struct start *start_of(__u64 task)
{
	__u32 key = task * HASH_FACTOR >> (64 - START_BITS);

	return bpf_map_lookup_elem(&starts, &key);
}

static __always_inline __u64 seal_of(__u64 task, struct start start)
{
	return task + start.bprm + start.file + start.has_ring;
}

static __always_inline bool has_ring(struct task_struct *task)
{
	return bpf_core_field_exists(task->io_uring) && PLAIN(task->io_uring);
}

/* Notes the start that the current task begins. */
static __always_inline void note_start(struct task_struct *task, struct linux_binprm *bprm)
{
	struct start start = {
		.bprm = (__u64)PLAIN(bprm),
		.file = (__u64)PLAIN(bprm->file),
		.has_ring = has_ring(task),
	};
	volatile struct start *place = start_of((__u64)PLAIN(task));

	if (!place)
		return;
	place->bprm = start.bprm;
	place->file = start.file;
	place->has_ring = start.has_ring;
	place->seal = seal_of((__u64)PLAIN(task), start);
}

/* Returns what the current task is starting; zeros if that is not known. */
static __always_inline struct start current_start(void)
{
	__u64 task = (__u64)PLAIN(bpf_get_current_task_btf());
	volatile struct start *place = start_of(task);
	struct start start = {};

	if (!place)
		return start;
	start.bprm = place->bprm;
	start.file = place->file;
	start.has_ring = place->has_ring;
	return place->seal == seal_of(task, start) ? start : (struct start){};
}

#endif
