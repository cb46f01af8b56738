/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Notes at a socket to which others may come who takes what comes, and whom it has asked. Who comes is seen in a packet
 * (ingress.bpf.h), whose program does not know whose socket it is.
 *
 * Invariant: whoever is under rules that depend on the peer is noted at a socket before it may be sent to, or is refused. The
 * sockets that it held before its rules are noted by an iterator.
 */
#ifndef ARMOR_RECEIVER_H
#define ARMOR_RECEIVER_H

#include "dns/sender.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct receiver);
} receivers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct recipients);
} recipients SEC(".maps");

/* Returns whether a socket is, or is about to be, one to which somebody may come who was not asked to. */
static __always_inline bool receives(const struct socket_access *access)
{
	__u32 state = FIELD(sock, access->sock, __sk_common.skc_state);

	/* SMC takes connections by a socket of the kernel's own, and is decided on as if everybody came. */
	if (!is_ip(access) || is_smc(access))
		return false;
	switch (access->kind) {
	case KIND_UDP:
		return state != TCP_ESTABLISHED;
	case KIND_TCP:
	case KIND_SCTP_STREAM:
	case KIND_SCTP_SEQPACKET:
	case KIND_DCCP:
		return state == TCP_LISTEN || access->hook == SOCKET_LISTEN;
	}
	return false;
}

/* Notes who takes what comes to a socket. Returns false if the kernel has no memory for it. */
static __always_inline bool note_receiver(struct sock *sock, const struct scope *scope, struct task_struct *task)
{
	struct receiver *receiver = bpf_sk_storage_get(&receivers, sock, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (!receiver)
		return false;
	if (!receiver->tgid || receiver->label.generation != scope->rules->generation)
		receiver->label.subject = subjects_of(scope);
	else if (receiver->label.domain != scope->domain)
		receiver->label.subject = CONFLICTING_SUBJECTS;
	else
		receiver->label.subject = both_subjects(receiver->label.subject, subjects_of(scope));
	receiver->label.domain = scope->domain;
	receiver->label.generation = scope->rules->generation;
	receiver->pid = FIELD(task_struct, task, pid);
	receiver->tgid = FIELD(task_struct, task, tgid);
	receiver->uid = BPF_CORE_READ(task, cred, uid.val);
	bpf_core_read(&receiver->comm, sizeof(receiver->comm), &task->comm);
	return true;
}

/* Notes the current task, whose class is known, at a socket to which somebody may come. Returns what the hook returns. */
static __noinline int check_receiving_of(struct scope *scope, struct sock *sock, const struct socket_access *access)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (!sock || note_receiver(sock, scope, task))
		return 0;
	return answer_for_socket(scope, task, access, VERDICT_BLOCK << VERDICT_SHIFT | RULE_UNRESOLVED);
}

static __always_inline int check_receiving(struct scope *scope, struct sock *sock, const struct socket_access *access)
{
	return scope->rules->flags & DOMAIN_PEERS && receives(access) ? check_receiving_of(scope, sock, access) : 0;
}

static __always_inline bool is_endpoint(const struct endpoint *endpoint, const struct destination *of)
{
	return !((endpoint->high ^ of->high) | (endpoint->low ^ of->low) | (endpoint->family ^ of->family) |
		 (endpoint->key ^ of->key));
}

static __always_inline void set_endpoint(struct endpoint *endpoint, const struct destination *of)
{
	endpoint->high = of->high;
	endpoint->low = of->low;
	endpoint->family = of->family;
	endpoint->key = of->key;
}

/* Returns whether a socket has sent to a peer, as far as it is remembered. */
static __always_inline bool has_sent_to(struct recipients *sent_to, const struct destination *peer)
{
	__u32 found = 0;

	bpf_spin_lock(&sent_to->lock);
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < RECIPIENTS; i++)
		found |= is_endpoint(&sent_to->of[i & (RECIPIENTS - 1)], peer);
	bpf_spin_unlock(&sent_to->lock);
	return found;
}

/*
 * Remembers to whom a socket without a connection sends. Without memory for that, an answer is taken for what comes by
 * itself.
 */
static __noinline int note_recipient(struct sock *sock, const struct socket_access *access)
{
	struct recipients *sent_to;
	struct socket_use use = {};
	struct destination to;

	describe_use(access, &use);
	if (use.egress.reach != SOMEBODY)
		return 0;
	to = use.egress;
	sent_to = sock ? bpf_sk_storage_get(&recipients, sock, 0, BPF_SK_STORAGE_GET_F_CREATE) : 0;
	if (!sent_to || has_sent_to(sent_to, &to))
		return 0;
	bpf_spin_lock(&sent_to->lock);
	set_endpoint(&sent_to->of[sent_to->next & (RECIPIENTS - 1)], &to);
	sent_to->next++;
	bpf_spin_unlock(&sent_to->lock);
	return 0;
}

/* Notes the current task at a socket by which it sends a message that was permitted, and to whom. */
static __always_inline int check_answers(struct scope *scope, struct sock *sock, const struct socket_access *access)
{
	int refused;

	if (!(scope->rules->flags & DOMAIN_PEERS) || access->kind != KIND_UDP || !receives(access))
		return 0;
	refused = check_receiving_of(scope, sock, access);
	if (!refused)
		note_recipient(sock, access);
	return refused;
}

#endif
