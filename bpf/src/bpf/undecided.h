/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * What was decided of a name before the kernel knew whether it is there.
 *
 * An open with O_CREAT of a name that is in no cache asks for the right to make it (may_o_create, fs/namei.c), and only then looks
 * whether it is there; if so, a refusal has no effect, and what the open itself asks is what counts. So the event waits until
 * that is known: told is a refusal to make what was not there, and the making of what was made.
 *
 * Invariants:
 * - Who sets an entry from PENDING to BUSY owns it: what was read of it before counts for nothing, and nobody else frees it.
 * - With no entry free, an event is told at once.
 * - A refusal is unchanged_since by what the task asks next, a permitted making by the open that it is for. What nothing follows the agent
 *   settles.
 * - What settles a refusal is whether the name is there by then.
 */
#ifndef ARMOR_UNDECIDED_H
#define ARMOR_UNDECIDED_H

#include "report.h"

/* Nanoseconds after which no open is still on its way to a file that it makes, on the slowest disk. */
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
	__u32 at; /* UNDECIDED: none is free */
};

static long claim_entry(__u32 at, struct deferring *deferring)
{
	struct undecided *entry = &deferring->list->of[at & (UNDECIDED - 1)];

	if (!__sync_bool_compare_and_swap(&entry->state, UNDECIDED_FREE, UNDECIDED_BUSY))
		return 0;
	deferring->at = at & (UNDECIDED - 1);
	return 1;
}

/* Keeps the event about scratch->access until it is known whether its name is there; false where that cannot be done. */
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
	entry->time = event->time;
	entry->alerts_per_second = access->alerts_per_second;
	entry->length = length;
	count_pending(entry->task, 1);
	__sync_lock_test_and_set(&entry->state, UNDECIDED_PENDING);
	return true;
}

/* Tells of scratch->access, now or once it is known what became of it. */
static __always_inline void report_or_defer(struct scratch *scratch)
{
	if (!scratch->question.undecided || !defer(scratch))
		report(scratch);
}

/* Tells of a decision that is to be told of; returns what the hook returns. */
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
	__u64 task;    /* whose are unchanged_since; 0: everybody's */
	__u64 opened;  /* address of the dentry of a file that this task opens now, 0: none */
	__u32 created; /* which it has just made */
};

/* Whether the dentry is still that of the name. */
static __always_inline bool is_same_name(const struct undecided *entry)
{
	return (__u64)ADDRESS(dentry, entry->dentry, d_parent) == entry->parent &&
	       FIELD(dentry, entry->dentry, d_name.hash_len) == entry->name;
}

/* Whether the open may still come to what settles the entry. */
static __always_inline bool is_on_its_way(const struct undecided *entry, const struct settling *settling)
{
	if (is_same_name(entry) && is_in_lookup(entry->dentry))
		return true;
	return !entry->refused && entry->dentry != settling->opened && bpf_ktime_get_boot_ns() - entry->time < OPEN_TIME;
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

/* Settles what a task asked before, as it asks again. */
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
