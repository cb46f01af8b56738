/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* From an object to its classes, from classes to a decision, and from a decision to an alert. */
#ifndef ARMOR_CHECK_H
#define ARMOR_CHECK_H

#include "cache.h"
#include "container.h"

static __always_inline void set_all(struct name *name, __u32 class)
{
	name->classes.view = name->classes.home = name->classes.linked = class;
	name->view_below = name->home_below = class;
	name->view_state = name->home_state = NO_STATE;
}

/* The rules' name for a file that has several names, as the agent found it. */
static __noinline __u32 linked_class(const struct scope *scope, struct inode *inode, __u32 otherwise)
{
	struct linked_key key = {
		.generation = scope->rules->generation,
		.domain = scope->domain,
		.inode = FIELD(inode, inode, i_ino),
		.device = FIELD(super_block, ADDRESS(inode, inode, i_sb), s_dev),
	};
	__u32 *class = bpf_map_lookup_elem(&linked_files, &key);

	return class ? *class : otherwise;
}

/* Fills in what `name` resolves to; false when the kernel opened it for itself and nothing is to be decided. */
static __noinline bool resolve(struct scope *scope, struct scratch *scratch, struct name *name)
{
	__u32 place = place_of(mount_of((void *)name->mnt));
	struct dentry *dentry = (void *)name->dentry;

	if (place == PLACE_BACKING)
		return false;
	name->place = place;
	if (is_named(place) && find_classes(scope, scratch, name, false)) {
		name->classes.linked = name->classes.view;
		if (name->several)
			name->classes.linked = linked_class(scope, ADDRESS(dentry, dentry, d_inode), name->classes.view);
	} else {
		set_all(name, place == PLACE_ANONYMOUS ? OBJECT_ANONYMOUS : OBJECT_UNRESOLVED);
	}
	if (name->classes.view == OBJECT_UNRESOLVED)
		count(COUNT_UNRESOLVED);
	return true;
}

static __always_inline __u64 *cell_of(const struct scope *scope, __u32 class)
{
	return word(scope->image, scope->rules->cells + scope->subject * scope->rules->object_count + class);
}

/* A cell's high half: what of all decisions over objects of a class is not a silent allow, and what is a refusal. */
static __always_inline __u32 class_mask(const struct scope *scope, __u32 class)
{
	__u64 *cell = cell_of(scope, class);

	return cell ? *cell >> 32 : ~0u;
}

static __always_inline __u32 classes_mask(const struct scope *scope, const struct classes *classes)
{
	__u32 mask = class_mask(scope, classes->view);

	if (classes->home != classes->view)
		mask |= class_mask(scope, classes->home);
	if (classes->linked != classes->view)
		mask |= class_mask(scope, classes->linked);
	return mask;
}

/* Whether nothing is refused and nothing is to be told of, whoever owns the object: most accesses end here. */
static __always_inline bool silently_allowed(const struct scope *scope, const struct classes *classes, __u32 permissions)
{
	__u32 asked = (permissions & 1) * 3 | (permissions & 2) * 6 | (permissions & 4) * 12 | (permissions & 8) * 24;

	return !(classes_mask(scope, classes) & asked);
}

static __always_inline __u32 class_decision(const struct scope *scope, __u32 class, __u32 permission, __u32 owner)
{
	__u64 *cell = cell_of(scope, class), *decisions = 0;

	if (cell)
		decisions = word(scope->image, scope->rules->vectors + (__u32)*cell * PERMISSIONS + permission);
	return decisions ? *decisions >> (owner << 5) : VERDICT_BLOCK << VERDICT_SHIFT | RULE_UNRESOLVED;
}

static __always_inline bool blocks(__u32 decision)
{
	return decision >> VERDICT_SHIFT >= VERDICT_BLOCK;
}

struct choice {
	struct scope *scope;
	struct scratch *scratch;
	struct classes *classes;
	__u32 permissions;
	__u32 owner;
};

/* One permission under one class: a step each, so that the verifier goes through a decision once. */
static long choose_step(__u32 step, struct choice *choice)
{
	struct classes *classes = choice->classes;
	struct access *access = &choice->scratch->access;
	__u32 permission = step / 4 & 31, which = step % 4, decision;

	if (which >= CLASSES || !(choice->permissions & 1u << permission))
		return 0;
	decision = class_decision(choice->scope, classes->of[which], permission, choice->owner);
	if (decision >> VERDICT_SHIFT > access->decision >> VERDICT_SHIFT) {
		access->decision = decision;
		access->permission = permission;
	}
	return 0;
}

/* Sets in `access` the strictest decision over a set of permissions, and the permission that it is about. */
static __noinline __u32 decide(struct scope *scope, struct scratch *scratch, struct classes *classes, __u32 permissions, __u32 owner)
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
	bpf_loop(PERMISSIONS * 4, choose_step, &choice, 0);
	return scratch->access.decision;
}

/* Of what `from` blocks, the lowest permission that `to` does not; PERMISSIONS if there is none. */
static __always_inline __u32 lost_permission(__u32 from, __u32 to, __u32 owner)
{
	__u32 lost = (from & ~to) >> CELL_BLOCKED >> owner & 0x55;

	if (!lost)
		return PERMISSIONS;
	lost &= -lost;
	return (lost & 0xf0 ? 2 : 0) + (lost & 0xcc ? 1 : 0);
}

/* The decision that another name would take away, else 0: what `from` blocks, `to` must block too. */
static __noinline __u32 loosened(struct scope *scope, struct scratch *scratch, struct name *from, struct name *to, __u32 owner)
{
	struct classes *below = &scratch->below;
	__u32 permission = lost_permission(classes_mask(scope, &from->classes), classes_mask(scope, &to->classes), owner & 1);

	if (permission < PERMISSIONS)
		return decide(scope, scratch, &from->classes, 1u << permission, owner);
	if (!from->directory || (from->view_state == to->view_state && from->home_state == to->home_state))
		return 0;
	/* The same state behind both names means the same rules for all below; otherwise nothing below may be blocked. */
	below->view = below->linked = from->view_below;
	below->home = from->home_below;
	permission = lost_permission(classes_mask(scope, below), 0, 0);
	return permission < PERMISSIONS ? decide(scope, scratch, below, 1u << permission, 0) : 0;
}

static __always_inline bool within_rate(__u32 domain, __u32 rule, __u32 per_second)
{
	struct rate_key key = { .domain = domain, .rule = rule };
	struct rate first = { .second = bpf_ktime_get_boot_ns() / 1000000000, .count = 1 };
	struct rate *rate;

	if (!per_second)
		return true;
	rate = bpf_map_lookup_elem(&rates, &key);
	if (!rate) {
		bpf_map_update_elem(&rates, &key, &first, BPF_ANY);
		return true;
	}
	if (rate->second != first.second) {
		rate->second = first.second;
		rate->count = 1;
		return true;
	}
	return __sync_fetch_and_add(&rate->count, 1) < per_second;
}

/* Appends the path that ends in scratch to the event's strings; returns its length. */
static __always_inline __u32 append_path(struct scratch *scratch, __u32 offset, __u32 start)
{
	__u32 length;

	if (start > PATH_CAPACITY)
		return 0;
	length = PATH_CAPACITY - start;
	/* Or clang looks at one copy of it and uses another, which 6.1 does not connect with it. */
	asm volatile("" : "+r"(offset));
	if (offset > EVENT_STRINGS - PATH_CAPACITY || length > PATH_CAPACITY)
		return 0;
	if (bpf_probe_read_kernel(&scratch->event.strings[offset], length, &scratch->path[start]))
		return 0;
	return length;
}

/* A thread of the kernel has no program: its name as ps(1) writes it, [kworker/0:1]. */
static __always_inline __u32 append_comm(struct scratch *scratch, __u32 offset, struct task_struct *task)
{
	char *name = &scratch->path[PATH_CAPACITY];
	long length;

	if (!(FIELD(task_struct, task, flags) & PF_KTHREAD))
		return 0;
	name[0] = '[';
	length = bpf_probe_read_kernel_str(name + 1, 16, &task->comm);
	if (length < 2 || length > 16)
		return 0;
	name[length & 31] = ']';
	asm volatile("" : "+r"(offset)); /* as in append_path() */
	if (offset > EVENT_STRINGS - PATH_CAPACITY || bpf_probe_read_kernel(&scratch->event.strings[offset], length + 1, name))
		return 0;
	return length + 1;
}

static __always_inline __u32 append_program(struct scratch *scratch, __u32 offset, struct task_struct *task)
{
	struct file *exe = BPF_CORE_READ(task, mm, exe_file);
	struct vfsmount *mnt = BPF_CORE_READ(exe, f_path.mnt);

	if (!mnt)
		return append_comm(scratch, offset, task);
	return append_path(scratch, offset, write_view(scratch, (__u64)BPF_CORE_READ(exe, f_path.dentry), (__u64)mnt, 0));
}

/* What an access is about that has no path of its own: another process, or an object of the kernel's. */
static __always_inline __u32 append_object(struct scratch *scratch, struct access *access)
{
	long length;

	if (access->other)
		return append_program(scratch, 0, (void *)access->other);
	length = bpf_probe_read_kernel_str(scratch->event.strings, OBJECT_NAME, access->object);
	return length > 1 && length <= OBJECT_NAME ? length - 1 : 0;
}

/* Appends the id of the container that the task is in. */
static __always_inline __u32 append_container(struct scratch *scratch, __u32 offset, struct task_struct *task)
{
	if (offset > EVENT_STRINGS - CONTAINER_ID_BYTES || domain_of_container(scratch, task) == HOST_DOMAIN ||
	    bpf_probe_read_kernel(&scratch->event.strings[offset], CONTAINER_ID_BYTES, &scratch->outermost))
		return 0;
	return CONTAINER_ID_BYTES;
}

static __always_inline __u32 process_number(struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, group_leader, thread_pid);
	__u32 level = BPF_CORE_READ(pid, level);
	struct upid *numbers = (void *)pid + bpf_core_field_offset(struct pid, numbers);
	int number = 0;

	if (level > 32)
		return 0;
	bpf_core_read(&number, sizeof(number), &numbers[level].nr);
	return number;
}

static __always_inline __u32 append_name(struct scratch *scratch, __u32 offset, struct name *name)
{
	__u32 length = append_path(scratch, offset, write_view(scratch, name->dentry, name->mnt, name->directory));

	/* Without a place in a mount tree, the name inside its filesystem says more than none. */
	return length ?: append_path(scratch, offset, write_inside(scratch, name->dentry, name->mnt, name->directory));
}

/* Writes the event about scratch->access and returns the length of its strings. Global, as write_path(). */
__noinline __u32 write_event(struct scratch *scratch)
{
	struct task_struct *task, *parent;
	struct access *access;
	struct event *event;
	__u32 length = 0;

	if (!scratch)
		return 0;
	access = &scratch->access;
	event = &scratch->event;
	task = (void *)access->task;
	parent = BPF_CORE_READ(task, real_parent);

	event->time = bpf_ktime_get_boot_ns();
	event->cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
	event->generation = access->generation;
	event->domain = access->domain;
	event->decision = access->decision;
	event->pid = BPF_CORE_READ(task, pid);
	event->tgid = BPF_CORE_READ(task, tgid);
	event->parent_tgid = BPF_CORE_READ(parent, tgid);
	event->ns_pid = process_number(task);
	event->ns_parent = process_number(parent);
	event->uid = BPF_CORE_READ(task, cred, uid.val);
	event->hook = access->hook;
	event->permission = access->permission;
	event->about_new_path = access->about_new;
	bpf_core_read(&event->comm, sizeof(event->comm), &task->comm);

	event->path_length = access->other || access->object[0] ? append_object(scratch, access)
								: append_name(scratch, 0, &access->name);
	length += event->path_length;
	event->new_path_length = 0;
	if (access->new_name.dentry) {
		event->new_path_length = append_name(scratch, length, &access->new_name);
		length += event->new_path_length;
	}
	event->program_length = append_program(scratch, length, task);
	length += event->program_length;
	event->parent_program_length = append_program(scratch, length, parent);
	length += event->parent_program_length;
	event->container_length = 0;
	if (access->domain == STRANGERS_DOMAIN) {
		event->container_length = append_container(scratch, length, task);
		length += event->container_length;
	}
	return length;
}

/*
 * Counts the decision in scratch->access and, within the rule's rate, puts it into the ring. Whether that works changes
 * nothing decided. Global, as write_event().
 */
__noinline int tell(struct scratch *scratch)
{
	struct access *access;
	__u32 length;

	if (!scratch)
		return 0;
	access = &scratch->access;
	count(blocks(access->decision) ? COUNT_BLOCKED : COUNT_AUDITED);
	if (!within_rate(access->domain, access->decision & RULE_MASK, access->alerts_per_second)) {
		count(COUNT_SUPPRESSED);
		return 0;
	}
	length = write_event(scratch);
	if (length > EVENT_STRINGS)
		return 0;
	if (bpf_ringbuf_output(&events, &scratch->event, __builtin_offsetof(struct event, strings) + length, 0))
		count(COUNT_DROPPED);
	else
		count(COUNT_REPORTED);
	return 0;
}

static __always_inline void note_decision(const struct scope *scope, struct access *access, __u32 decision)
{
	access->decision = decision;
	access->generation = scope->rules->generation;
	access->domain = scope->domain;
	access->alerts_per_second = scope->rules->alerts_per_second;
}

/* Tells of a decision that is to be told of; returns what the hook returns. */
static __always_inline int conclude(const struct scope *scope, struct scratch *scratch, __u32 decision)
{
	if (!(decision >> VERDICT_SHIFT))
		return 0;
	note_decision(scope, &scratch->access, decision);
	tell(scratch);
	return blocks(decision) ? -EACCES : 0;
}

/* 1 where the task's filesystem uid owns the file; a name that is being made belongs to who makes it. */
static __always_inline __u32 owns(struct task_struct *task, struct inode *inode)
{
	return !inode || FIELD(inode, inode, i_uid.val) == FIELD(cred, ADDRESS(task_struct, task, cred), fsuid.val);
}

/* Sets a name. Its addresses go through memory: the verifier then takes them for plain numbers. */
static __always_inline void set_name(struct name *name, struct dentry *dentry, struct vfsmount *mnt, __u32 mode, __u32 links)
{
	name->dentry = (__u64)dentry;
	name->mnt = (__u64)mnt;
	name->directory = (mode & S_IFMT) == S_IFDIR;
	name->several = !name->directory && links > 1;
	name->folder.known = 0;
	name->folder.view_state = NO_STATE;
}

/*
 * The same for a name that may have no inode. 6.12 takes d_inode for never 0 and would load from it unguarded, so it must
 * not be followed as the type that it has.
 */
static __always_inline void set_dentry(struct name *name, struct dentry *dentry, struct vfsmount *mnt)
{
	struct inode *inode = ADDRESS(dentry, dentry, d_inode);

	set_name(name, dentry, mnt, FIELD(inode, inode, i_mode), FIELD(inode, inode, __i_nlink));
}

/* Sets what the alert will be about, but its first name. */
static __always_inline void begin(struct scratch *scratch, struct task_struct *task, __u32 hook)
{
	struct access *access = &scratch->access;

	access->task = (__u64)PLAIN(task);
	access->hook = hook;
	access->other = 0;
	access->object[0] = 0;
	access->new_name.dentry = 0;
	access->about_new = 0;
}

/* Decides on one name and tells. */
static __noinline int check_name(struct scope *scope, struct scratch *scratch, struct name *name, __u32 permissions)
{
	struct dentry *dentry = (void *)name->dentry;
	struct inode *inode = ADDRESS(dentry, dentry, d_inode);

	if (!resolve(scope, scratch, name) || silently_allowed(scope, &name->classes, permissions))
		return 0;
	return conclude(scope, scratch, decide(scope, scratch, &name->classes, permissions, owns(bpf_get_current_task_btf(), inode)));
}

/* The check of every hook that gets a name; `making_directory` for mkdir, whose inode is still to come. */
static __noinline int check_path(struct dentry *dentry, struct vfsmount *mnt, __u32 hook, __u32 permissions, bool making_directory)
{
	struct scratch *scratch;
	struct scope scope;
	__u32 slot;
	int verdict;

	if (!enter_scope(&scope, bpf_get_current_task_btf()))
		return 0;
	slot = claim_scratch();
	scratch = scratch_at(slot);
	if (!scratch)
		return refuse_without_scratch();
	begin(scratch, bpf_get_current_task_btf(), hook);
	set_dentry(&scratch->access.name, dentry, mnt);
	if (making_directory)
		scratch->access.name.directory = 1;
	find_subject(&scope, scratch);
	verdict = check_name(&scope, scratch, &scratch->access.name, permissions);
	release_scratch(slot);
	return verdict;
}

#define FOUR(a, b, c, d) ((__u32)(a) | (b) << 8 | (c) << 16 | (d) << 24)

static __always_inline bool names_runtime(__u32 four)
{
	return four == FOUR('r', 'u', 'n', 'c') || four == FOUR('c', 'r', 'u', 'n');
}

/*
 * Whether root runs a program that is called as those are which start containers, or a memfd that is: on the host only root
 * chooses such names for root.
 */
static __always_inline bool is_runtime(struct task_struct *task)
{
	const struct cred *cred = ADDRESS(task_struct, task, cred);
	struct file *exe = ADDRESS(mm_struct, ADDRESS(task_struct, task, mm), exe_file);
	struct dentry *dentry = ADDRESS(file, exe, f_path.dentry);
	__u32 name[3] = {};
	long length = bpf_probe_read_kernel_str(name, sizeof(name), ADDRESS(dentry, dentry, d_name.name));

	if (FIELD(cred, cred, uid.val) || FIELD(cred, cred, fsuid.val))
		return false;
	if (length == 5)
		return names_runtime(name[0]);
	return name[0] == FOUR('m', 'e', 'm', 'f') && (__u16)name[1] == (__u16)FOUR('d', ':', 0, 0) &&
	       names_runtime(name[1] >> 16 | name[2] << 16);
}

static __always_inline bool has_no_path(const struct classes *classes)
{
	return classes->view == OBJECT_ANONYMOUS || classes->view == OBJECT_UNRESOLVED;
}

/*
 * Container runtimes start a copy of themselves that no container can write to: a memfd, or a file of an overlay that is mounted
 * nowhere. Refused, no container would start, the agent's own among them. So on the host, outside of every container, root is not
 * refused to start what has no path: it is told of, unless a runtime does it.
 */
static __noinline __u32 spare_hosts_root(const struct scope *scope, struct task_struct *task, __u32 decision)
{
	const struct cred *cred = ADDRESS(task_struct, task, cred);

	if (scope->domain != HOST_DOMAIN || FIELD(cred, cred, uid.val) || FIELD(cred, cred, fsuid.val) ||
	    mount_namespace_of(task) != host_mount_namespace())
		return decision;
	if (is_runtime(task))
		return 0;
	return VERDICT_AUDIT << VERDICT_SHIFT | (decision & RULE_MASK);
}

/* The check of every hook that gets an open file: the only one that asks the cache. */
static __noinline int check_file(struct file *file, __u32 hook, __u32 permissions)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct inode *inode = file->f_inode;
	struct classes classes = {};
	struct scratch *scratch;
	struct epochs before;
	struct vfsmount *mnt;
	struct scope scope;
	bool known, subject_known;
	__u32 slot, decision;
	int verdict = 0;

	if (!permissions || !enter_scope(&scope, task))
		return 0;
	permissions = PLAIN(permissions);
	mnt = PLAIN(file->f_path.mnt);
	/* 6.1's second open below an overlay: the overlay's path with the layer's inode. */
	if (!inode || file->f_path.dentry->d_inode != inode)
		return 0;
	before = read_epochs();
	known = cached(&scope, bpf_inode_storage_get(&inodes, inode, 0, 0), mnt, before, &classes);
	subject_known = !(scope.rules->flags & DOMAIN_SUBJECTS);
	if (scope.label && scope.label->generation == scope.rules->generation) {
		scope.subject = scope.label->subject;
		subject_known = true;
	}
	if (known && subject_known && silently_allowed(&scope, &classes, permissions))
		return 0;
	slot = claim_scratch();
	scratch = scratch_at(slot);
	if (!scratch)
		return refuse_without_scratch();
	begin(scratch, task, hook);
	set_name(&scratch->access.name, file->f_path.dentry, mnt, inode->i_mode, inode->__i_nlink);
	if (!subject_known)
		find_subject(&scope, scratch);
	if (!known) {
		struct name *name = &scratch->access.name;
		struct dentry *dentry = file->f_path.dentry;
		/* A mount's root has its name elsewhere. */
		__u64 folder = PLAIN(dentry) == PLAIN(file->f_path.mnt->mnt_root) ? 0 : (__u64)PLAIN(dentry->d_parent->d_inode);

		if (folder)
			recall_folder(&scope, folder, mnt, before, &name->folder);
		if (!resolve(&scope, scratch, name))
			goto out;
		if (settled(before)) {
			remember(&scope, inode, mnt, before, name);
			if (folder)
				remember_folder(&scope, folder, mnt, before, name);
		}
		classes = name->classes;
	}
	if (silently_allowed(&scope, &classes, permissions))
		goto out;
	scratch->access.name.classes = classes;
	decision = decide(&scope, scratch, &scratch->access.name.classes, permissions, owns(task, inode));
	if (hook == BPRM_CHECK_SECURITY && blocks(decision) && has_no_path(&classes))
		decision = spare_hosts_root(&scope, task, decision);
	/* The name of a file made by this open was told of when it was made. */
	if (hook == FILE_OPEN && !blocks(decision) && file->f_mode & FMODE_CREATED)
		goto out;
	verdict = conclude(&scope, scratch, decision);
out:
	release_scratch(slot);
	return verdict;
}

/*
 * The check of what gives an object another name: the new name, the old one where it is taken away, and that the new one
 * permits nothing that the old one refuses. An exchange does both ways.
 */
static __noinline int check_new_name(struct scratch *scratch, struct scope *scope, bool moves, bool exchanges)
{
	struct access *access = &scratch->access;
	struct dentry *dentry = (void *)access->name.dentry;
	__u32 decision;
	int verdict;

	verdict = check_name(scope, scratch, &access->name, moves ? 1u << WRITE : 0);
	if (verdict)
		return verdict;
	access->about_new = 1;
	verdict = check_name(scope, scratch, &access->new_name, 1u << WRITE);
	if (verdict)
		return verdict;
	access->about_new = 0;
	if (access->name.classes.linked != access->name.classes.view)
		access->new_name.classes.linked = access->name.classes.linked;
	decision = loosened(scope, scratch, &access->name, &access->new_name, owns(bpf_get_current_task_btf(), ADDRESS(dentry, dentry, d_inode)));
	if (!decision && exchanges) {
		access->about_new = 1;
		decision = loosened(scope, scratch, &access->new_name, &access->name, 0);
	}
	access->permission = WRITE;
	return conclude(scope, scratch, decision);
}

static __always_inline int check_two(struct dentry *dentry, struct vfsmount *mnt, struct dentry *new_dentry,
				     struct vfsmount *new_mnt, __u32 hook, bool exchanges)
{
	struct scratch *scratch;
	struct scope scope;
	__u32 slot;
	int verdict;

	if (!enter_scope(&scope, bpf_get_current_task_btf()))
		return 0;
	slot = claim_scratch();
	scratch = scratch_at(slot);
	if (!scratch)
		return refuse_without_scratch();
	begin(scratch, bpf_get_current_task_btf(), hook);
	set_dentry(&scratch->access.name, dentry, mnt);
	set_dentry(&scratch->access.new_name, new_dentry, new_mnt);
	if (!exchanges)
		scratch->access.new_name.directory = scratch->access.name.directory;
	find_subject(&scope, scratch);
	verdict = check_new_name(scratch, &scope, hook == PATH_RENAME, exchanges);
	release_scratch(slot);
	return verdict;
}

#endif
