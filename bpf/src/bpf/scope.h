/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Whose rules the current task is under, and what class its program is. */
#ifndef ARMOR_SCOPE_H
#define ARMOR_SCOPE_H

#include "path.h"

struct scope {
	void *image;
	struct label *label;
	__u32 domain;
	__u32 flags;
	__u32 object_count;
	__u32 objects, objects_start;
	__u32 subjects, subjects_start;
	__u32 cells, vectors;
	__u32 mount_namespace;
	__u32 generation;
	__u32 alerts_per_second;
	__u32 subject;
};

/* False when the current task is under no rules. */
static __always_inline bool enter_scope(struct scope *scope)
{
	__u32 key = 0;
	__u64 *words;
	__u32 first;

	scope->image = bpf_map_lookup_elem(&live, &key);
	if (!scope->image)
		return false;
	scope->label = bpf_task_storage_get(&labels, bpf_get_current_task_btf(), 0, 0);
	scope->domain = scope->label ? scope->label->domain : HOST_DOMAIN;
	if (scope->domain > (1u << 20))
		return false;
	first = scope->domain * IMAGE_DOMAIN_WORDS;
	words = word(scope->image, first);
	if (!words || !((__u32)*words & DOMAIN_RULED))
		return false;
	scope->flags = *words;
	scope->object_count = *words >> 32;
#define TAKE(index, low, high)                         \
	words = word(scope->image, first + (index));   \
	if (!words)                                    \
		return false;                          \
	low = *words;                                  \
	high = *words >> 32
	TAKE(1, scope->objects, scope->objects_start);
	TAKE(2, scope->subjects, scope->subjects_start);
	TAKE(3, scope->cells, scope->vectors);
	TAKE(4, scope->mount_namespace, scope->generation);
	words = word(scope->image, first + 5);
	scope->alerts_per_second = words ? (__u32)*words : 0;
#undef TAKE
	scope->subject = SUBJECT_NONE;
	return true;
}

enum place {
	PLACE_NAMED,	 /* in a mount tree */
	PLACE_BACKING,	 /* the layer below an overlay, opened by the kernel: its overlay was already decided on */
	PLACE_ANONYMOUS, /* memfd, pipe, socket: no path by nature */
	PLACE_DETACHED,	 /* in no mount tree that a task is in */
};

static __noinline enum place place_of(struct mount *mount)
{
	struct mnt_namespace *ns = BPF_CORE_READ(mount, mnt_ns);
	__u32 number;

	if ((unsigned long)ns >= ERR_PTR_FIRST) { /* MNT_NS_INTERNAL, fs/mount.h */
		unsigned long flags = BPF_CORE_READ(mount, mnt.mnt_sb, s_flags);

		return flags & SB_KERNMOUNT ? PLACE_ANONYMOUS : PLACE_BACKING;
	}
	if (!ns)
		return PLACE_DETACHED;
	number = BPF_CORE_READ(ns, ns.inum);
	return number && number != MNT_NS_ANON_INO ? PLACE_NAMED : PLACE_DETACHED;
}

/*
 * How many names count for an object. Bind mounts and private mount namespaces show a file under names that an attacker
 * can choose, so beside the name in the mount tree stands the one where the domain's own root shows the file's
 * filesystem. The stricter decision holds. A filesystem that only a foreign mount namespace shows gains nothing from its
 * name there: the second "name" is then the absence of any rule.
 */
enum second_name { SECOND_SAME, SECOND_HOME, SECOND_NONE };

static __noinline enum second_name second_name(const struct scope *scope, struct mount *mount, struct home **home)
{
	struct home_key key = {
		.generation = scope->generation,
		.domain = scope->domain,
		.device = BPF_CORE_READ(mount, mnt.mnt_sb, s_dev),
	};

	*home = bpf_map_lookup_elem(&homes, &key);
	if (*home)
		return (*home)->mount_id == BPF_CORE_READ(mount, mnt_id) ? SECOND_SAME : SECOND_HOME;
	if (scope->mount_namespace && BPF_CORE_READ(mount, mnt_ns, ns.inum) != scope->mount_namespace)
		return SECOND_NONE;
	return SECOND_SAME;
}

/* The class in a state's record; 0 when there is none. */
static __always_inline __u32 classes_at(void *image, __u32 slots, __u32 state)
{
	__u64 *record = word(image, slots + state);

	return record ? *record >> 32 : 0;
}

/* Not a class: renames kept the program's path from being told, so ask again next time. */
#define SUBJECT_TORN (1u << 16)
/* Tries before a path that renames keep tearing counts as one that cannot be told. */
#define WALK_TRIES 3

struct naming {
	struct scope *scope;
	struct scratch *scratch;
	__u64 dentry, mnt;
	__u32 subject;
};

static long subject_step(__u32 try, struct naming *naming)
{
	struct scratch *scratch = naming->scratch;
	struct scope *scope = naming->scope;
	struct epochs before = read_epochs();
	struct home *home = 0;
	enum second_name second = second_name(scope, mount_of((void *)naming->mnt), &home);
	__u32 start, state = scope->subjects_start;

	if (second == SECOND_HOME && home) {
		start = write_inside(scratch, naming->dentry, naming->mnt, 0);
		state = home->subjects_state;
	} else {
		start = write_view(scratch, naming->dentry, naming->mnt, 0);
	}
	if (!settled(before))
		return 0;
	state = scan_path(scope->image, scratch, scope->subjects, state, start);
	naming->subject = SUBJECT_NONE;
	if (second != SECOND_NONE && state != NO_STATE)
		naming->subject = classes_at(scope->image, scope->subjects, state) & 0xffff;
	return 1;
}

/* The class of the program in `exe`: what grants rights by fromSource, so only a name that nobody can choose counts. */
static __noinline __u32 subject_of(struct scope *scope, struct scratch *scratch, struct file *exe)
{
	struct naming naming = {
		.scope = scope,
		.scratch = scratch,
		.dentry = (__u64)BPF_CORE_READ(exe, f_path.dentry),
		.mnt = (__u64)BPF_CORE_READ(exe, f_path.mnt),
		.subject = SUBJECT_TORN,
	};

	if (!naming.mnt || place_of(mount_of((void *)naming.mnt)) != PLACE_NAMED)
		return SUBJECT_NONE;
	bpf_loop(WALK_TRIES, subject_step, &naming, 0);
	return naming.subject;
}

/* Sets scope->subject, from the label where it was computed for this generation. */
static __always_inline void find_subject(struct scope *scope, struct scratch *scratch)
{
	struct task_struct *task;
	struct file *exe;

	if (!(scope->flags & DOMAIN_SUBJECTS))
		return;
	if (scope->label && scope->label->generation == scope->generation) {
		scope->subject = scope->label->subject;
		return;
	}
	task = bpf_get_current_task_btf();
	exe = BPF_CORE_READ(task, mm, exe_file);
	if (!exe)
		return;
	scope->subject = subject_of(scope, scratch, exe);
	if (scope->subject == SUBJECT_TORN) {
		scope->subject = SUBJECT_NONE;
		return;
	}
	if (!scope->label)
		scope->label = bpf_task_storage_get(&labels, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (scope->label) {
		scope->label->subject = scope->subject;
		scope->label->generation = scope->generation;
	}
}

#endif
