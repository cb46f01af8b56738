/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Writes the paths of one object, one after the other, and takes note of what each leads to. */
#ifndef ARMOR_NAMES_H
#define ARMOR_NAMES_H

#include "names/classes.bpf.h"
#include "names/tree.bpf.h"

/*
 * Number of tries before a path that renames keep tearing counts as unresolved. They take some milliseconds:
 * in a virtual machine the processor that holds one of the locks may not run for that long.
 */
#define RESOLVE_TRIES 1000

/* resolve.at: the next step starts the resolution anew. */
#define RESOLVE_BEGIN (~0u)

struct resolution {
	struct scope *scope;
	struct scratch *scratch;
	struct name *name;
};

static __always_inline const struct image_automaton *automaton_of(const struct resolution *resolution)
{
	const struct image_domain *rules = resolution->scope->rules;

	return resolution->scratch->resolve.subjects ? &rules->subjects : &rules->objects;
}

/*
 * Writes only the last name of a path. Returns where it starts. On failure returns PATH_CAPACITY, where no
 * name can start.
 */
static __always_inline __u32 write_last_name(struct scratch *scratch, const unsigned char *name, __u32 length,
					     __u32 is_dir)
{
	__u32 start;

	if (!length || length > NAME_MAX)
		return PATH_CAPACITY;
	start = PATH_CAPACITY - (is_dir & 1) - length;
	if (is_dir)
		scratch->path[PATH_CAPACITY - 1] = '/';
	if (bpf_probe_read_kernel(&scratch->path[start & (PATH_CAPACITY - 1)], length & NAME_MAX, name))
		return PATH_CAPACITY;
	return start;
}

/* Does the same for a dentry. Global like write_path(). */
__noinline __u32 write_last(struct scratch *scratch, __u64 dentry, __u32 is_dir)
{
	if (!scratch)
		return PATH_CAPACITY;
	return write_last_name(scratch, ADDRESS(dentry, dentry, d_name.name), FIELD(dentry, dentry, d_name.len),
			       is_dir);
}

/*
 * Returns whether an object is the null device. Runtimes mount it over what a container must not see, so its
 * canonical paths say nothing about it.
 */
__noinline int is_null_device(__u64 dentry)
{
	struct inode *inode = ADDRESS(dentry, dentry, d_inode);

	return (FIELD(inode, inode, i_mode) & S_IFMT) == S_IFCHR && FIELD(inode, inode, i_rdev) == NULL_DEVICE;
}

static __always_inline bool is_in_layer(const struct resolution *resolution)
{
	return resolution->scratch->resolve.layer;
}

/* Sets scratch->tree.shown to the mounts by which the current object may have canonical paths. */
static __always_inline void begin_canonical(struct resolution *resolution, __u32 number)
{
	struct scratch *scratch = resolution->scratch;
	struct name *name = resolution->name;

	if (!find_shown(scratch, scratch->resolve.dentry, is_in_layer(resolution) ? 0 : name->mnt, name->place, number))
		scratch->tree.shown.count = SHOWN_MOUNTS + 1;
}

/* Adds the classes that one path leads to. */
static __always_inline void add_name(struct resolution *resolution, __u32 state)
{
	struct name *name = resolution->name;
	__u32 classes = OBJECT_UNRESOLVED << 16 | OBJECT_UNRESOLVED, names = name->names;
	bool counts;

	if (state != NO_STATE)
		classes = classes_at(resolution->scope->image, automaton_of(resolution), state);
	else if (resolution->scratch->resolve.subjects)
		classes = SUBJECT_NONE;
	/* In a layer, an object that no rule names is not judged a second time. */
	counts = !is_in_layer(resolution) && !name->is_layer;
	if (counts || classes & 0xffff)
		add_class(&name->classes, classes & 0xffff);
	if (is_in_layer(resolution))
		return;
	if (counts || classes >> 16)
		add_class(&name->below, classes >> 16);
	if (names < NAME_STATES)
		name->states[names] = state;
	name->names = names + 1;
	if (resolution->scratch->resolve.at)
		add_canonical(name, classes & 0xffff);
}

/* Notes a canonical path besides the mount path for the other objects in the directory. */
static __always_inline void note_other(struct resolution *resolution, __u64 root)
{
	struct directory *directory = &resolution->name->directory;
	bool of_all = root != resolution->name->dentry && directory->others == OTHERS_FOREIGN;

	directory->others = of_all ? OTHERS_ONE : OTHERS_MANY;
}

/* Writes the path that the resolution is at. Returns false if there is none, or it is the mount path. */
static __always_inline bool write_name(struct resolution *resolution)
{
	struct scratch *scratch = resolution->scratch;
	struct name *name = resolution->name;
	struct directory *directory = &name->directory;
	__u32 at = scratch->resolve.at, start, length;
	struct vfsmount *mnt = (void *)name->mnt;
	struct dentry *root;

	if (at) {
		__u64 mount = scratch->tree.shown.of[(at - 1) & (SHOWN_MOUNTS - 1)];

		mnt = (void *)mount + bpf_core_field_offset(struct mount, mnt);
		if ((__u64)mnt == name->mnt && !is_in_layer(resolution)) {
			scratch->resolve.canonical++;
			name->shown_by = name->mnt;
			add_canonical(name, name->classes.of[0]);
			return false;
		}
		if (scratch->question.asked == ASK_MOUNTING &&
		    ADDRESS(mount, mount, mnt_mountpoint) ==
			    ADDRESS(mount, mount_of((void *)name->mnt), mnt_mountpoint))
			name->has_twin = 1;
	}
	start = write_path(scratch, scratch->resolve.dentry, (__u64)mnt, name->is_dir);
	if (is_in_layer(resolution)) {
		if (start == PATH_OUTSIDE)
			return false;
	} else if (at) {
		root = ADDRESS(vfsmount, mnt, mnt_root);
		if (start == PATH_OUTSIDE) {
			if (ADDRESS(dentry, root, d_parent) == ADDRESS(dentry, name->dentry, d_parent))
				directory->others = OTHERS_MANY;
			return false;
		}
		note_other(resolution, (__u64)root);
		scratch->resolve.canonical++;
		name->shown_by = (__u64)mnt;
	}
	length = FIELD(dentry, scratch->resolve.dentry, d_name.len) + (name->is_dir & 1);
	scratch->scan.at = automaton_of(resolution)->start;
	scratch->scan.position = start;
	scratch->scan.end = PATH_CAPACITY - length;
	/* At a mount's root the path ends in another name. It may then be divided anywhere. */
	if (scratch->scan.end < start || scratch->scan.end > PATH_CAPACITY)
		scratch->scan.end = start;
	scratch->resolve.last = scratch->scan.end;
	return true;
}

#endif
