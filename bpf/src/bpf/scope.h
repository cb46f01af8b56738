/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Whose rules a task is under, and what class its program is. */
#ifndef ARMOR_SCOPE_H
#define ARMOR_SCOPE_H

#include "label.h"
#include "path.h"

struct scope {
	void *image;
	const struct image_domain *rules;
	struct label *label;
	__u32 domain;
	__u32 subject;
};

/* False when the task is under no rules. */
static __always_inline bool enter_scope(struct scope *scope, struct task_struct *task)
{
	__u32 key = 0;

	scope->image = bpf_map_lookup_elem(&live, &key);
	if (!scope->image)
		return false;
	scope->label = bpf_task_storage_get(&labels, task, 0, 0);
	scope->domain = scope->label ? scope->label->domain : domain_beside_lock(task);
	if (scope->domain > MAX_DOMAIN)
		return false;
	scope->rules = (void *)word(scope->image, scope->domain * IMAGE_DOMAIN_WORDS);
	if (!scope->rules || !(scope->rules->flags & DOMAIN_RULED))
		return false;
	scope->subject = SUBJECT_NONE;
	return true;
}

/* Inode number of a task's mount namespace, 0 when it has left it at its end. */
static __always_inline __u32 mount_namespace_of(struct task_struct *task)
{
	struct nsproxy *namespaces = ADDRESS(task_struct, task, nsproxy);

	return FIELD(mnt_namespace, ADDRESS(nsproxy, namespaces, mnt_ns), ns.inum);
}

/* The host's, 0 before the first generation. */
static __always_inline __u32 host_mount_namespace(void)
{
	__u32 key = 0;
	void *image = bpf_map_lookup_elem(&live, &key);
	struct image_domain *host = image ? (void *)word(image, 0) : 0;

	return host ? host->mount_namespace : 0;
}

/* Where a mount is; any other number is that of the mount namespace whose tree it is in. */
enum place {
	PLACE_BACKING,	 /* the layer below an overlay, opened by the kernel: its overlay was already decided on */
	PLACE_ANONYMOUS, /* memfd, pipe, socket: no path by nature */
	PLACE_DETACHED,	 /* in no mount tree that a task is in */
};

static __noinline __u32 place_of(struct mount *mount)
{
	struct mnt_namespace *ns = ADDRESS(mount, mount, mnt_ns);
	__u32 number;

	if ((unsigned long)ns >= ERR_PTR_FIRST) { /* MNT_NS_INTERNAL, fs/mount.h */
		unsigned long flags = FIELD(super_block, ADDRESS(mount, mount, mnt.mnt_sb), s_flags);

		return flags & SB_KERNMOUNT ? PLACE_ANONYMOUS : PLACE_BACKING;
	}
	if (!ns)
		return PLACE_DETACHED;
	number = FIELD(mnt_namespace, ns, ns.inum);
	return number > PLACE_DETACHED && number != MNT_NS_ANON_INO ? number : PLACE_DETACHED;
}

static __always_inline bool is_named(__u32 place)
{
	return place > PLACE_DETACHED;
}

/*
 * How many names count for an object. Bind mounts and private mount namespaces show a file under names that an attacker
 * can choose, so beside the name in the mount tree stands the one where the domain's own root shows the file's
 * filesystem. The stricter decision holds. A filesystem that only a foreign mount namespace shows gains nothing from its
 * name there: the second "name" is then the absence of any rule.
 */
enum second_name { SECOND_SAME, SECOND_HOME, SECOND_NONE };

/* Where the domain's own root shows a device, 0 if it does not. */
static __noinline struct image_home *home_of(const struct scope *scope, __u32 device)
{
	const struct image_domain *rules = scope->rules;
	__u32 hash = device * HOME_HASH_FACTOR;

	hash ^= hash >> 16;
	for (__u32 probe = 0; probe < HOME_PROBES; probe++) {
		__u32 index = rules->homes + 2 * (hash + probe & rules->homes_mask);
		struct image_home *home = (void *)word(scope->image, index & ~1u);

		if (!home || !home->device)
			return 0;
		if (home->device == device)
			return home;
	}
	return 0;
}

/* The class in a state's record; 0 when there is none. */
static __always_inline __u32 classes_at(void *image, const struct image_automaton *automaton, __u32 state)
{
	__u64 *record = word(image, automaton->slots + state);

	return record ? *record >> 32 : 0;
}

/*
 * Tries before a path that renames keep tearing counts as one that cannot be told. Some milliseconds' worth: in a virtual
 * machine the processor that holds one of the locks may not run for as long.
 */
#define WALK_TRIES 1000

struct naming {
	struct scope *scope;
	struct scratch *scratch;
	struct name *name;
	const struct image_automaton *automaton;
	__u32 subjects; /* whether `automaton` is theirs */
};

static __noinline __u32 find_second(struct naming *naming)
{
	struct mount *mount = mount_of((void *)naming->name->mnt);
	struct scope *scope = naming->scope;
	__u32 device = FIELD(super_block, ADDRESS(mount, mount, mnt.mnt_sb), s_dev);
	struct entrance *entrance = 0;
	struct image_home *home;

	if (scope->domain != HOST_DOMAIN && naming->name->place != scope->rules->mount_namespace)
		entrance = bpf_map_lookup_elem(&entrances, &scope->domain);
	/* Started since the image was built: all that is known of its root is what it was entered with. */
	if (entrance && entrance->mount_namespace != scope->rules->mount_namespace) {
		naming->scratch->naming_home_state = naming->automaton->start;
		if (device == entrance->device)
			return entrance->mount_id == FIELD(mount, mount, mnt_id) ? SECOND_SAME : SECOND_HOME;
		return naming->name->place == entrance->mount_namespace ? SECOND_SAME : SECOND_NONE;
	}
	home = home_of(scope, device);
	if (home) {
		naming->scratch->naming_home_state = naming->subjects ? home->subjects_state : home->objects_state;
		return home->mount_id == FIELD(mount, mount, mnt_id) ? SECOND_SAME : SECOND_HOME;
	}
	if (scope->rules->mount_namespace && naming->name->place != scope->rules->mount_namespace)
		return SECOND_NONE;
	return SECOND_SAME;
}

/*
 * Writes the last name of a path alone. Returns where it starts; PATH_CAPACITY, where no name starts, when it cannot be told.
 * Global, as write_path().
 */
__noinline __u32 write_last(struct scratch *scratch, __u64 address, __u32 directory)
{
	struct dentry *dentry = (struct dentry *)address;
	__u32 length = FIELD(dentry, dentry, d_name.len), start;

	if (!scratch || !length || length > NAME_MAX)
		return PATH_CAPACITY;
	start = PATH_CAPACITY - (directory & 1) - length;
	if (directory)
		scratch->path[PATH_CAPACITY - 1] = '/';
	if (bpf_probe_read_kernel(&scratch->path[start & (PATH_CAPACITY - 1)], length & NAME_MAX, ADDRESS(dentry, dentry, d_name.name)))
		return PATH_CAPACITY;
	return start;
}

/* Sets what is to be scanned: a whole path but for its last name, or that name, behind the folder's. */
static __always_inline void write_part(struct scratch *scratch, struct name *name, __u32 start_state)
{
	__u32 inside = scratch->naming_inside, start, length;

	if (scratch->naming_is_last) {
		scratch->scan_at = inside ? name->folder.home_state : name->folder.view_state;
		scratch->scan_position = scratch->naming_last;
		scratch->scan_end = PATH_CAPACITY;
		return;
	}
	start = write_path(scratch, name->dentry, name->mnt, inside, name->directory);
	length = FIELD(dentry, (void *)name->dentry, d_name.len) + (name->directory & 1);
	scratch->scan_at = start_state;
	scratch->scan_position = start;
	scratch->scan_end = PATH_CAPACITY - length;
	/* At a mount's root the path ends in another name: to part it anywhere does no harm there. */
	if (scratch->scan_end < start || scratch->scan_end > PATH_CAPACITY)
		scratch->scan_end = start;
	scratch->naming_last = scratch->scan_end;
}

static __always_inline void begin_naming(struct naming *naming)
{
	struct scratch *scratch = naming->scratch;
	struct name *name = naming->name;
	struct folder *folder = &name->folder;
	struct epochs before = read_epochs();

	scratch->naming_renames = before.renames;
	scratch->naming_mounts = before.mounts;
	load_fence(scratch);
	if (folder->known && folder->renames == before.renames && folder->mounts == before.mounts) {
		scratch->naming_last = write_last(scratch, name->dentry, name->directory);
		if (scratch->naming_last < PATH_CAPACITY)
			return;
	}
	folder->known = 0;
	folder->second = find_second(naming);
}

/* Keeps the state behind a part of a path; true when that was the last. */
static __always_inline bool keep_state(struct naming *naming, __u32 state)
{
	struct scratch *scratch = naming->scratch;
	struct name *name = naming->name;
	__u32 inside = scratch->naming_inside, classes;

	if (!scratch->naming_is_last) {
		name->folder.home_state = state;
		if (!inside)
			name->folder.view_state = state;
		return false;
	}
	classes = state == NO_STATE ? OBJECT_UNRESOLVED << 16 | OBJECT_UNRESOLVED
				    : classes_at(naming->scope->image, naming->automaton, state);
	name->home_state = state;
	name->home_below = classes >> 16;
	name->classes.home = classes & 0xffff;
	if (inside)
		return true;
	name->view_state = name->home_state;
	name->view_below = name->home_below;
	name->classes.view = name->classes.home;
	if (name->folder.second == SECOND_NONE) {
		name->home_state = NO_STATE;
		name->home_below = name->classes.home = OBJECT_NONE;
	}
	return name->folder.second != SECOND_HOME;
}

/*
 * Of four steps two take the name in the mount tree and two the second name where there is another: each the folder's path
 * where that is not known, then the last name.
 */
static long naming_step(__u32 step, struct naming *naming)
{
	struct scratch *scratch = naming->scratch;
	struct folder *folder = &naming->name->folder;

	scratch->naming_inside = step & 2;
	scratch->naming_is_last = step & 1;
	if (!(step & 3))
		begin_naming(naming);
	if ((scratch->naming_inside && folder->second != SECOND_HOME) || (!scratch->naming_is_last && folder->known))
		return 0;
	write_part(scratch, naming->name, scratch->naming_inside ? scratch->naming_home_state : naming->automaton->start);
	if (!keep_state(naming, scan_path(naming->scope->image, scratch, naming->automaton)))
		return 0;
	load_fence(scratch);
	scratch->naming_done = settled((struct epochs){ scratch->naming_renames, scratch->naming_mounts });
	return scratch->naming_done;
}

/* Fills in the states and classes of a name in a mount tree, but `linked`; false when renames keep tearing its path. */
static __noinline bool find_classes(struct scope *scope, struct scratch *scratch, struct name *name, bool subjects)
{
	struct naming naming = {
		.scope = scope,
		.scratch = scratch,
		.name = name,
		.automaton = subjects ? &scope->rules->subjects : &scope->rules->objects,
		.subjects = subjects,
	};

	scratch->naming_done = 0;
	bpf_loop(4 * WALK_TRIES, naming_step, &naming, 0);
	return scratch->naming_done;
}

/* Not a class: renames kept the program's path from being told, so ask again next time. */
#define SUBJECT_TORN (1u << 16)

/* The class of a task's program: what grants rights by fromSource, so only a name that nobody can choose counts. */
static __noinline __u32 subject_of(struct scope *scope, struct scratch *scratch, struct task_struct *task)
{
	struct file *exe = ADDRESS(mm_struct, ADDRESS(task_struct, task, mm), exe_file);
	struct name *name = &scratch->program;

	name->dentry = (__u64)ADDRESS(file, exe, f_path.dentry);
	name->mnt = (__u64)ADDRESS(file, exe, f_path.mnt);
	name->directory = 0;
	name->folder.known = 0;
	if (!name->mnt)
		return SUBJECT_NONE;
	name->place = place_of(mount_of((void *)name->mnt));
	if (!is_named(name->place))
		return SUBJECT_NONE;
	if (!find_classes(scope, scratch, name, true))
		return SUBJECT_TORN;
	return name->home_state == NO_STATE ? SUBJECT_NONE : name->classes.home;
}

/* Sets scope->subject for the current task, from the label where it was computed for this generation. */
static __always_inline void find_subject(struct scope *scope, struct scratch *scratch)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (!(scope->rules->flags & DOMAIN_SUBJECTS))
		return;
	if (scope->label && scope->label->generation == scope->rules->generation) {
		scope->subject = scope->label->subject;
		return;
	}
	if (!task->mm)
		return;
	scope->subject = subject_of(scope, scratch, task);
	if (scope->subject == SUBJECT_TORN) {
		scope->subject = SUBJECT_NONE;
		return;
	}
	if (!scope->label)
		scope->label = bpf_task_storage_get(&labels, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (scope->label) {
		scope->label->subject = scope->subject;
		scope->label->generation = scope->rules->generation;
	}
}

#endif
