/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Decides on an access from the classes of its object. */
#ifndef ARMOR_DECIDE_H
#define ARMOR_DECIDE_H

#include "core/ring.bpf.h"
#include "names/subject.bpf.h"
#include "path/masks.bpf.h"

static __always_inline __u32 class_decision(const struct scope *scope, __u32 subject, __u32 class, __u32 permission,
					    __u32 owner)
{
	__u64 *cell = subject == SUBJECT_CONFLICT ? 0 : cell_of(scope, subject, class), *decisions = 0;

	if (cell)
		decisions = word(scope->image, scope->rules->vectors + (__u32)*cell * PERMISSIONS + permission);
	return decisions ? *decisions >> (owner << 5) : VERDICT_BLOCK << VERDICT_SHIFT | RULE_UNRESOLVED;
}

struct choice {
	struct scope *scope;
	struct scratch *scratch;
	struct classes *classes;
	__u32 permissions;
	__u32 owner;
};

/* Looks up one permission for one subject and one class, so that the verifier follows a lookup once. */
static long choose_step(__u32 step, struct choice *choice)
{
	struct classes *classes = choice->classes;
	struct access *access = &choice->scratch->access;
	struct scope *scope = choice->scope;
	__u32 permission = step / 16 & 31, which = step & 7, decision;
	__u32 subject = step & 8 ? scope->other_subject : scope->subject;

	if (which >= CLASSES || which >= classes->count || !(choice->permissions & 1u << permission))
		return 0;
	decision = class_decision(scope, subject, classes->of[which], permission, choice->owner);
	if (decision >> VERDICT_SHIFT > access->decision >> VERDICT_SHIFT) {
		access->decision = decision;
		access->permission = permission;
	}
	return 0;
}

/* Sets in scratch->access the strictest decision over a set of permissions, and its permission. */
static __noinline __u32 decide(struct scope *scope, struct scratch *scratch, struct classes *classes, __u32 permissions,
			       __u32 owner)
{
	struct choice choice = {
		.scope = scope,
		.scratch = scratch,
		.classes = classes,
		.permissions = permissions,
		.owner = owner,
	};

	scratch->access.decision = 0;
	scratch->access.permission = 0;
	bpf_loop(PERMISSIONS * 16, choose_step, &choice, 0);
	return scratch->access.decision;
}

/* Returns the lowest permission that `from` blocks and `to` does not; PERMISSIONS if there is none. */
static __always_inline __u32 lost_permission(__u32 from, __u32 to, __u32 owner)
{
	__u32 lost = (from & ~to) >> CELL_BLOCKED >> owner & CELL_OTHERS;

	return lost ? lowest_bit(lost) / 2 : PERMISSIONS;
}

/* Returns whether two names of a directory lead to the same states. The same rules then apply below both. */
__noinline int same_states(struct name *one, struct name *other)
{
	if (!one || !other || one->names != other->names || one->names > NAME_STATES)
		return false;
	for (__u32 at = 0; at < NAME_STATES; at++)
		if (at < one->names && one->states[at] != other->states[at])
			return false;
	return true;
}

/* Returns whether one list, if any, decides on the arguments under both names. */
static __always_inline bool keeps_list(const struct scope *scope, const struct classes *from, const struct classes *to)
{
	__u32 list = classes_mask(scope, from) >> CELL_LIST;

	return !list ||
		(from->count == 1 && to->count == 1 && scope->subject == scope->other_subject &&
		 classes_mask(scope, to) >> CELL_LIST == list);
}

/* Returns the decision that another name would take away, 0 if none. What `from` blocks, `to` must block. */
static __noinline __u32 loosened(struct scope *scope, struct scratch *scratch, struct name *from, struct name *to,
				 __u32 owner)
{
	__u32 mask = classes_mask(scope, &from->classes);
	__u32 permission = lost_permission(mask, classes_mask(scope, &to->classes), owner & 1);

	/* A list that refuses also refuses to have the program mapped, and that decision names the same rule. */
	if (permission == PERMISSIONS && blocks_mapping(mask) && !keeps_list(scope, &from->classes, &to->classes))
		permission = MAP;
	if (permission < PERMISSIONS)
		return decide(scope, scratch, &from->classes, 1u << permission, owner);
	if (!from->is_dir || same_states(from, to))
		return 0;
	/* Otherwise nothing below may be blocked. */
	permission = lost_permission(classes_mask(scope, &from->below), 0, 0);
	return permission < PERMISSIONS ? decide(scope, scratch, &from->below, 1u << permission, 0) : 0;
}

#endif
