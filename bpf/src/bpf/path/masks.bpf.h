/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Finds out whether an access is a silent allow, from the classes of its object. Most accesses end here. */
#ifndef ARMOR_MASKS_H
#define ARMOR_MASKS_H

#include "core/scope.bpf.h"

/*
 * Half a cell has two bits for each permission: bit 2 * permission is about tasks that do not own the object,
 * the next one about its owner.
 */
enum cell_bits {
	CELL_BOTH = 3, /* of one permission */
	CELL_OTHERS = (1 << 2 * READ | 1 << 2 * WRITE | 1 << 2 * EXEC | 1 << 2 * MAP),
	CELL_ALL = CELL_BOTH * CELL_OTHERS,
};

static __always_inline __u64 *cell_of(const struct scope *scope, __u32 subject, __u32 class)
{
	return word(scope->image, scope->rules->cells + subject * scope->rules->object_count + class);
}

static __always_inline __u32 cell_mask(const struct scope *scope, __u32 subject, __u32 class)
{
	__u64 *cell = subject == SUBJECT_CONFLICT ? 0 : cell_of(scope, subject, class);

	return cell ? *cell >> 32 : ~0u;
}

/*
 * Returns the high half of cells: which decisions on a class are no silent allows, and which are refusals. What it says of
 * lists is not 0 if there is one.
 */
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
#define ASKED(permission) ((permissions & 1u << (permission)) * (CELL_BOTH << (permission)))
	return ASKED(READ) | ASKED(WRITE) | ASKED(EXEC) | ASKED(MAP);
#undef ASKED
}

/* Returns the number of the lowest bit that is set in half a cell. */
static __always_inline __u32 lowest_bit(__u32 half)
{
	half &= -half;
	return (half & 0xf0 ? 4 : 0) + (half & 0xcc ? 2 : 0) + (half & 0xaa ? 1 : 0);
}

/* Returns whether a mask refuses that an object is mapped executable, to its owner as to others. */
static __always_inline bool blocks_mapping(__u32 mask)
{
	return mask >> CELL_BLOCKED & 1u << 2 * MAP && mask >> CELL_BLOCKED & 2u << 2 * MAP;
}

/* Returns whether some list decides on the arguments of a program with these classes. */
static __always_inline bool has_list(const struct scope *scope, const struct classes *classes)
{
	return classes_mask(scope, classes) >> CELL_LIST;
}

/* Returns whether nothing is refused or reported, whoever owns the object. Most accesses end here. */
static __always_inline bool silently_allowed(const struct scope *scope, const struct classes *classes,
					     __u32 permissions)
{
	return !(classes_mask(scope, classes) & asked_mask(permissions));
}

#endif
