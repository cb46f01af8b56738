/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Finds out whether an access is a silent allow, from the classes of its object. Most accesses end here. */
#ifndef ARMOR_MASKS_H
#define ARMOR_MASKS_H

#include "scope.bpf.h"

static __always_inline __u64 *cell_of(const struct scope *scope, __u32 subject, __u32 class)
{
	return word(scope->image, scope->rules->cells + subject * scope->rules->object_count + class);
}

static __always_inline __u32 cell_mask(const struct scope *scope, __u32 subject, __u32 class)
{
	__u64 *cell = subject == SUBJECT_CONFLICT ? 0 : cell_of(scope, subject, class);

	return cell ? *cell >> 32 : ~0u;
}

/* Returns the high half of cells: which decisions on a class are no silent allows, and which are refusals. */
static __always_inline __u32 class_mask(const struct scope *scope, __u32 class)
{
	__u32 mask = cell_mask(scope, scope->subject, class);

	return scope->other_subject == scope->subject ? mask : mask | cell_mask(scope, scope->other_subject, class);
}

struct masking {
	const struct scope *scope;
	const struct classes *classes;
	__u32 mask;
};

static long mask_step(__u32 step, struct masking *masking)
{
	__u32 at = step + 1;

	if (at >= CLASSES || at >= masking->classes->count)
		return 1;
	masking->mask |= class_mask(masking->scope, masking->classes->of[at]);
	return 0;
}

/* Returns the masks of all classes but the first. */
static __noinline __u32 other_masks(const struct scope *scope, const struct classes *classes)
{
	struct masking masking = { .scope = scope, .classes = classes };

	bpf_loop(CLASSES - 1, mask_step, &masking, 0);
	return masking.mask;
}

static __always_inline __u32 classes_mask(const struct scope *scope, const struct classes *classes)
{
	__u32 mask;

	if (!classes->count)
		return 0;
	mask = class_mask(scope, classes->of[0]);
	return classes->count > 1 ? mask | other_masks(scope, classes) : mask;
}

/* Returns the bits of a mask for some permissions, whoever owns the object. */
static __always_inline __u32 asked_mask(__u32 permissions)
{
	return (permissions & 1) * 3 | (permissions & 2) * 6 | (permissions & 4) * 12 | (permissions & 8) * 24;
}

/* Returns whether nothing is refused or reported, whoever owns the object. Most accesses end here. */
static __always_inline bool silently_allowed(const struct scope *scope, const struct classes *classes,
					     __u32 permissions)
{
	return !(classes_mask(scope, classes) & asked_mask(permissions));
}

#endif
