/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Checks names and open files for the programs of hooks. They return at once if a cache knows the access to
 * be allowed, and ask judge() otherwise.
 */
#ifndef ARMOR_CHECK_H
#define ARMOR_CHECK_H

#include "core/judge.bpf.h"
#include "names/resolve.bpf.h"
#include "path/cache.bpf.h"
#include "path/masks.bpf.h"

/* Checks a name that a hook got. `making_directory` is for mkdir, whose inode does not exist yet. */
static __noinline int check_path(struct dentry *dentry, struct vfsmount *mnt, __u32 hook, __u32 permissions,
				 bool making_directory)
{
	struct scratch *scratch;
	struct scope scope;
	int verdict;

	scratch = begin_check(&scope, hook, &verdict);
	if (!scratch)
		return verdict;
	set_dentry(&scratch->access.name, dentry, mnt);
	scratch->access.name.is_layer = !mnt && is_acted_for(bpf_get_current_task_btf());
	if (making_directory)
		scratch->access.name.is_dir = 1;
	scratch->question.inode = (__u64)ADDRESS(dentry, dentry, d_inode);
	scratch->question.permissions = permissions;
	scratch->question.undecided = hook == PATH_MKNOD && is_in_lookup((__u64)PLAIN(dentry));
	verdict = ask(scratch, &scope, ASK_NAME);
	release_scratch(scratch);
	return verdict;
}

/*
 * Checks a mapping whose rights change. For an overlay's file, the layer's file is mapped. That knows the
 * overlay's path, and the paths of both count.
 */
static __noinline int check_mapped(__u64 file, __u32 permissions)
{
	struct inode *inode = ADDRESS(file, file, f_inode);
	struct dentry *dentry = ADDRESS(file, file, f_path.dentry);
	struct vfsmount *mnt = ADDRESS(file, file, f_path.mnt);
	__u64 layer = ADDRESS(dentry, dentry, d_inode) == inode ? 0 : layer_dentry(file);
	struct scratch *scratch;
	struct scope scope;
	struct name *name;
	int verdict;

	if (!enter_scope(&scope, bpf_get_current_task_btf()))
		return 0;
	if (has_user_path() && place_of(mount_of(mnt)) == PLACE_BACKING) {
		layer = (__u64)dentry;
		dentry = ADDRESS(backing_file, file, user_path.dentry);
		mnt = ADDRESS(backing_file, file, user_path.mnt);
	}
	scratch = claim_scratch();
	if (!scratch)
		return refuse_unreported();
	begin(scratch, bpf_get_current_task_btf(), FILE_MPROTECT);
	name = &scratch->access.name;
	set_dentry(name, dentry, mnt);
	name->layers[0] = layer;
	scratch->question.inode = (__u64)inode;
	scratch->question.permissions = permissions;
	verdict = ask(scratch, &scope, ASK_NAME);
	release_scratch(scratch);
	return verdict;
}

/* Has the class of a task's program stored in the task's label. Returns false if no scratch is free. */
static __always_inline bool ask_subject(struct task_struct *task, struct scope *scope)
{
	struct scratch *scratch = claim_scratch();

	if (!scratch)
		return false;
	begin(scratch, task, FILE_OPEN);
	ask(scratch, scope, ASK_SUBJECT);
	release_scratch(scratch);
	note_label(scope, label_of(task));
	return true;
}

/*
 * Returns the address of the inode of an open file's directory. Returns 0 if the directory does not determine
 * the file's path: a mount's root has its name elsewhere, and a layer's file is opened by the overlay's path.
 */
static __always_inline __u64 directory_of(struct scratch *scratch, struct file *file)
{
	struct dentry *dentry = file->f_path.dentry;

	scratch->directory = PLAIN(dentry) == PLAIN(file->f_path.mnt->mnt_root) ?
		0 :
		(__u64)PLAIN(dentry->d_parent->d_inode);
	if (PLAIN(dentry->d_inode) != PLAIN(file->f_inode))
		scratch->directory = 0;
	return scratch->directory;
}

/*
 * Returns whether a file is silently allowed by its only name in a cached directory, as most files are that
 * are opened for the first time. If so, its class is cached at about every second open. If not, nothing is
 * decided.
 */
static __always_inline bool is_allowed_in_directory(const struct scope *scope, struct scratch *scratch,
						    struct file *file, __u64 inode, struct epochs before, __u32 below,
						    __u32 permissions)
{
	struct directory *directory = &scratch->access.name.directory;
	struct vfsmount *mnt = PLAIN(file->f_path.mnt);
	struct classes classes = { .count = 1 };
	__u32 class;

	if ((file->f_inode->i_mode & S_IFMT) != S_IFREG || file->f_inode->__i_nlink != 1)
		return false;
	directory->known = 0;
	recall_directory(scope, inode, mnt, before, directory);
	if (!directory->known || directory->others != OTHERS_NONE || directory->renames != before.renames ||
	    directory->mounts != before.mounts)
		return false;
	load_fence(scratch);
	class = class_in_directory(scope, scratch, file->f_path.dentry, directory->mount_state);
	load_fence(scratch);
	if (class == NO_CLASS || class_mask(scope, class) & asked_mask(permissions) || !unchanged_since(before))
		return false;
	classes.of[0] = class;
	scratch->access.generation = scope->rules->generation;
	scratch->access.domain = scope->domain;
	/* Storage costs more than all this. A file that is opened often soon has some, most others never do. */
	if (bpf_get_prandom_u32() & 1)
		fill(scratch, file->f_inode, mnt, before, below, &classes);
	return true;
}

/* Checks an open file that a hook got, first with the verdict cache. */
static __noinline int check_file(struct file *file, __u32 hook, __u32 permissions)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct inode *inode = file->f_inode;
	struct classes classes = {};
	struct question *question;
	struct scratch *scratch;
	struct epochs before;
	struct vfsmount *mnt;
	struct scope scope;
	struct name *name;
	__u32 below = hook != FILE_OPEN;
	__u64 directory;
	int verdict;
	bool has_subject, known = false, awaited = hook == FILE_OPEN && is_awaited(task);

	if ((!permissions && !awaited) || !enter_scope(&scope, task) || !inode)
		return 0;
	has_subject = find_known_subject(&scope);
	if (!has_subject) {
		if (!ask_subject(task, &scope))
			return refuse_unreported();
		has_subject = find_known_subject(&scope);
	}
	permissions = PLAIN(permissions);
	mnt = PLAIN(file->f_path.mnt);
	before = read_epochs();
	if (has_subject)
		known = cached(&scope, bpf_inode_storage_get(&inodes, inode, 0, 0), mnt, before, below, &classes);
	if (known && classes.of[0] == CLASS_UNNAMED)
		return 0;
	if (known && !awaited && silently_allowed(&scope, &classes, permissions))
		return 0;
	scratch = claim_scratch();
	if (!scratch)
		return refuse_unreported();
	directory = directory_of(scratch, file);
	if (has_subject && !known && !awaited && directory &&
	    is_allowed_in_directory(&scope, scratch, file, directory, before, below, permissions)) {
		release_scratch(scratch);
		return 0;
	}
	begin(scratch, task, hook);
	name = &scratch->access.name;
	set_name(name, file->f_path.dentry, mnt, inode->i_mode, inode->__i_nlink);
	if (PLAIN(file->f_path.dentry->d_inode) != PLAIN(inode))
		set_layer(name, (__u64)PLAIN(file));
	if (below)
		find_layers(name, (__u64)PLAIN(file));
	if (known)
		name->classes = classes;
	else if (directory)
		recall_directory(&scope, directory, mnt, before, &name->directory);
	question = &scratch->question;
	question->permissions = permissions;
	question->inode = (__u64)PLAIN(inode);
	question->known = known;
	question->generation = scope.rules->generation;
	question->dated = 1;
	question->renames = before.renames;
	question->mounts = before.mounts;
	question->created = hook == FILE_OPEN && file->f_mode & FMODE_CREATED;
	question->truncates = hook == FILE_OPEN && file->f_flags & O_TRUNC;
	verdict = ask(scratch, &scope, ASK_NAME);
	if (!known && is_as_of(scratch, before)) {
		if (question->outcome == OUTCOME_NAMED) {
			remember(scratch, inode, mnt, before, below);
			if (directory)
				remember_directory(scratch, directory, mnt, before);
		} else if (question->outcome == OUTCOME_UNNAMED && name->is_layer) {
			remember_unnamed(scratch, inode, mnt, before);
		}
	}
	release_scratch(scratch);
	return verdict;
}

static __always_inline int check_two(struct dentry *dentry, struct vfsmount *mnt, struct dentry *new_dentry,
				     struct vfsmount *new_mnt, __u32 hook, bool exchanges)
{
	struct scratch *scratch;
	struct scope scope;
	int verdict;

	scratch = begin_check(&scope, hook, &verdict);
	if (!scratch)
		return verdict;
	set_dentry(&scratch->access.name, dentry, mnt);
	set_dentry(&scratch->access.new_name, new_dentry, new_mnt);
	scratch->access.name.is_layer = scratch->access.new_name.is_layer = !mnt;
	if (!exchanges)
		scratch->access.new_name.is_dir = scratch->access.name.is_dir;
	scratch->question.old_permissions = hook == PATH_RENAME || hook == INODE_RENAME ? 1u << WRITE : 0;
	scratch->question.permissions = 1u << WRITE;
	scratch->question.exchanges = exchanges;
	verdict = ask(scratch, &scope, ASK_TWO_NAMES);
	release_scratch(scratch);
	return verdict;
}

#endif
