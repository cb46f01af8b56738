/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Keeps the classes that the paths of one object lead to. */
#ifndef ARMOR_CLASSES_H
#define ARMOR_CLASSES_H

#include "names/name.bpf.h"
#include "names/scan.bpf.h"

/* Returns the classes in a state's record, that of everything below in the high half; 0 if it has none. */
static __always_inline __u32 classes_at(void *image, const struct image_automaton *automaton, __u32 state)
{
	__u64 *record = word(image, automaton->slots + state);

	return record ? *record >> 32 : 0;
}

/*
 * Adds a class once. Global like write_path(), as is add_canonical(): inline they would multiply what the
 * verifier follows in their callers.
 */
__noinline int add_class(struct classes *classes, __u32 class)
{
	__u32 count;

	if (!classes)
		return 0;
	count = classes->count;
	for (__u32 at = 0; at < CLASSES; at++)
		if (at < count && classes->of[at] == class)
			return 0;
	/* With more classes than fit, nothing is certain about the object. */
	if (count >= CLASSES) {
		classes->of[CLASSES - 1] = OBJECT_UNRESOLVED;
		return 0;
	}
	classes->of[count] = class;
	classes->count = count + 1;
	return 0;
}

__noinline int add_canonical(struct name *name, __u32 class)
{
	if (!name)
		return 0;
	if (name->first_canonical == NO_CLASS)
		name->first_canonical = name->other_canonical = class;
	else if (class != name->first_canonical && name->other_canonical == name->first_canonical)
		name->other_canonical = class;
	else if (class != name->first_canonical && class != name->other_canonical)
		name->other_canonical = SUBJECT_CONFLICT;
	return 0;
}

static __always_inline void set_class(struct classes *classes, __u32 class)
{
	classes->of[0] = class;
	classes->count = 1;
}

#endif
