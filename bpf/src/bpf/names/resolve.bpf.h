/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Resolves an object to its paths, and a path to a state and classes of an automaton.
 *
 * Bind mounts and private mount namespaces show an object under paths that an attacker can choose. So besides
 * its mount path, the one in the mount tree by which it was reached, an object has its canonical paths: all
 * under which the domain's own mount tree shows it. The strictest decision over all of them holds. An object
 * that only a foreign mount namespace shows gains nothing from its path there: it is also judged as an object
 * that no rule names.
 */
#ifndef ARMOR_RESOLVE_H
#define ARMOR_RESOLVE_H

#include "names/names.bpf.h"

/* Starts a resolution: sets which paths there may be. */
static __always_inline void begin_resolve(struct resolution *resolution)
{
	struct scratch *scratch = resolution->scratch;
	struct name *name = resolution->name;
	struct directory *directory = &name->directory;
	struct question *question = &scratch->question;
	struct epochs before;
	__u32 number;

	/* The first try uses the epochs that the hook has read, as reading them takes time. */
	if (question->dated)
		before = (struct epochs){ question->renames, question->mounts };
	else
		before = read_epochs();
	question->dated = 0;
	scratch->resolve.renames = before.renames;
	scratch->resolve.mounts = before.mounts;
	load_fence(scratch);
	scratch->resolve.dentry = name->dentry;
	scratch->resolve.layer = 0;
	scratch->resolve.at = name->mnt ? 0 : 1;
	scratch->resolve.is_last = 0;
	scratch->resolve.canonical = 0;
	scratch->tree.shown.count = 0;
	name->names = name->classes.count = name->below.count = 0;
	name->first_canonical = name->other_canonical = NO_CLASS;
	name->shown_by = 0;
	name->has_twin = 0;
	if (directory->known && directory->renames == before.renames && directory->mounts == before.mounts) {
		scratch->resolve.last = write_last(scratch, name->dentry, name->is_dir);
		if (scratch->resolve.last < PATH_CAPACITY) {
			scratch->resolve.is_last = 1;
			scratch->tree.shown.count = directory->others == OTHERS_ONE;
			return;
		}
	}
	directory->known = 0;
	directory->others = OTHERS_NONE;
	number = own_namespace(resolution->scope, name->mnt, name->place);
	if (!number)
		return;
	if (is_null_device(name->dentry)) {
		directory->others = OTHERS_MANY;
		return;
	}
	directory->others = OTHERS_FOREIGN;
	begin_canonical(resolution, number);
}

/* Completes the classes of an object after its last path. */
static __always_inline void end_names(struct resolution *resolution)
{
	struct scratch *scratch = resolution->scratch;
	struct name *name = resolution->name;
	struct directory *directory = &name->directory;

	if (scratch->tree.shown.count > SHOWN_MOUNTS) {
		directory->others = OTHERS_MANY;
		add_class(&name->classes, OBJECT_UNRESOLVED);
		add_class(&name->below, OBJECT_UNRESOLVED);
		name->names = NAME_STATES + 1;
	} else if (scratch->resolve.canonical && directory->others == OTHERS_FOREIGN) {
		directory->others = OTHERS_NONE;
	} else if (name->mnt && directory->others == OTHERS_NONE) {
		add_canonical(name, name->classes.of[0]);
	}
	if (name->mnt && name->first_canonical == NO_CLASS && !is_null_device(name->dentry)) {
		add_class(&name->classes, OBJECT_NONE);
		add_class(&name->below, OBJECT_NONE);
	}
}

/* Goes on to the next layer, or ends this try. Returns true if nothing moved, so that it was the last try. */
static __always_inline bool end_resolve(struct resolution *resolution)
{
	struct scratch *scratch = resolution->scratch;
	struct name *name = resolution->name;
	__u32 layer = scratch->resolve.layer, number;

	if (!is_in_layer(resolution))
		end_names(resolution);
	else if (scratch->tree.shown.count > SHOWN_MOUNTS)
		add_class(&name->classes, OBJECT_UNRESOLVED);
	if (name->has_unknown_layer)
		add_class(&name->classes, OBJECT_UNRESOLVED);
	number = layer < OVERLAY_DEPTH && name->layers[layer] ?
		own_namespace(resolution->scope, name->mnt, name->place) :
		0;
	if (number) {
		scratch->resolve.dentry = name->layers[layer];
		scratch->resolve.layer = layer + 1;
		scratch->resolve.at = 1;
		scratch->resolve.is_last = 0;
		begin_canonical(resolution, number);
		return false;
	}
	scratch->resolve.at = RESOLVE_BEGIN;
	load_fence(scratch);
	scratch->resolve.done = unchanged_since((struct epochs){ scratch->resolve.renames, scratch->resolve.mounts });
	return scratch->resolve.done;
}

/* Stores the state behind the part of a path that was written last, and goes on to the next part. */
static __always_inline void store_state(struct resolution *resolution, __u32 state)
{
	struct scratch *scratch = resolution->scratch;
	struct directory *directory = &resolution->name->directory;
	__u32 at = scratch->resolve.at;

	if (scratch->resolve.is_last) {
		add_name(resolution, state);
		scratch->resolve.at = at + 1;
		scratch->resolve.is_last = directory->known && !is_in_layer(resolution);
		return;
	}
	if (is_in_layer(resolution))
		scratch->resolve.layer_state = state;
	else if (at)
		directory->canonical_state = state;
	else
		directory->mount_state = state;
	scratch->resolve.is_last = 1;
}

/* Sets up the scan of a path's next part. Returns false if the current name has no path. */
static __always_inline bool write_part(struct resolution *resolution)
{
	struct scratch *scratch = resolution->scratch;
	struct directory *directory = &resolution->name->directory;

	if (!scratch->resolve.is_last)
		return write_name(resolution);
	scratch->scan.at = scratch->resolve.at ? directory->canonical_state : directory->mount_state;
	if (is_in_layer(resolution))
		scratch->scan.at = scratch->resolve.layer_state;
	scratch->scan.position = scratch->resolve.last;
	scratch->scan.end = PATH_CAPACITY;
	return true;
}

/*
 * Does one step of find_names(). Each path has two parts: that of the directory, unless its state is known,
 * and the last name. A part is written in one step and scanned in the next, so that the verifier reaches each
 * from one state only.
 */
static long resolve_step(__u32 step, struct resolution *resolution)
{
	struct scratch *scratch = resolution->scratch;
	__u32 at = scratch->resolve.at;

	if (at == RESOLVE_BEGIN) {
		begin_resolve(resolution);
		return 0;
	}
	if (scratch->resolve.scans) {
		scratch->resolve.scans = 0;
		store_state(resolution, scan_path(resolution->scope->image, scratch, automaton_of(resolution)));
		return 0;
	}
	if (at > scratch->tree.shown.count || (at && scratch->tree.shown.count > SHOWN_MOUNTS))
		return end_resolve(resolution);
	if (write_part(resolution))
		scratch->resolve.scans = 1;
	else
		scratch->resolve.at = at + 1;
	return 0;
}

/* Returns a file's class from its name and the state behind its directory's path; NO_CLASS on failure. */
static __always_inline __u32 class_in_directory(const struct scope *scope, struct scratch *scratch,
						struct dentry *dentry, __u32 directory_state)
{
	const struct image_automaton *objects = &scope->rules->objects;
	__u32 start = write_last_name(scratch, dentry->d_name.name, dentry->d_name.len, 0), state;

	if (start >= PATH_CAPACITY)
		return NO_CLASS;
	scratch->scan.at = directory_state;
	scratch->scan.position = start;
	scratch->scan.end = PATH_CAPACITY;
	state = scan_path(scope->image, scratch, objects);
	return state == NO_STATE ? NO_CLASS : classes_at(scope->image, objects, state) & 0xffff;
}

/* Finds the paths, states and classes of a name. Returns false if renames or mounts keep tearing paths. */
static __always_inline bool find_names(struct scope *scope, struct scratch *scratch, struct name *name, bool subjects)
{
	struct resolution resolution = {
		.scope = scope,
		.scratch = scratch,
		.name = name,
	};

	scratch->resolve.subjects = subjects;
	scratch->resolve.at = RESOLVE_BEGIN;
	scratch->resolve.done = scratch->resolve.scans = 0;
	bpf_loop(8 * RESOLVE_TRIES, resolve_step, &resolution, 0);
	return scratch->resolve.done;
}

#endif
