/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Decides with whom a socket may communicate (policy::destination). */
#ifndef ARMOR_DESTINATION_H
#define ARMOR_DESTINATION_H

#include "core/keyed.bpf.h"
#include "network/use.bpf.h"

/* Returns the entry for an address, which is marked with ENTRY_LIST; 0 if there is none. */
static __always_inline __u32 find_entry(const struct scope *scope, __u32 entry, const struct destination *to)
{
	__u64 high = to->high, low = to->low;
	struct image_page *page = 0;
	__u32 at, number = 0, of;

#pragma clang loop unroll(disable)
	for (int i = 0; i < 128 / TRIE_STRIDE; i++) {
		if (entry & ENTRY_LIST)
			return entry;
		of = entry / IMAGE_PAGE_WORDS;
		/* Most nodes of a trie lie in one page. */
		if (!page || of != number) {
			number = of;
			page = bpf_map_lookup_elem(scope->image, &of);
		}
		if (!page)
			return 0;
		/* The entries of a node lie one behind the other, and in one page. */
		at = entry % IMAGE_PAGE_WORDS * 2 + (high >> (64 - TRIE_STRIDE));
		entry = ((__u32 *)page->words)[at & (IMAGE_PAGE_WORDS * 2 - 1)];
		high = high << TRIE_STRIDE | low >> (64 - TRIE_STRIDE);
		low <<= TRIE_STRIDE;
	}
	return entry & ENTRY_LIST ? entry : 0;
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

/* Returns the decision of a table of destinations on somebody, anybody or everybody. */
static __noinline __u32 decide_destination(const struct scope *scope, const struct image_destinations *table,
					   const struct destination *to)
{
	__u32 cell = ANY_CELL, entry;

	if (to->reach != EVERYBODY) {
		entry = table->anybody;
		if (to->reach == SOMEBODY)
			entry = find_entry(scope, to->family == AF_INET ? table->ipv4 : table->ipv6, to);
		if (entry == ENTRY_SILENT)
			return VERDICT_ALLOW;
		if (entry)
			cell = find_cell(scope, entry & ~ENTRY_LIST, to->key);
	}
	return keyed_decision(scope, table->cells, cell);
}

/* Returns the decision on whom the use of a socket lets communicate. */
static __always_inline __u32 decide_destinations(const struct scope *scope, const struct image_kinds *tables,
						 const struct socket_use *use)
{
	__u32 decision = VERDICT_ALLOW;

	if (tables->egress.cells && use->egress.reach != NOBODY)
		decision = unknown(decide_destination(scope, &tables->egress, &use->egress));
	if (tables->ingress.cells && use->ingress.reach != NOBODY)
		decision = stricter(decision, decide_destination(scope, &tables->ingress, &use->ingress));
	return decision;
}

#endif
