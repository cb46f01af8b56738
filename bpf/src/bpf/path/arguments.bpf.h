/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Decides on the arguments that a started program is given (allowedArgs).
 *
 * The caller's own strings prove nothing: another thread can change them until the kernel has copied them. The copies lie
 * in the new program's memory, which nothing can read or change before the program has it. By then its caller is gone, so
 * that the program can no longer be refused: it is killed before its first instruction.
 *
 * Which lists apply is determined earlier, for each file that the start goes through: a script is gone from sight by then,
 * and a name may move. What interpreters put before a file's arguments does not change these, so they are the last ones.
 *
 * Invariants:
 * - Lists are noted for the task or the start is refused; noted lists are of one generation, by which they are decided.
 * - A start that fails leaves nothing that counts for the next one.
 * - What cannot be read is in no list.
 */
#ifndef ARMOR_ARGUMENTS_H
#define ARMOR_ARGUMENTS_H

#include "core/keyed.bpf.h"
#include "guard/guard.bpf.h"
#include "path/check.bpf.h"

/* Lists of one start: some for each of the files that a start goes through, a script and its interpreter. */
#define PENDING_LISTS 8

/* Reads of one start, each of a string or of PATH_CAPACITY bytes of one: as many as those need that are not compared. */
#define ARGUMENT_READS 256

struct pending_list {
	__u32 list;	 /* its number */
	__u32 arguments; /* number of the file's arguments, without its name */
};

struct pending_lists {
	__u32 generation; /* PENDING_TORN: it changed during the start */
	__u32 domain;
	__u32 count;
	__u32 reserved;
	struct pending_list of[PENDING_LISTS];
};

#define PENDING_TORN (~0u)

/* The lists that decide on the arguments of the program that a task is starting. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct pending_lists);
} pending_lists SEC(".maps");

/* Returns whether a task has an entry that bpf_task_storage_get() does not find. Global like label_beside_lock(). */
__noinline int has_pending_beside_lock(__u64 task)
{
	struct label_search search = { .map = ((struct bpf_map *)&pending_lists)->id };
	struct bpf_local_storage *storage = ADDRESS(task_struct, task, bpf_storage);

	if (!storage)
		return 0;
	search.node = (__u64)ADDRESS(bpf_local_storage, storage, list.first);
	bpf_loop(TASK_STORAGES, search_storage, &search, 0);
	return !!search.half[0];
}

static __always_inline const struct image_arguments *argument_tables(const struct scope *scope)
{
	const struct image_kinds *tables = tables_of_kinds(scope);

	return tables && tables->arguments ? word_pair(scope->image, tables->arguments) : 0;
}

struct noting {
	struct scope *scope;
	struct scratch *scratch;
	struct pending_lists *pending;
	__u32 overflow;
};

/* Notes the list of one class for one subject. */
static long note_list(__u32 step, struct noting *noting)
{
	struct classes *classes = &noting->scratch->access.name.classes;
	struct pending_lists *pending = noting->pending;
	struct scope *scope = noting->scope;
	__u32 which = step & 7, at = pending->count, list;

	if (which >= CLASSES || which >= classes->count)
		return 0;
	list = cell_mask(scope, step & 8 ? scope->other_subject : scope->subject, classes->of[which]) >> CELL_LIST;
	if (!list || (step & 8 && scope->other_subject == scope->subject))
		return 0;
	if (at >= PENDING_LISTS) {
		noting->overflow = 1;
		return 1;
	}
	at &= PENDING_LISTS - 1;
	pending->of[at].list = list;
	pending->of[at].arguments = noting->scratch->question.arguments;
	pending->count = at + 1;
	return 0;
}

/* Notes the lists of access.name. Returns nonzero if they cannot be noted. */
static __noinline int judge_arguments(struct scope *scope, struct scratch *scratch)
{
	struct noting noting = { .scope = scope, .scratch = scratch };
	struct task_struct *task = bpf_get_current_task_btf();
	struct pending_lists *pending;

	if (scratch->access.name.outcome != FIND_NAMES || !has_list(scope, &scratch->access.name.classes))
		return 0;
	/* The host's first process cannot be killed. */
	if (scope->rules->flags & DOMAIN_REFUSES && FIELD(task_struct, task, tgid) == 1)
		return refuse_unreported();
	pending = bpf_task_storage_get(&pending_lists, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	/* It fails once if another processor gives the task its first storage, as in inode_link. */
	if (!pending)
		pending = bpf_task_storage_get(&pending_lists, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!pending)
		return refuse_unreported();
	if (!pending->count) {
		pending->generation = scope->rules->generation;
		pending->domain = scope->domain;
	} else if (pending->generation != scope->rules->generation || pending->domain != scope->domain) {
		pending->generation = PENDING_TORN;
	}
	noting.pending = pending;
	bpf_loop(16, note_list, &noting, 0);
	return noting.overflow ? refuse_unreported() : 0;
}

/* Notes which lists decide on the arguments of a file that is started: the program, or a script and its interpreter. */
SEC("lsm/bprm_check_security")
int BPF_PROG(arguments_note, struct linux_binprm *bprm)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct file *file = bprm->file;
	struct inode *inode = file->f_inode;
	struct pending_lists *pending;
	struct classes classes = {};
	struct scratch *scratch;
	struct vfsmount *mnt;
	struct scope scope;
	struct name *name;
	int verdict;

	if (PLAIN(bprm->interp) == PLAIN(bprm->filename)) {
		/* A start begins. */
		pending = bpf_task_storage_get(&pending_lists, task, 0, 0);
		if (pending)
			pending->count = 0;
		else if (lock_may_be_taken() && has_pending_beside_lock((__u64)PLAIN(task)))
			return refuse_unreported();
	}
	if (!enter_scope(&scope, task) || !argument_tables(&scope) || !inode)
		return 0;
	mnt = PLAIN(file->f_path.mnt);
	if (find_known_subject(&scope) &&
	    cached(&scope, bpf_inode_storage_get(&inodes, inode, 0, 0), mnt, read_epochs(), 1, &classes) &&
	    (classes.of[0] == CLASS_UNNAMED || !has_list(&scope, &classes)))
		return 0;
	scratch = claim_scratch();
	if (!scratch)
		return refuse_unreported();
	begin(scratch, task, BPRM_CHECK_SECURITY);
	name = &scratch->access.name;
	set_name(name, file->f_path.dentry, mnt, inode->i_mode, inode->__i_nlink);
	if (PLAIN(file->f_path.dentry->d_inode) != PLAIN(inode))
		set_layer(name, (__u64)PLAIN(file));
	find_layers(name, (__u64)PLAIN(file));
	scratch->question.inode = (__u64)PLAIN(inode);
	scratch->question.arguments = bprm->argc - 1;
	verdict = ask(scratch, &scope, ASK_ARGUMENTS);
	release_scratch(scratch);
	return verdict;
}

/* What decides on the arguments of a start. How far they are read is in the scratch. */
struct argument_walk {
	const struct scope *scope;
	struct scratch *scratch;
	const struct pending_lists *pending;
	const struct image_arguments *tables;
};

/* Decides by one list on the argument that is read; on the program's name, by the number of the arguments. */
static long decide_by_list(__u32 step, struct argument_walk *walk)
{
	const struct pending_list *of = &walk->pending->of[step & (PENDING_LISTS - 1)];
	struct argument_reading *reading = &walk->scratch->reading;
	__u32 arguments, index = reading->index;

	if (step >= walk->pending->count)
		return 1;
	arguments = of->arguments;
	if (!reading->unread && (index ? reading->count - index > arguments : arguments - 1 < MAX_ARGUMENTS))
		return 0;
	reading->decision = stricter(reading->decision,
				     decision_for_subject(walk->scope, walk->tables->lists, of->list, reading->class));
	return 0;
}

/* Returns the class of the argument of this length in scratch->path, 0 if it is in no list. */
static __always_inline __u32 class_of_argument(const struct argument_walk *walk, __u32 length)
{
	const struct image_automaton *automaton = &walk->tables->classes;
	struct scratch *scratch = walk->scratch;
	__u32 state;

	scratch->scan.at = automaton->start;
	scratch->scan.position = 0;
	scratch->scan.end = length;
	state = scan_path(walk->scope->image, scratch, automaton);
	return state == NO_STATE ? 0 : classes_at(walk->scope->image, automaton, state) & 0xffff;
}

/* Reads a string of the new program's memory, or as much of it as fits, and decides on it. */
static long read_argument(__u32 step, struct argument_walk *walk)
{
	struct scratch *scratch = walk->scratch;
	struct argument_reading *reading = &scratch->reading;
	long length;

	if (reading->index >= reading->count)
		return 1;
	length = bpf_probe_read_user_str(scratch->path, PATH_CAPACITY, (void *)reading->at);
	if (length < 0)
		return 1;
	/* For an empty string the kernel does not count the 0 at its end (strncpy_from_user_nofault(), mm/maccess.c). */
	if (!length)
		length = 1;
	if (length >= PATH_CAPACITY) {
		/* It may go on. */
		reading->at += PATH_CAPACITY - 1;
		reading->is_long = 1;
		return 0;
	}
	reading->class = 0;
	if (reading->index && !reading->is_long && length <= ARGUMENT_BYTES + 1)
		reading->class = class_of_argument(walk, length - 1);
	bpf_loop(PENDING_LISTS, decide_by_list, walk, 0);
	reading->at += length;
	reading->is_long = 0;
	if (!reading->index)
		reading->first = reading->at;
	reading->index++;
	return 0;
}

/* Returns the decision on the arguments of the program that the current task has started. */
static __noinline __u32 decide_arguments(struct argument_walk *walk)
{
	struct argument_reading *reading = &walk->scratch->reading;
	const struct image_domain *rules = walk->scope->rules;

	if (walk->pending->generation != rules->generation || walk->pending->domain != walk->scope->domain ||
	    !walk->tables)
		return guard_verdict(rules) << VERDICT_SHIFT | RULE_UNRESOLVED;
	bpf_loop(ARGUMENT_READS, read_argument, walk, 0);
	if (!reading->count || reading->index != reading->count) {
		reading->unread = 1;
		reading->class = 0;
		bpf_loop(PENDING_LISTS, decide_by_list, walk, 0);
	}
	return reading->decision;
}

/* Reports the decision on the arguments of a program that starts. */
static __always_inline void report_arguments(const struct scope *scope, struct scratch *scratch, struct file *file,
					     __u32 decision)
{
	const struct argument_reading *reading = &scratch->reading;
	struct access *access = &scratch->access;
	__u64 length = reading->at - reading->first;

	set_name(&access->name, file->f_path.dentry, PLAIN(file->f_path.mnt), 0, 1);
	note_decision(scope, access, decision);
	access->permission = EXEC;
	access->arguments = reading->first;
	access->arguments_length = !reading->first ? 0 : length < PATH_CAPACITY ? length : PATH_CAPACITY;
	ask_to_report(scratch);
}

/* Decides on the arguments of a program by the lists that were noted as it was started, and kills it. */
SEC("lsm/bprm_committed_creds")
int BPF_PROG(arguments_decide, struct linux_binprm *bprm)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pending_lists *pending = bpf_task_storage_get(&pending_lists, task, 0, 0);
	struct argument_walk walk = {};
	struct scratch *scratch;
	struct scope scope;
	__u32 decision;

	if (!pending) {
		if (lock_may_be_taken() && has_pending_beside_lock((__u64)PLAIN(task))) {
			refuse_unreported();
			bpf_send_signal(SIGKILL);
		}
		return 0;
	}
	if (!pending->count || !enter_scope(&scope, task))
		return 0;
	scratch = claim_scratch();
	if (!scratch) {
		refuse_unreported();
		bpf_send_signal(SIGKILL);
		return 0;
	}
	begin(scratch, task, BPRM_COMMITTED_CREDS);
	scratch->reading = (struct argument_reading){ .at = bprm->p, .count = bprm->argc };
	walk.scope = &scope;
	walk.scratch = scratch;
	walk.pending = pending;
	walk.tables = argument_tables(&scope);
	decision = decide_arguments(&walk);
	pending->count = 0;
	if (decision >> VERDICT_SHIFT)
		report_arguments(&scope, scratch, bprm->file, decision);
	release_scratch(scratch);
	if (blocks(decision))
		bpf_send_signal(SIGKILL);
	return 0;
}

#endif
