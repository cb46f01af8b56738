/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Checks the mounts that a task under rules makes, moves or takes away in its domain's own mount tree, or
 * where they are propagated to it. Canonical paths come from that tree. Mounts elsewhere change no canonical
 * path and are not checked.
 *
 * - Mounting over a name is writing it, because the name then shows other objects.
 * - Nothing is mounted over a program that a fromSource names, nor over a directory that leads to it: any
 *   program could take the place of the one that has rights.
 * - A mount is not moved or taken away if rules block something by its path: under another path, or none, it
 *   might not be blocked. Removing the directory that a mount is on takes the mount away in every tree
 *   (detach_mounts(), fs/namespace.c).
 */
#ifndef ARMOR_MOUNT_DECIDE_H
#define ARMOR_MOUNT_DECIDE_H

#include "guard/guard.bpf.h"
#include "path/check.bpf.h"
#include "path/undecided.bpf.h"

enum mounting { MOUNTS_OVER, TAKES_AWAY, DETACHES, MOVES_ALL, ELSEWHERE };

/*
 * Returns whether a change to a mount happens in the domain's own mount tree, too. What is mounted on a mount
 * is propagated in that mount's group, what is unmounted in that of its parent (fs/pnode.c).
 */
static __always_inline bool is_own(const struct scope *scope, struct scratch *scratch, struct mount *mount,
				   __u32 mounting)
{
	__u32 place = place_of(mount), number = own_namespace(scope, 0, place);

	if (!number || place == number)
		return true;
	if (scratch->access.hook == SB_PIVOTROOT)
		return false;
	if (mounting == TAKES_AWAY)
		mount = ADDRESS(mount, mount, mnt_parent);
	return is_propagated(scratch, FIELD(mount, mount, mnt_group_id), number);
}

/* Returns whether every path leads to this state. Global like write_path(). */
__noinline int leads_only_to(struct name *name, __u32 state)
{
	if (!name || name->names > NAME_STATES)
		return false;
	for (__u32 at = 0; at < NAME_STATES; at++)
		if (at < name->names && name->states[at] != state)
			return false;
	return true;
}

/* Returns whether a fromSource names the path or, for a directory, one below it. */
static __always_inline bool leads_to_source(const struct scope *scope, struct scratch *scratch)
{
	struct name *among_sources = &scratch->access.other_program;

	if (!(scope->rules->flags & DOMAIN_SUBJECTS))
		return false;
	if (among_sources->outcome != FIND_NAMES)
		return true;
	if (!among_sources->is_dir)
		return among_sources->classes.count != 1 || among_sources->classes.of[0] != SUBJECT_NONE;
	return !leads_only_to(among_sources, 0);
}

/* Returns whether only rules that hold everywhere, like a pattern that begins with two stars, hold below. */
static __always_inline bool is_elsewhere(const struct scope *scope, struct name *name)
{
	return leads_only_to(name, scope->rules->elsewhere);
}

/* Returns the first of `permissions` that is blocked under the classes; PERMISSIONS if none is. */
static __always_inline __u32 first_blocked(const struct scope *scope, const struct classes *classes, __u32 permissions)
{
	__u32 blocked = classes_mask(scope, classes) >> CELL_BLOCKED & CELL_ALL;

	for (__u32 permission = 0; permission < PERMISSIONS; permission++)
		if (permissions & 1u << permission && blocked & CELL_BOTH << 2 * permission)
			return permission;
	return PERMISSIONS;
}

/* Concludes with a permission that is blocked under the classes, whoever owns the object. */
static __always_inline int conclude_blocked(struct scope *scope, struct scratch *scratch, struct classes *classes,
					    __u32 permissions)
{
	__u32 permission = first_blocked(scope, classes, permissions), decision;

	if (permission >= PERMISSIONS)
		return 0;
	decision = decide(scope, scratch, classes, 1u << permission, 0);
	if (!blocks(decision))
		decision = decide(scope, scratch, classes, 1u << permission, 1);
	return conclude(scope, scratch, decision);
}

#define ANY_PERMISSION ((1u << PERMISSIONS) - 1)

/* Sets the classes of everything below the domain's root. */
static __always_inline void find_below_root(struct scope *scope, struct scratch *scratch, struct classes *below)
{
	__u32 state;

	scratch->path[PATH_CAPACITY - 1] = '/';
	scratch->scan.at = scope->rules->objects.start;
	scratch->scan.position = PATH_CAPACITY - 1;
	scratch->scan.end = PATH_CAPACITY;
	state = scan_path(scope->image, scratch, &scope->rules->objects);
	set_class(below,
		  state == NO_STATE ? OBJECT_UNRESOLVED :
				      classes_at(scope->image, &scope->rules->objects, state) >> 16);
}

/* Sets up the names to find: none if the change is not in the domain's own mount tree. */
static __always_inline void begin_mounting(const struct scope *scope, struct scratch *scratch)
{
	struct access *access = &scratch->access;
	__u32 mounting = scratch->question.mounting;

	if (mounting != DETACHES && !is_own(scope, scratch, mount_of((void *)access->name.mnt), mounting)) {
		scratch->question.mounting = ELSEWHERE;
	} else if (mounting != MOVES_ALL) {
		want_object(scratch, NAME);
		if (scope->rules->flags & DOMAIN_SUBJECTS) {
			access->other_program = access->name;
			want_program(scratch, OTHER_PROGRAM, 0);
		}
	}
}

static __noinline int judge_mounting(struct scope *scope, struct scratch *scratch)
{
	struct name *name = &scratch->access.name;
	struct classes *classes = name->is_dir ? &name->below : &name->classes;
	__u32 mounting = scratch->question.mounting, permissions = ANY_PERMISSION;
	bool alone;

	if (mounting == ELSEWHERE)
		return 0;
	if (mounting == MOVES_ALL) {
		find_below_root(scope, scratch, &name->below);
		return conclude_blocked(scope, scratch, &name->below, permissions);
	}
	/*
	 * What goes from the domain's own mount tree goes by this path alone, unless it is mounted at that
	 * mountpoint by another path too. Elsewhere the mounts that go with it count too, with all their paths.
	 */
	alone = mounting != MOUNTS_OVER && is_named(name->place) &&
		name->place == own_namespace(scope, name->mnt, name->place) && !name->has_twin;
	if (alone)
		scratch->access.other_program.names = 1;
	if (leads_to_source(scope, scratch)) {
		scratch->access.permission = WRITE;
		/* Rules that only audit refuse nothing. */
		return conclude(scope, scratch,
				(scope->rules->flags & DOMAIN_REFUSES ? VERDICT_BLOCK : VERDICT_AUDIT)
						<< VERDICT_SHIFT |
					RULE_SOURCE);
	}
	if (name->outcome != FIND_NAMES)
		return 0;
	if (mounting == MOUNTS_OVER) {
		permissions = 1u << WRITE;
	} else if (alone) {
		__u32 state = name->states[0], both = OBJECT_UNRESOLVED << 16 | OBJECT_UNRESOLVED;

		if (state != NO_STATE)
			both = classes_at(scope->image, &scope->rules->objects, state);
		name->names = 1;
		set_class(classes, name->is_dir ? both >> 16 : both & 0xffff);
	}
	if (name->is_dir && is_elsewhere(scope, name))
		return 0;
	return conclude_blocked(scope, scratch, classes, permissions);
}

/* Asks about a task's change to a mount, or about the place of a new one. */
static __noinline int check_mounting(struct dentry *dentry, struct vfsmount *mnt, __u32 hook, enum mounting mounting)
{
	struct scratch *scratch;
	struct scope scope;
	int verdict;

	scratch = begin_check(&scope, hook, &verdict);
	if (!scratch)
		return verdict;
	set_dentry(&scratch->access.name, dentry, mnt);
	scratch->question.mounting = mounting;
	verdict = ask(scratch, &scope, ASK_MOUNTING);
	release_scratch(scratch);
	return verdict;
}

/*
 * Asks about the removal of a name on which something is mounted. It is mounted in another mount tree than
 * the task's, or the name would be busy.
 */
static __always_inline int check_detaching(struct dentry *dentry, struct vfsmount *mnt, __u32 hook)
{
	return is_mountpoint((__u64)PLAIN(dentry)) ? check_mounting(dentry, mnt, hook, DETACHES) : 0;
}

#endif
