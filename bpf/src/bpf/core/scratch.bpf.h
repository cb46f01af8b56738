/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Declares the scratch memory that a decision owns while it runs, and what it holds. */
#ifndef ARMOR_SCRATCH_H
#define ARMOR_SCRATCH_H

#include "core/maps.h"
#include "core/read.bpf.h"
#include "dns/types.h"
#include "names/types.h"
#include "network/types.h"
#include "path/question.h"
#include "syscall/types.h"

/*
 * An LSM program may be preempted by another task that enters the same program on the same processor, so one
 * buffer per processor is not enough. Each decision claims one of SCRATCH_SLOTS. If none is free, the access
 * is refused.
 */
#define SCRATCH_SLOTS 4

/* Bytes of a control group's name that are read: more than any runtime writes before a container's id. */
#define GROUP_NAME 128

/* A control group's name, while the id of a container is looked for in it. */
struct group_search {
	char name[GROUP_NAME];
	struct container_id container;
	__u32 digits, found;
	struct container_id outermost;
};

struct scratch {
	/* A path ends at PATH_CAPACITY; the rest lets the verifier bound every copy. */
	char path[2 * PATH_CAPACITY];
	struct scan_position scan;
	struct name_walk name_walk;
	struct path_fold fold;
	struct outgoing outgoing;
	struct incoming incoming;
	struct find finds[FINDS];
	__u32 find_count;
	__u32 found; /* find_step(): there is something to resolve */
	__u32 decided[2];
	__u64 directory; /* check_file(): address of the directory's inode */
	__u32 slot;	 /* index of this scratch */
	struct question question;
	__u32 fence; /* written by load_fence() */
	struct resolve_state resolve;
	struct tree_walk tree;
	struct group_search group;
	struct socket_access socket_access; /* of a preexisting socket */
	struct socket_use socket_use;
	struct argument_reading reading;
	struct access access;
	struct event event;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCH_SLOTS);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} claims SEC(".maps");

/* Always 0, which the verifier cannot know. */
volatile __u32 never;

/* Hides a constant from the verifier, which would otherwise go through the code behind it for each value. */
static __always_inline __u32 unknown(__u32 number)
{
	return number + never;
}

static __always_inline void count(enum counter which)
{
	__u32 key = which;
	__u64 *value = bpf_map_lookup_elem(&counters, &key);

	if (value)
		__sync_fetch_and_add(value, 1);
}

/* Returns the scratch at an index. Only the code that claimed it may use it. */
static __always_inline struct scratch *scratch_at(__u32 slot)
{
	return bpf_map_lookup_elem(&scratches, &slot);
}

/* Claims a scratch. Returns 0 if all are taken. */
static __always_inline struct scratch *claim_scratch(void)
{
	__u32 key = 0, *claimed = bpf_map_lookup_elem(&claims, &key), slot;
	struct scratch *scratch;

	if (!claimed)
		return 0;
#pragma unroll
	for (slot = 0; slot < SCRATCH_SLOTS; slot++) {
		__u32 bit = 1u << slot;

		if (!(__sync_fetch_and_or(claimed, bit) & bit))
			break;
	}
	/* Otherwise the verifier follows each index separately, to the end. */
	slot = unknown(slot);
	scratch = scratch_at(slot);
	if (scratch)
		scratch->slot = slot;
	return scratch;
}

static __always_inline void release_scratch(const struct scratch *scratch)
{
	__u32 key = 0, *claimed = bpf_map_lookup_elem(&claims, &key);

	if (claimed)
		__sync_fetch_and_and(claimed, ~(1u << (scratch->slot & 31)));
}

/*
 * Refuses and counts an access of which no alert can be made: tasks that preempt each other in one place left
 * no scratch, or its object has no name that could be found.
 */
static __always_inline int refuse_unreported(void)
{
	count(COUNT_UNRESOLVED);
	count(COUNT_BLOCKED);
	count(COUNT_DROPPED);
	return -EACCES;
}

#endif
