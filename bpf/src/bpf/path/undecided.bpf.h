/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Delays alerts about names for which the decision was made before the kernel knew whether they exist.
 *
 * An open with O_CREAT of a name that is in no cache asks for the right to make it (may_o_create,
 * fs/namei.c), and only then looks whether it exists. If it does, a refusal has no effect, and only the
 * decision about the open itself counts. So the event waits until that is known. A refusal is reported if the
 * name does not exist then, a permitted making if the file was made.
 *
 * Invariants:
 * - A program that sets an entry from PENDING to BUSY owns it: what it read of the entry before does not
 *   count, and no other program frees it.
 * - If no entry is free, an event is reported at once.
 * - A refusal is settled by the next question of its task, a permitted making by the open that it is for. The
 *   agent settles entries that nothing follows.
 * - Whether a refusal is reported depends on whether the name exists when it is settled.
 */
#ifndef ARMOR_UNDECIDED_H
#define ARMOR_UNDECIDED_H

#include "path/report.bpf.h"

/* Nanoseconds after which every open has reached the file that it makes, even on the slowest disk. */
#define OPEN_TIME 10000000000ull

static __always_inline struct undecided_list *undecided_list(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&undecided, &key);
}

static __always_inline void count_pending(__u64 task, int change)
{
	__sync_fetch_and_add(&pending, change);
	__sync_fetch_and_add(pending_of_task(task), change);
}

struct deferring {
	struct scratch *scratch;
	struct undecided_list *list;
	__u32 at; /* UNDECIDED: no entry is free */
};

static long claim_entry(__u32 at, struct deferring *deferring)
{
	struct undecided *entry = &deferring->list->of[at & (UNDECIDED - 1)];

	if (!__sync_bool_compare_and_swap(&entry->state, UNDECIDED_FREE, UNDECIDED_BUSY))
		return 0;
	deferring->at = at & (UNDECIDED - 1);
	return 1;
}

/* Keeps the event about scratch->access until its name is known to exist or not. Returns false on failure. */
static __noinline bool defer(struct scratch *scratch)
{
	struct deferring deferring = { .scratch = scratch, .list = undecided_list(), .at = UNDECIDED };
	struct access *access = &scratch->access;
	__u64 dentry = access->name.dentry;
	struct undecided *entry;
	struct event *event;
	__u32 at, length;

	if (!deferring.list)
		return false;
	bpf_loop(UNDECIDED, claim_entry, &deferring, 0);
	at = deferring.at;
	if (at >= UNDECIDED)
		return false;
	entry = &deferring.list->of[at];
	event = bpf_map_lookup_elem(&undecided_events, &deferring.at);
	length = write_event(scratch);
	if (!event || length > EVENT_STRINGS ||
	    bpf_probe_read_kernel(event, __builtin_offsetof(struct event, strings) + length, &scratch->event)) {
		entry->state = UNDECIDED_FREE;
		return false;
	}
	entry->refused = blocks(access->decision);
	entry->task = access->task;
	entry->dentry = dentry;
	entry->parent = (__u64)ADDRESS(dentry, dentry, d_parent);
	entry->name = FIELD(dentry, dentry, d_name.hash_len);
	entry->time = event->header.time;
	entry->alerts_per_second = access->alerts_per_second;
	entry->length = length;
	count_pending(entry->task, 1);
	__sync_lock_test_and_set(&entry->state, UNDECIDED_PENDING);
	return true;
}

/* Reports the decision in scratch->access, at once or when it is known whether its name exists. */
static __always_inline void report_or_defer(struct scratch *scratch)
{
	if (!scratch->question.undecided || !defer(scratch))
		report(scratch);
}

/* Reports a decision, unless it is a silent allow. Returns what the hook returns. */
static __always_inline int conclude(const struct scope *scope, struct scratch *scratch, __u32 decision)
{
	if (!(decision >> VERDICT_SHIFT))
		return 0;
	note_decision(scope, &scratch->access, decision);
	report_or_defer(scratch);
	return blocks(decision) ? -EACCES : 0;
}

struct settling {
	struct undecided_list *list;
	__u64 task;    /* task whose entries are settled; 0: all tasks */
	__u64 opened;  /* address of the dentry of the file that this task opens; 0: none */
	__u32 created; /* this open has made the file */
};

/* Returns whether the dentry still has the entry's name. */
static __always_inline bool is_same_name(const struct undecided *entry)
{
	return (__u64)ADDRESS(dentry, entry->dentry, d_parent) == entry->parent &&
		FIELD(dentry, entry->dentry, d_name.hash_len) == entry->name;
}

/* Returns whether the open may still reach the point that settles the entry. */
static __always_inline bool is_on_its_way(const struct undecided *entry, const struct settling *settling)
{
	if (is_same_name(entry) && is_in_lookup(entry->dentry))
		return true;
	return !entry->refused && entry->dentry != settling->opened &&
		bpf_ktime_get_boot_ns() - entry->time < OPEN_TIME;
}

static long settle_entry(__u32 step, struct settling *settling)
{
	__u32 at = step & (UNDECIDED - 1), length;
	struct undecided *entry = &settling->list->of[at];
	struct event *event;
	bool happened;

	if (entry->state != UNDECIDED_PENDING || (settling->task && entry->task != settling->task))
		return 0;
	if (!__sync_bool_compare_and_swap(&entry->state, UNDECIDED_PENDING, UNDECIDED_BUSY))
		return 0;
	if ((settling->task && entry->task != settling->task) || is_on_its_way(entry, settling)) {
		__sync_lock_test_and_set(&entry->state, UNDECIDED_PENDING);
		return 0;
	}
	if (entry->refused)
		happened = !(is_same_name(entry) && ADDRESS(dentry, entry->dentry, d_inode));
	else
		happened = settling->created && entry->dentry == settling->opened;
	event = bpf_map_lookup_elem(&undecided_events, &at);
	length = entry->length;
	if (happened && event)
		send(event, length, entry->alerts_per_second);
	count_pending(entry->task, -1);
	__sync_lock_test_and_set(&entry->state, UNDECIDED_FREE);
	return 0;
}

/* Settles the entries of a task that asks again. */
static __always_inline void settle_own(struct task_struct *task, const struct scratch *scratch)
{
	struct settling settling = { .task = (__u64)PLAIN(task), .created = scratch->question.created };

	if (!is_awaited(task))
		return;
	settling.list = undecided_list();
	if (scratch->access.hook == FILE_OPEN && scratch->question.asked == ASK_NAME)
		settling.opened = scratch->access.name.dentry;
	if (settling.list)
		bpf_loop(UNDECIDED, settle_entry, &settling, 0);
}

static __always_inline void settle_all(void)
{
	struct settling settling = { .list = undecided_list() };

	if (settling.list)
		bpf_loop(UNDECIDED, settle_entry, &settling, 0);
}

#endif
