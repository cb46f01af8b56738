/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Finds preexisting handles: descriptors and mappings that tasks had before their rules, which no hook sees
 * again. When the agent asks, iterators go through all of them and write the events about those that the
 * rules would refuse. Nothing is counted or cached, because the kernel shows an object again if the reader's
 * buffer was full.
 */
#ifndef ARMOR_PREEXISTING_H
#define ARMOR_PREEXISTING_H

#include "network/destination.bpf.h"
#include "network/receiver.bpf.h"
#include "path/answer.bpf.h"
#include "path/check.bpf.h"

static __always_inline bool is_entering(struct task_struct *task)
{
	return label_of(task).entered & ENTERING;
}

/* Stands for a mapping in place of a descriptor's number. */
#define A_MAPPING ~0u

/* Finds what is wanted, and the class of the program by which a handle was obtained. */
static __always_inline void find_holder(struct scope *scope, struct scratch *scratch, __u64 task)
{
	__u32 subject;

	if (scope->rules->flags & DOMAIN_SUBJECTS)
		want_program(scratch, PROGRAM, task);
	find_wanted(scope, scratch);
	if (scope->rules->flags & DOMAIN_SUBJECTS) {
		subject = subject_found(&scratch->access.program);
		if (subject != SUBJECT_TORN)
			set_subject(scope, subject);
	}
}

/* The same as judge_preexisting(), for a socket. */
static __noinline __u32 judge_preexisting_socket(struct scope *scope, struct scratch *scratch, __u64 sock,
						 __u32 descriptor)
{
	struct socket_event *event = &scratch->access.tail.socket;
	const struct image_kinds *tables = tables_of_kinds(scope);
	struct socket_access *access = &scratch->socket_access;
	__u32 decision = VERDICT_ALLOW, length;

	*access = (struct socket_access){ .hook = PREEXISTING_FILE };
	describe_sock_at(access, sock);
	if (access->kind == NO_KIND || !tables)
		return 0;
	describe_use(access, &scratch->socket_use);
	event->family = access->family;
	event->type = access->type;
	event->protocol = access->protocol;
	event->descriptor = descriptor;
	event->own_port = scratch->socket_use.own_port;
	write_address(event, &scratch->socket_use.ip);
	scratch->find_count = 0;
	find_holder(scope, scratch, scratch->access.task);
	if (tables->network)
		decision = unknown(keyed_decision(scope, tables->network, access->kind));
	decision = unknown(stricter(decision, decide_destinations(scope, tables, &scratch->socket_use)));
	if (!blocks(decision))
		return 0;
	scratch->access.kind = EVENT_SOCKET;
	note_decision(scope, &scratch->access, decision);
	length = write_event(scratch);
	return length > EVENT_STRINGS ? 0 : __builtin_offsetof(struct event, strings) + length;
}

/* Notes a task at a socket that it holds, if somebody may come to it. Returns what the iterator returns. */
static __noinline int note_held_socket(struct sock *sock, struct task_struct *task)
{
	struct socket_access access = { .hook = PREEXISTING_FILE };
	struct scratch *scratch;
	struct scope scope;

	if (!sock)
		return 0;
	describe_sock(&access, sock);
	if (!receives(&access) || !enter_scope(&scope, task) || !(scope.rules->flags & DOMAIN_PEERS) ||
	    is_entering(task))
		return 0;
	scratch = claim_scratch();
	if (!scratch)
		return 1; /* retry */
	begin(scratch, task, PREEXISTING_FILE);
	if (!find_known_subject(&scope)) {
		scratch->find_count = 0;
		find_holder(&scope, scratch, (__u64)PLAIN(task));
		if (scratch->access.program.outcome == FIND_TORN)
			set_subject(&scope, CONFLICTING_SUBJECTS);
		else if (label_of(task).entered & DISTRUSTED)
			set_subject(&scope, SUBJECT_NONE);
	}
	note_receiver(sock, &scope, task);
	release_scratch(scratch);
	return 0;
}

/*
 * Writes the event about an access that would be refused. Returns its length, 0 if it would not be refused.
 * Iterators decide this themselves, because the kernel replaces no function of theirs (check_attach_btf_id,
 * kernel/bpf/verifier.c).
 */
static __noinline __u32 judge_preexisting(struct scope *scope, struct scratch *scratch, struct inode *inode,
					  struct task_struct *obtained_by)
{
	struct name *name = &scratch->access.name;
	struct task_struct *task = (void *)scratch->access.task;
	__u32 permissions = scratch->question.permissions, decision, length;

	scratch->find_count = 0;
	want_object(scratch, NAME);
	find_holder(scope, scratch, (__u64)obtained_by);
	if (name->outcome != FIND_NAMES || silently_allowed(scope, &name->classes, permissions))
		return 0;
	decision = decide(scope, scratch, &name->classes, permissions, owns(task, inode));
	if (!blocks(decision))
		return 0;
	/* A runtime's copy of itself, which spare_hosts_root() lets it start. */
	if (scratch->access.hook == PREEXISTING_MAPPING && scope->domain == HOST_DOMAIN && has_no_path(name) &&
	    is_runtime(task))
		return 0;
	note_decision(scope, &scratch->access, decision);
	length = write_event(scratch);
	return length > EVENT_STRINGS ? 0 : __builtin_offsetof(struct event, strings) + length;
}

/*
 * Writes the event about one handle. A task that enters its container is looked at after its program has
 * started, as that closes the runtime's own descriptors.
 */
static __noinline int show_preexisting(struct seq_file *seq, struct task_struct *task, struct file *file,
				       __u32 descriptor, __u32 permissions)
{
	struct dentry *dentry = ADDRESS(file, file, f_path.dentry);
	struct inode *inode = ADDRESS(file, file, f_inode);
	struct task_struct *obtained_by = PLAIN(task);
	struct scratch *scratch;
	struct scope scope;
	__u64 sock;
	__u32 length;

	/* If the dentry has another inode, the file is a layer's, opened by the overlay's path. */
	if (!permissions || !inode || ADDRESS(dentry, dentry, d_inode) != inode || !enter_scope(&scope, task) ||
	    is_entering(task))
		return 0;
	scratch = claim_scratch();
	if (!scratch)
		return 1; /* retry */
	begin(scratch, task, descriptor == A_MAPPING ? PREEXISTING_MAPPING : PREEXISTING_FILE);
	set_name(&scratch->access.name, dentry, ADDRESS(file, file, f_path.mnt), FIELD(inode, inode, i_mode),
		 FIELD(inode, inode, __i_nlink));
	scratch->question.permissions = permissions;
	/* This program was started by another one, of which only the parent process is left. */
	if (permissions == 1u << EXEC)
		obtained_by = ADDRESS(task_struct, task, real_parent);
	sock = sock_of_file((__u64)PLAIN(file));
	if (sock) {
		length = judge_preexisting_socket(&scope, scratch, sock, descriptor);
	} else {
		length = judge_preexisting(&scope, scratch, inode, obtained_by);
		scratch->event.tail.path.descriptor = descriptor;
	}
	if (length > sizeof(struct event))
		length = 0;
	/* Otherwise clang compares another copy of it, as in append_path(). */
	asm volatile("" : "+r"(length));
	if (length)
		bpf_seq_write(seq, &scratch->event, length);
	release_scratch(scratch);
	return 0;
}

#endif
