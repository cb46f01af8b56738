/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Decides with whom a socket may communicate (policy::destination). */
#ifndef ARMOR_DESTINATION_H
#define ARMOR_DESTINATION_H

#include "core/keyed.bpf.h"
#include "network/use.bpf.h"

/* Returns the word of the list for an address, 0 if there is none. */
static __always_inline __u32 find_list(const struct scope *scope, __u32 entry, const struct destination *to)
{
	__u64 high = to->high, low = to->low, *pair;
	__u32 index;

#pragma clang loop unroll(disable)
	for (int i = 0; i < 128 / TRIE_STRIDE; i++) {
		if (entry & ENTRY_LIST)
			return entry & ~ENTRY_LIST;
		index = high >> (64 - TRIE_STRIDE);
		pair = word(scope->image, entry + index / 2);
		if (!pair)
			return 0;
		entry = *pair >> (index % 2 * 32);
		high = high << TRIE_STRIDE | low >> (64 - TRIE_STRIDE);
		low <<= TRIE_STRIDE;
	}
	return entry & ENTRY_LIST ? entry & ~ENTRY_LIST : 0;
}

struct range_search {
	void *image;
	__u32 list, key;
	__u32 first, last; /* the ranges that are left */
};

static long range_step(__u32 step, struct range_search *search)
{
	__u32 middle = (search->first + search->last + 1) / 2;
	__u64 *range;

	if (search->first >= search->last)
		return 1;
	range = word(search->image, search->list + middle);
	if (range && (__u32)*range <= search->key)
		search->first = middle;
	else
		search->last = middle - 1;
	return 0;
}

/* Returns the cell of a key: that of the last range in a list that does not begin behind it. */
static __always_inline __u32 find_cell(const struct scope *scope, __u32 list, __u32 key)
{
	struct range_search search = { .image = scope->image, .list = list, .key = key, .first = 1 };
	__u64 *count = word(scope->image, list), *range;

	search.last = count ? *count : 0;
	if (search.last > 1)
		bpf_loop(RANGE_STEPS, range_step, &search, 0);
	range = word(scope->image, list + search.first);
	return range ? *range >> 32 : ANY_CELL;
}

/* Returns the decision of a struct image_destinations at this word of the image. */
static __noinline __u32 decide_destination(const struct scope *scope, __u32 at, const struct destination *to)
{
	const struct image_destinations *table;
	__u32 cell = ANY_CELL, list;

	if (to->reach == NOBODY)
		return VERDICT_ALLOW;
	table = word_pair(scope->image, at);
	if (!table)
		return VERDICT_BLOCK << VERDICT_SHIFT | RULE_UNRESOLVED;
	if (to->reach == SOMEBODY) {
		list = find_list(scope, to->family == AF_INET ? table->ipv4 : table->ipv6, to);
		if (list)
			cell = find_cell(scope, list, to->key);
	}
	return keyed_decision(scope, table->cells, cell);
}

/* Returns the decision on whom the use of a socket lets communicate. */
static __always_inline __u32 decide_destinations(const struct scope *scope, const struct image_kinds *tables,
						 const struct socket_use *use)
{
	__u32 decision = VERDICT_ALLOW;

	if (tables->egress)
		decision = unknown(decide_destination(scope, tables->egress, &use->egress));
	if (tables->ingress)
		decision = stricter(decision, decide_destination(scope, tables->ingress, &use->ingress));
	return decision;
}

#endif
