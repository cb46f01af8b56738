/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Counts decisions, and puts their events into the ring buffer as far as a rule's rate allows. */
#ifndef ARMOR_RING_H
#define ARMOR_RING_H

#include "core/scratch.bpf.h"

static __always_inline bool blocks(__u32 decision)
{
	return decision >> VERDICT_SHIFT >= VERDICT_BLOCK;
}

static __always_inline bool within_rate(__u32 domain, __u32 rule, __u32 per_second)
{
	struct rate_key key = { .domain = domain, .rule = rule };
	struct rate first = { .second = bpf_ktime_get_boot_ns() / 1000000000, .count = 1 };
	struct rate *rate;

	if (!per_second)
		return true;
	rate = bpf_map_lookup_elem(&rates, &key);
	if (!rate) {
		bpf_map_update_elem(&rates, &key, &first, BPF_ANY);
		return true;
	}
	if (rate->second != first.second) {
		rate->second = first.second;
		rate->count = 1;
		return true;
	}
	return __sync_fetch_and_add(&rate->count, 1) < per_second;
}

/* Puts an event with strings of this length into the ring buffer. No decision depends on its success. */
static __always_inline void put(struct event *event, __u32 length)
{
	if (length > EVENT_STRINGS)
		return;
	if (bpf_ringbuf_output(&events, event, __builtin_offsetof(struct event, strings) + length, 0))
		count(COUNT_DROPPED);
	else
		count(COUNT_REPORTED);
}

/* Counts a decision. Returns false if the rule's rate leaves no room for its event. */
static __always_inline bool count_decision(__u32 domain, __u32 decision, __u32 per_second)
{
	count(blocks(decision) ? COUNT_BLOCKED : COUNT_AUDITED);
	if (within_rate(domain, decision & RULE_MASK, per_second))
		return true;
	count(COUNT_SUPPRESSED);
	return false;
}

/*
 * Counts an event's decision, and puts the event into the ring buffer unless the rule's rate is exceeded.
 * Global like write_path().
 */
__noinline int send(struct event *event, __u32 length, __u32 per_second)
{
	if (event && count_decision(event->header.domain, event->header.decision, per_second))
		put(event, length);
	return 0;
}

#endif
