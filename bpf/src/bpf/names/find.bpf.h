/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Resolves the names of objects and programs that a decision is about.
 *
 * All names of one decision are resolved in one loop, so that the verifier follows the search once.
 */
#ifndef ARMOR_FIND_H
#define ARMOR_FIND_H

#include "names/maps.h"
#include "names/name.bpf.h"
#include "names/resolve.bpf.h"

static __always_inline void want(struct scratch *scratch, __u32 which, bool subjects, __u64 task)
{
	__u32 at = scratch->find_count;
	struct find *find = &scratch->finds[at & (FINDS - 1)];

	find->task = task;
	find->which = which;
	find->subjects = subjects;
	scratch->find_count = at + 1;
}

/* Adds one of access.names to the search, as an object. */
static __always_inline void want_object(struct scratch *scratch, __u32 which)
{
	want(scratch, which, false, 0);
}

/* Adds a task's program to the search. */
static __always_inline void want_program(struct scratch *scratch, __u32 which, __u64 task)
{
	want(scratch, which, true, task);
}

/* Gives a reserved class to an object without a path in a mount tree. */
static __always_inline void set_all(struct name *name, __u32 class)
{
	set_class(&name->classes, class);
	set_class(&name->below, class);
	name->names = 1;
	name->states[0] = NO_STATE;
	name->first_canonical = NO_CLASS;
	name->shown_by = 0;
}

/* Adds to `to` the class that the agent found for a file with several names, one of which rules name. */
static __noinline void add_linked_class(const struct scope *scope, const struct name *name, struct name *to)
{
	struct inode *inode = ADDRESS(dentry, name->dentry, d_inode);
	struct linked_key key = {
		.generation = scope->rules->generation,
		.domain = scope->domain,
		.inode = FIELD(inode, inode, i_ino),
		.device = FIELD(super_block, ADDRESS(inode, inode, i_sb), s_dev),
	};
	__u32 *class = bpf_map_lookup_elem(&linked_files, &key);

	if (class)
		add_class(&to->classes, *class);
}

/*
 * Returns the class that rules give to a device by the name of one of its nodes, 0 if they name none. It
 * holds for the device number, whatever a node of it is called.
 */
static __always_inline __u32 *class_of_device(const struct scope *scope, __u32 kind, __u32 number)
{
	struct linked_key key = {
		.generation = scope->rules->generation,
		.domain = scope->domain,
		.inode = number,
		.device = kind,
	};

	return bpf_map_lookup_elem(&linked_files, &key);
}

static __noinline void add_device_class(const struct scope *scope, struct name *name)
{
	struct inode *inode = ADDRESS(dentry, name->dentry, d_inode);
	__u32 kind = (FIELD(inode, inode, i_mode) & S_IFMT) == S_IFBLK ? DEVICE_BLOCK : DEVICE_CHARACTER;
	__u32 *class = is_null_device(name->dentry) ? 0 : class_of_device(scope, kind, FIELD(inode, inode, i_rdev));

	if (class)
		add_class(&name->classes, *class);
}

/* Sets a name to the program of a task, before its paths are found. */
static __always_inline void begin_program(struct name *name, __u64 task)
{
	struct file *exe = ADDRESS(mm_struct, ADDRESS(task_struct, task, mm), exe_file);

	name->dentry = (__u64)ADDRESS(file, exe, f_path.dentry);
	name->mnt = (__u64)ADDRESS(file, exe, f_path.mnt);
	name->is_dir = 0;
	name->layers[0] = name->layers[1] = 0;
	name->has_unknown_layer = name->is_layer = 0;
	name->directory.known = 0;
}

/*
 * Prepares the search for an object's paths. An object in no mount tree has no mount path, but the domain's
 * own mount tree may show it: so it is with a copy of a mount that was never attached, and with filesystems
 * that the kernel fills, of which every instance shows the same.
 */
static __always_inline void begin_object(const struct scope *scope, struct scratch *scratch, struct name *name)
{
	__u64 magic = FIELD(super_block, ADDRESS(dentry, name->dentry, d_sb), s_magic);
	__u32 place = name->place;

	/* The mount that queues are opened in has no namespace. Only later kernels mark it as their own. */
	if (place == PLACE_DETACHED && magic == MQUEUE_MAGIC)
		name->place = place = PLACE_ANONYMOUS;
	if (place == PLACE_BACKING && name->mnt)
		name->is_layer = 1;
	if (place == PLACE_BACKING || (place == PLACE_DETACHED && own_namespace(scope, 0, place)) ||
	    (place == PLACE_ANONYMOUS && (is_the_kernels(magic) || magic == NSFS_MAGIC))) {
		name->mnt = 0;
		scratch->found = 1;
	}
}

/* Completes an object's classes after the search, also if it has no path. */
static __always_inline __u32 end_object(struct scope *scope, struct scratch *scratch, struct name *name, bool resolved)
{
	bool unsure = scratch->found && (scratch->tree.shown.count > SHOWN_MOUNTS || name->has_unknown_layer);

	if (!scratch->found) {
		set_all(name, name->place == PLACE_ANONYMOUS ? OBJECT_ANONYMOUS : OBJECT_UNRESOLVED);
	} else if (!resolved) {
		set_all(name, OBJECT_UNRESOLVED);
	} else {
		if (name->several)
			add_linked_class(scope, name, name);
		if (name->device)
			add_device_class(scope, name);
		if (!name->classes.count) {
			if (name->place == PLACE_BACKING)
				return FIND_NOTHING;
			set_all(name, name->place == PLACE_ANONYMOUS ? OBJECT_ANONYMOUS : OBJECT_NONE);
		}
	}
	if (unsure || name->classes.of[0] == OBJECT_UNRESOLVED)
		count(COUNT_UNRESOLVED);
	return FIND_NAMES;
}

/* Sets the current epochs for an object without paths, for which no mount tree was walked. */
static __always_inline void note_epochs(struct scratch *scratch)
{
	struct epochs now = read_epochs();

	scratch->resolve.renames = now.renames;
	scratch->resolve.mounts = now.mounts;
	scratch->resolve.done = quiet(now);
}

struct finding {
	struct scope *scope;
	struct scratch *scratch;
};

static long find_step(__u32 step, struct finding *finding)
{
	struct scratch *scratch = finding->scratch;
	struct find *find = &scratch->finds[step & (FINDS - 1)];
	struct name *name = &scratch->access.names[find->which & (NAMES - 1)];
	bool resolved = false;

	if (find->task)
		begin_program(name, find->task);
	name->place = name->mnt ? place_of(mount_of((void *)name->mnt)) : PLACE_BACKING;
	scratch->found = is_named(name->place);
	if (!find->subjects)
		begin_object(finding->scope, scratch, name);
	if (!scratch->found)
		note_epochs(scratch);
	else
		resolved = find_names(finding->scope, scratch, name, find->subjects);
	if (!find->subjects)
		name->outcome = end_object(finding->scope, scratch, name, resolved);
	else
		name->outcome = resolved ? FIND_NAMES : scratch->found ? FIND_TORN : FIND_NOTHING;
	return 0;
}

/* Finds the paths of all names in the search. */
static __always_inline void find_wanted(struct scope *scope, struct scratch *scratch)
{
	struct finding finding = { .scope = scope, .scratch = scratch };

	bpf_loop(scratch->find_count, find_step, &finding, 0);
}

#endif
