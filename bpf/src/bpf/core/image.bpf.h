/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Reads the image of the live generation. */
#ifndef ARMOR_IMAGE_H
#define ARMOR_IMAGE_H

#include "core/maps.h"

/* Returns a word of the image, 0 behind its end. */
static __always_inline __u64 *word(void *image, __u32 index)
{
	__u32 number = index / IMAGE_PAGE_WORDS;
	struct image_page *page = bpf_map_lookup_elem(image, &number);

	return page ? &page->words[index % IMAGE_PAGE_WORDS] : 0;
}

/* Returns two words of the image; the index of the first is even. */
static __always_inline void *word_pair(void *image, __u32 index)
{
	index &= ~1u;
	asm volatile("" : "+r"(index)); /* or clang masks it before, and the verifier knows less */
	return word(image, index);
}

/* Returns eight words of the image; the index of the first is a multiple of eight. */
static __always_inline void *eight_words(void *image, __u32 index)
{
	index &= ~7u;
	asm volatile("" : "+r"(index)); /* as in word_pair() */
	return word(image, index);
}

#endif
