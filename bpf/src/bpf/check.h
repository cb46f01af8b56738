/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* From an object to its classes, from classes to a decision, and from a decision to an alert. */
#ifndef ARMOR_CHECK_H
#define ARMOR_CHECK_H

#include "cache.h"
#include "container.h"

/* Gives an object without a name in a mount tree one of the reserved classes. */
static __always_inline void set_all(struct name *name, __u32 class)
{
	set_class(&name->classes, class);
	set_class(&name->below, class);
	name->names = 1;
	name->states[0] = NO_STATE;
	name->first_canonical = NO_CLASS;
	name->shown_by = 0;
}

/* Adds to `to` the class of the rules' name for a file that has several names, as the agent found it. */
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

static __always_inline bool is_device(__u32 mode)
{
	return (mode & S_IFMT) == S_IFCHR || (mode & S_IFMT) == S_IFBLK;
}

/*
 * Adds the class that rules give to a device by the name of one of its nodes: it holds for the number, whatever a node of it is
 * called.
 */
static __noinline void add_device_class(const struct scope *scope, struct name *name)
{
	struct inode *inode = ADDRESS(dentry, name->dentry, d_inode);
	struct linked_key key = {
		.generation = scope->rules->generation,
		.domain = scope->domain,
		.inode = FIELD(inode, inode, i_rdev),
		.device = (FIELD(inode, inode, i_mode) & S_IFMT) == S_IFBLK ? DEVICE_BLOCK : DEVICE_CHARACTER,
	};
	__u32 *class = is_null_device(name->dentry) ? 0 : bpf_map_lookup_elem(&linked_files, &key);

	if (class)
		add_class(&name->classes, *class);
}

/* Fills in what `name` resolves to; false when nothing is to be decided: it has no name that counts. */
static __noinline bool resolve(struct scope *scope, struct scratch *scratch, struct name *name)
{
	__u64 magic = FIELD(super_block, ADDRESS(dentry, name->dentry, d_sb), s_magic);
	__u32 place = name->mnt ? place_of(mount_of((void *)name->mnt)) : PLACE_BACKING;
	bool only_canonical;

	/* The mount that queues are opened in is nobody's, and marked as the kernel's own by later kernels alone. */
	if (place == PLACE_DETACHED && magic == MQUEUE_MAGIC)
		place = PLACE_ANONYMOUS;
	/* Of what is in no mount tree only the kernel's own files can have a name in one. */
	only_canonical = place == PLACE_BACKING || (place == PLACE_ANONYMOUS && is_the_kernels(magic));
	name->place = place;
	if (place == PLACE_BACKING && name->mnt)
		name->is_layer = 1;
	if (only_canonical)
		name->mnt = 0;
	if (!is_named(place) && !only_canonical) {
		set_all(name, place == PLACE_ANONYMOUS ? OBJECT_ANONYMOUS : OBJECT_UNRESOLVED);
	} else if (!find_names(scope, scratch, name, false)) {
		set_all(name, OBJECT_UNRESOLVED);
	} else {
		if (name->several)
			add_linked_class(scope, name, name);
		if (name->device)
			add_device_class(scope, name);
		if (!name->classes.count) {
			if (place != PLACE_ANONYMOUS)
				return false;
			set_all(name, OBJECT_ANONYMOUS);
		}
	}
	if (name->classes.of[0] == OBJECT_UNRESOLVED || scratch->shown.count > SHOWN_MOUNTS)
		count(COUNT_UNRESOLVED);
	return true;
}

static __always_inline __u64 *cell_of(const struct scope *scope, __u32 subject, __u32 class)
{
	return word(scope->image, scope->rules->cells + subject * scope->rules->object_count + class);
}

static __always_inline __u32 cell_mask(const struct scope *scope, __u32 subject, __u32 class)
{
	__u64 *cell = subject == SUBJECT_CONFLICT ? 0 : cell_of(scope, subject, class);

	return cell ? *cell >> 32 : ~0u;
}

/* A cell's high half: what of all decisions over objects of a class is not a silent allow, and what is a refusal. */
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

/* The masks of all classes but the first. */
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

/* Whether nothing is refused and nothing is to be told of, whoever owns the object: most accesses end here. */
static __always_inline bool silently_allowed(const struct scope *scope, const struct classes *classes, __u32 permissions)
{
	__u32 asked = (permissions & 1) * 3 | (permissions & 2) * 6 | (permissions & 4) * 12 | (permissions & 8) * 24;

	return !(classes_mask(scope, classes) & asked);
}

static __always_inline __u32 class_decision(const struct scope *scope, __u32 subject, __u32 class, __u32 permission, __u32 owner)
{
	__u64 *cell = subject == SUBJECT_CONFLICT ? 0 : cell_of(scope, subject, class), *decisions = 0;

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

/* One permission for one of the subjects under one class: a step each, so that the verifier goes through a decision once. */
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
	bpf_loop(PERMISSIONS * 16, choose_step, &choice, 0);
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

/* Whether two names of a directory lead to the same states: then the same rules apply to all below. */
__noinline int same_states(struct name *one, struct name *other)
{
	if (!one || !other || one->names != other->names || one->names > NAME_STATES)
		return false;
	for (__u32 at = 0; at < NAME_STATES; at++)
		if (at < one->names && one->states[at] != other->states[at])
			return false;
	return true;
}

/* The decision that another name would take away, else 0: what `from` blocks, `to` must block too. */
static __noinline __u32 loosened(struct scope *scope, struct scratch *scratch, struct name *from, struct name *to, __u32 owner)
{
	__u32 permission = lost_permission(classes_mask(scope, &from->classes), classes_mask(scope, &to->classes), owner & 1);

	if (permission < PERMISSIONS)
		return decide(scope, scratch, &from->classes, 1u << permission, owner);
	if (!from->directory || same_states(from, to))
		return 0;
	/* Otherwise nothing below may be blocked. */
	permission = lost_permission(classes_mask(scope, &from->below), 0, 0);
	return permission < PERMISSIONS ? decide(scope, scratch, &from->below, 1u << permission, 0) : 0;
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
	return append_path(scratch, offset, write_path(scratch, (__u64)BPF_CORE_READ(exe, f_path.dentry), (__u64)mnt, 0));
}

/* What an access is about that has no path of its own: another process, or an object of the kernel's. */
static __noinline __u32 append_object(struct scratch *scratch, struct access *access)
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
	__u64 mnt = name->mnt ?: name->shown_by;
	__u32 length = append_path(scratch, offset, write_path(scratch, name->dentry, mnt, name->directory));

	/* Without a place in a mount tree, the name inside its filesystem says more than none. */
	return length ?: append_path(scratch, offset, write_path(scratch, name->dentry, 0, name->directory));
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
	name->device = is_device(mode);
	name->layer = 0;
	name->is_layer = 0;
	name->folder.known = 0;
	name->folder.mount_state = NO_STATE;
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

/*
 * Whether a filesystem acts for the task in another one, with credentials of its own, as an overlay does in its layers: what the
 * task does has been decided on, and what no rule names in the other is not judged a second time.
 */
static __always_inline bool is_acted_for(struct task_struct *task)
{
	return PLAIN(task->cred) != PLAIN(task->real_cred);
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
	scratch->access.name.is_layer = !mnt && is_acted_for(bpf_get_current_task_btf());
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
	return classes->of[0] == OBJECT_ANONYMOUS || classes->of[0] == OBJECT_UNRESOLVED;
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

/* The dentry of a file that was opened in a layer. Before 6.5 such a file has the path of the overlay, with the layer's inode. */
static __always_inline __u64 layer_dentry(__u64 file)
{
	struct dentry *dentry = ADDRESS(file, file, f_path.dentry);
	struct inode *inode = ADDRESS(file, file, f_inode);
	struct hlist_node *alias;

	if (ADDRESS(dentry, dentry, d_inode) == inode || !bpf_core_field_exists(((struct dentry *)0)->d_u))
		return (__u64)dentry;
	alias = ADDRESS(inode, inode, i_dentry.first);
	return alias ? (__u64)alias - bpf_core_field_offset(struct dentry, d_u.d_alias) : 0;
}

/*
 * The dentry in the layer that an open file of an overlay is in: 0 where there is none. An overlay keeps the layer's file in its own,
 * since 6.13 in a structure that begins with it (fs/overlayfs/file.c). Global, as write_path().
 */
__noinline __u64 layer_of(__u64 file)
{
	struct dentry *dentry = ADDRESS(file, file, f_path.dentry);
	__u64 inner;

	if (FIELD(super_block, ADDRESS(dentry, dentry, d_sb), s_magic) != OVERLAYFS_SUPER_MAGIC)
		return 0;
	inner = (__u64)ADDRESS(file, file, private_data);
	if (inner && bpf_core_type_exists(struct backing_file) &&
	    place_of(mount_of(ADDRESS(file, inner, f_path.mnt))) != PLACE_BACKING &&
	    bpf_probe_read_kernel(&inner, sizeof(inner), (void *)inner))
		return 0;
	return inner ? layer_dentry(inner) : 0;
}

static __always_inline void set_layer(struct name *name, __u64 file)
{
	struct inode *inode = ADDRESS(file, file, f_inode);

	set_name(name, (struct dentry *)layer_dentry(file), 0, FIELD(inode, inode, i_mode), FIELD(inode, inode, __i_nlink));
	name->is_layer = 1;
}

/*
 * The check of a mapping whose rights change. Of an overlay's file the layer's is mapped, which knows the overlay's path, and
 * the names of both count.
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
	__u32 slot;
	int verdict = 0;

	if (!enter_scope(&scope, bpf_get_current_task_btf()))
		return 0;
	if (bpf_core_type_exists(struct backing_file) && place_of(mount_of(mnt)) == PLACE_BACKING) {
		layer = (__u64)dentry;
		dentry = ADDRESS(backing_file, file, user_path.dentry);
		mnt = ADDRESS(backing_file, file, user_path.mnt);
	}
	slot = claim_scratch();
	scratch = scratch_at(slot);
	if (!scratch)
		return refuse_without_scratch();
	begin(scratch, bpf_get_current_task_btf(), FILE_MPROTECT);
	name = &scratch->access.name;
	set_dentry(name, dentry, mnt);
	name->layer = layer;
	find_subject(&scope, scratch);
	if (resolve(&scope, scratch, name) && !silently_allowed(&scope, &name->classes, permissions))
		verdict = conclude(&scope, scratch,
				   decide(&scope, scratch, &name->classes, permissions, owns(bpf_get_current_task_btf(), inode)));
	release_scratch(slot);
	return verdict;
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
	__u32 slot, decision, below = hook != FILE_OPEN;
	int verdict = 0;
	bool known;

	if (!permissions || !enter_scope(&scope, task) || !inode)
		return 0;
	if (!find_known_subject(&scope)) {
		slot = claim_scratch();
		scratch = scratch_at(slot);
		if (!scratch)
			return refuse_without_scratch();
		find_subject(&scope, scratch);
		release_scratch(slot);
	}
	permissions = PLAIN(permissions);
	mnt = PLAIN(file->f_path.mnt);
	before = read_epochs();
	known = cached(&scope, bpf_inode_storage_get(&inodes, inode, 0, 0), mnt, before, below, &classes);
	if (known && classes.of[0] == CLASS_UNNAMED)
		return 0;
	if (known && silently_allowed(&scope, &classes, permissions))
		return 0;
	slot = claim_scratch();
	scratch = scratch_at(slot);
	if (!scratch)
		return refuse_without_scratch();
	begin(scratch, task, hook);
	set_name(&scratch->access.name, file->f_path.dentry, mnt, inode->i_mode, inode->__i_nlink);
	if (!known) {
		struct name *name = &scratch->access.name;
		struct dentry *dentry = file->f_path.dentry;
		__u64 folder;

		/* A mount's root has its name elsewhere. */
		scratch->folder = PLAIN(dentry) == PLAIN(file->f_path.mnt->mnt_root) ? 0 : (__u64)PLAIN(dentry->d_parent->d_inode);
		if (PLAIN(dentry->d_inode) != PLAIN(inode)) {
			scratch->folder = 0;
			set_layer(name, (__u64)PLAIN(file));
		}
		if (below)
			name->layer = layer_of((__u64)PLAIN(file));
		folder = scratch->folder;
		if (folder)
			recall_folder(&scope, folder, mnt, before, &name->folder);
		if (!resolve(&scope, scratch, name)) {
			if (name->is_layer && settled(before))
				remember_unnamed(&scope, inode, mnt, before);
			goto out;
		}
		if (settled(before)) {
			remember(&scope, inode, mnt, before, below, name);
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

struct two_names {
	struct scope *scope;
	struct scratch *scratch;
};

/* One of the two names of access: what is decided about it. The names change places, so that the verifier follows one alone. */
static long two_names_step(__u32 which, struct two_names *names)
{
	struct scratch *scratch = names->scratch;
	struct access *access = &scratch->access;
	struct inode *inode = ADDRESS(dentry, access->name.dentry, d_inode);
	__u32 permissions = which & 1 ? 1u << WRITE : scratch->old_permissions;

	if (resolve(names->scope, scratch, &access->name) && !silently_allowed(names->scope, &access->name.classes, permissions))
		scratch->decided[which & 1] = decide(names->scope, scratch, &access->name.classes, permissions,
						     owns(bpf_get_current_task_btf(), inode));
	scratch->swapped = access->name;
	access->name = access->new_name;
	access->new_name = scratch->swapped;
	return 0;
}

/*
 * The check of what gives an object another name: the new name, the old one where it is taken away, and that the new one
 * permits nothing that the old one refuses. An exchange does both ways.
 */
static __noinline int check_new_name(struct scratch *scratch, struct scope *scope)
{
	struct two_names names = { .scope = scope, .scratch = scratch };
	struct access *access = &scratch->access;
	__u32 decision;
	int verdict;

	scratch->decided[0] = scratch->decided[1] = 0;
	bpf_loop(2, two_names_step, &names, 0);
	access->permission = WRITE;
	verdict = conclude(scope, scratch, scratch->decided[0]);
	if (verdict)
		return verdict;
	access->about_new = 1;
	verdict = conclude(scope, scratch, scratch->decided[1]);
	if (verdict)
		return verdict;
	access->about_new = 0;
	/* It stays the file that rules know by another of its names. */
	if (access->name.several)
		add_linked_class(scope, &access->name, &access->new_name);
	decision = loosened(scope, scratch, &access->name, &access->new_name,
			    owns(bpf_get_current_task_btf(), ADDRESS(dentry, access->name.dentry, d_inode)));
	if (!decision && scratch->exchanges) {
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
	scratch->access.name.is_layer = scratch->access.new_name.is_layer = !mnt;
	if (!exchanges)
		scratch->access.new_name.directory = scratch->access.name.directory;
	find_subject(&scope, scratch);
	scratch->old_permissions = hook == PATH_RENAME || hook == INODE_RENAME ? 1u << WRITE : 0;
	scratch->exchanges = exchanges;
	verdict = check_new_name(scratch, &scope);
	release_scratch(slot);
	return verdict;
}

#endif
