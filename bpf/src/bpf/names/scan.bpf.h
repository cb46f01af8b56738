/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Finds the state of an automaton that a path leads to. */
#ifndef ARMOR_SCAN_H
#define ARMOR_SCAN_H

#include "core/image.bpf.h"
#include "names/walk.bpf.h"

struct scan {
	void *image;
	struct image_page *page; /* last page used, scratch->scan.page; most words are in the same one */
	struct scratch *scratch;
	__u32 slots, jumps; /* as in struct image_automaton */
	__u32 broken;
};

/*
 * Does one step of policy::automaton::Automaton::walk. Returns true at the end. The position is kept in a map
 * and not in registers: the verifier would follow every register value through every step, but knows nothing
 * of values from a map and is done after one step.
 */
static __always_inline bool advance(struct scan *scan)
{
	struct scratch *scratch = scan->scratch;
	struct image_page *page = scan->page;
	__u32 position = scratch->scan.position, at = scratch->scan.at, index;
	__u64 slot;

	if (position >= scratch->scan.end)
		return true;
	asm volatile("" : "+r"(position)); /* otherwise clang drops the mask that the verifier requires */
	position &= PATH_CAPACITY - 1;
#define WORD_AT(index)                                                                \
	({                                                                            \
		__u32 number_ = (index) / IMAGE_PAGE_WORDS;                           \
                                                                                      \
		if (number_ != scratch->scan.page) {                                  \
			scratch->scan.page = number_;                                 \
			page = bpf_map_lookup_elem(scan->image, &scratch->scan.page); \
			if (!page)                                                    \
				goto broken;                                          \
			scan->page = page;                                            \
		}                                                                     \
		&page->words[(index) % IMAGE_PAGE_WORDS];                             \
	})
	if (at & SLOT_JUMP) {
		__u64 *jump;

		index = scan->jumps + 2 * (at & ~SLOT_JUMP);
		jump = WORD_AT(index & ~1u);
		at = jump[1];
		if (position + JUMP_BYTES <= scratch->scan.end && *(__u64 *)&scratch->path[position] == jump[0]) {
			scratch->scan.at = jump[1] >> 32;
			scratch->scan.position = position + JUMP_BYTES;
			return false;
		}
	}
	index = scan->slots + at + (__u8)scratch->path[position];
	slot = *WORD_AT(index);
	if ((__u32)slot == at) {
		at = slot >> 32;
	} else {
		index = scan->slots + at;
		at = (__u32)*WORD_AT(index) & ~SLOT_RECORD;
	}
#undef WORD_AT
	scratch->scan.at = at;
	scratch->scan.position = position + 1;
	/* Dead: no rule can match any more. */
	return !at;
broken:
	scan->broken = 1;
	return true;
}

/* Makes several transitions per call, as walk_step() does. */
static long scan_step(__u32 step, struct scan *scan)
{
	return advance(scan) || advance(scan) || advance(scan) || advance(scan);
}

/*
 * Returns the state that the path in scratch reaches at scan.end. The scan starts at scan.position in
 * scan.at, which is a state or a jump.
 */
static __noinline __u32 scan_path(void *image, struct scratch *scratch, const struct image_automaton *automaton)
{
	struct scan scan = {
		.image = image,
		.scratch = scratch,
		.slots = automaton->slots,
		.jumps = automaton->jumps,
	};
	__u64 *jump;
	__u32 at = scratch->scan.at, start = scratch->scan.position, end = scratch->scan.end;

	if (!at || at == NO_STATE)
		return at;
	if (start > end || end > PATH_CAPACITY)
		return NO_STATE;
	scratch->scan.page = scan.slots / IMAGE_PAGE_WORDS;
	scan.page = bpf_map_lookup_elem(image, &scratch->scan.page);
	if (!scan.page)
		return NO_STATE;
	bpf_loop(end - start, scan_step, &scan, 0);
	if (scan.broken)
		return NO_STATE;
	if (!(scratch->scan.at & SLOT_JUMP))
		return scratch->scan.at;
	jump = word(image, scan.jumps + 2 * (scratch->scan.at & ~SLOT_JUMP) + 1);
	return jump ? *jump : NO_STATE;
}

#endif
