/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Finds a task's label, even if a preempted task holds the lock on it.
 *
 * Before 6.2 bpf_task_storage_get() takes a lock of the processor. If a task was preempted while it held the
 * lock, the function returns nothing, as if there were no label, and the task would be under no domain's
 * rules. On such kernels a label that is not found is searched for in the task's storage itself, which can be
 * read without a lock.
 *
 * Invariant: every look-up of a label goes through here, or refuses if it finds none.
 */
#ifndef ARMOR_LABEL_H
#define ARMOR_LABEL_H

#include "core/scratch.bpf.h"

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

/* The lock, gone since 6.18; and a symbol that exists if only tracing programs take it, as from 6.2 on. */
extern const void bpf_task_storage_busy __ksym __weak;
extern const void bpf_task_storage_get_recur_proto __ksym __weak;

/* Number of maps in which a task may have an entry: more than anybody uses. */
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
 * Returns half of the label of a task that has none according to the kernel: domain and generation, or the
 * rest; 0 if it has none. Global, so that the verifier follows it once per program.
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
	 * `never` keeps label_beside_lock() in the programs on kernels without that lock. If the verifier
	 * removes a function, kernels mistake those behind it for others when judge() is replaced
	 * (func_info_aux, kernel/bpf/verifier.c).
	 */
	return never || (&bpf_task_storage_busy && !&bpf_task_storage_get_recur_proto);
}

/* Returns a copy of a task's label. If it has none, returns zeros, as for a task of the host. */
static __always_inline struct label label_of(struct task_struct *task)
{
	struct label *stored = 0;
	__u64 first = 0, second = 0;

	/* Most tasks have no storage at all, and are not to pay for a look into it. */
	if (task->bpf_storage)
		stored = bpf_task_storage_get(&labels, task, 0, 0);
	if (stored)
		return *stored;
	if (lock_may_be_taken()) {
		first = label_beside_lock((__u64)PLAIN(task), 0);
		second = label_beside_lock((__u64)PLAIN(task), 1);
	}
	/* Otherwise the verifier follows tasks without a label separately, to the end. */
	first = first + never;
	second = second + never;
	return (struct label){
		.domain = first,
		.generation = first >> 32,
		.subject = second,
		.entered = second >> 32,
	};
}

#endif
