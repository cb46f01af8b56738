/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * A task's label, found whoever was preempted where.
 *
 * Before 6.2 bpf_task_storage_get() takes a lock of the processor and, where a task was preempted with it, answers that there
 * is nothing. Taken at its word a task would then be under no domain's rules. So where the kernel is such a one, what it says
 * not to be there is looked for in the task's storage itself, which needs no lock to be read.
 *
 * Invariant: every look at a label goes through here, or refuses without one.
 */
#ifndef ARMOR_LABEL_H
#define ARMOR_LABEL_H

#include "kernel.h"
#include "maps.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct bpf_local_storage_map {
	struct bpf_map map;
};

struct bpf_local_storage_data {
	struct bpf_local_storage_map *smap;
	__u8 data[1];
};

struct bpf_local_storage_elem {
	struct hlist_node snode;
	struct bpf_local_storage_data sdata;
};

struct bpf_local_storage {
	struct hlist_head list;
};

#pragma clang attribute pop

/* The lock, gone since 6.18; and what shows that it is taken for tracing programs alone, as from 6.2 on. */
extern const void bpf_task_storage_busy __ksym __weak;
extern const void bpf_task_storage_get_recur_proto __ksym __weak;

/* Maps that one task has something in, more than anybody uses. */
#define TASK_STORAGES 256

struct label_search {
	__u64 node; /* address of the next hlist_node */
	__u32 map;  /* id of the map of labels */
	__u64 half[sizeof(struct label) / sizeof(__u64)];
};

static long search_storage(__u32 step, struct label_search *search)
{
	struct bpf_local_storage_elem *element;
	struct bpf_local_storage_data *data;

	if (!search->node)
		return 1;
	element = (void *)search->node - bpf_core_field_offset(struct bpf_local_storage_elem, snode);
	data = (void *)element + bpf_core_field_offset(struct bpf_local_storage_elem, sdata);
	if (FIELD(bpf_local_storage_map, ADDRESS(bpf_local_storage_data, data, smap), map.id) == search->map) {
		bpf_probe_read_kernel(search->half, sizeof(search->half),
				      (void *)data + bpf_core_field_offset(struct bpf_local_storage_data, data));
		return 1;
	}
	search->node = (__u64)ADDRESS(hlist_node, search->node, next);
	return 0;
}

/*
 * Half of the label that the kernel says a task not to have: domain and generation, or what follows; 0 where it has none.
 * Global, so that the verifier goes through it once per program.
 */
__noinline __u64 label_beside_lock(__u64 task, __u32 second_half)
{
	struct label_search search = { .map = ((struct bpf_map *)&labels)->id };
	struct bpf_local_storage *storage = ADDRESS(task_struct, task, bpf_storage);

	if (!storage)
		return 0;
	search.node = (__u64)ADDRESS(bpf_local_storage, storage, list.first);
	bpf_loop(TASK_STORAGES, search_storage, &search, 0);
	return search.half[second_half & 1];
}

static __always_inline bool lock_may_be_taken(void)
{
	/*
	 * Or the verifier takes label_beside_lock() out of the programs of a kernel without that lock. Where it takes a function out,
	 * kernels mistake those behind it for others when judge() is to be replaced (func_info_aux, kernel/bpf/verifier.c).
	 */
	return never || (&bpf_task_storage_busy && !&bpf_task_storage_get_recur_proto);
}

/* A copy of a task's label; zeros, as of one of the host's, where it has none. */
static __always_inline struct label label_of(struct task_struct *task)
{
	struct label *stored = bpf_task_storage_get(&labels, task, 0, 0);
	struct label label = {};
	__u64 half;

	if (stored)
		return *stored;
	if (lock_may_be_taken()) {
		half = label_beside_lock((__u64)PLAIN(task), 0);
		label.domain = half;
		label.generation = half >> 32;
		half = label_beside_lock((__u64)PLAIN(task), 1);
		label.subject = half;
		label.entered = half >> 32;
	}
	return label;
}

/* The domain of a task that the kernel says to have no label. */
static __always_inline __u32 domain_beside_lock(struct task_struct *task)
{
	return lock_may_be_taken() ? (__u32)label_beside_lock((__u64)PLAIN(task), 0) : HOST_DOMAIN;
}

#endif
