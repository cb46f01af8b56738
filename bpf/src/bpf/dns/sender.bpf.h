/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Notes at a socket who asks a resolver over it. What is asked is seen when the packet goes out, in a copy of the kernel's
 * own (egress.bpf.h), but by then nobody may know whose it is: TCP sends when an acknowledgement comes.
 *
 * Invariant: whoever is under rules for names sends nothing to a resolver over a socket at which it is not noted, or is
 * refused here.
 */
#ifndef ARMOR_SENDER_H
#define ARMOR_SENDER_H

#include "network/report.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct sender);
} senders SEC(".maps");

enum asks {
	ASKS_NOBODY,
	ASKS_NAMES,    /* a resolver, by packets that egress.bpf.h reads */
	ASKS_ANY_NAME, /* perhaps a resolver, by packets that nobody reads */
};

/* Returns whether a socket is connected to a resolver, or a call names one. A call's address of no family has a port too. */
static __always_inline bool names_resolver(const struct socket_access *access)
{
	const __u16 port = bpf_htons(RESOLVER_PORT);

	if (access->address && access->length >= sizeof(struct sockaddr_in) &&
	    FIELD(sockaddr_in, access->address, sin_port) == port)
		return true;
	return is_ip(access) && FIELD(sock, access->sock, __sk_common.skc_dport) == port;
}

static __always_inline enum asks whom_it_asks(const struct socket_access *access)
{
	bool sends = access->hook == SOCKET_SENDMSG;

	switch (access->family) {
	case AF_PACKET:
		return sends ? ASKS_ANY_NAME : ASKS_NOBODY;
	case AF_XDP:
		/* What is sent later goes through memory that the kernel and the task share. */
		return sends || access->hook == SOCKET_BIND ? ASKS_ANY_NAME : ASKS_NOBODY;
	}
	if (!is_ip(access) && !is_smc(access))
		return ASKS_NOBODY;
	if (access->type == SOCK_RAW)
		return sends ? ASKS_NAMES : ASKS_NOBODY;
	if ((!sends && access->hook != SOCKET_CONNECT) || !names_resolver(access))
		return ASKS_NOBODY;
	/* Others send by sockets of the kernel's own, at which nobody is noted. */
	return is_ip(access) && (access->protocol == IPPROTO_UDP || access->protocol == IPPROTO_TCP) ? ASKS_NAMES :
												       ASKS_ANY_NAME;
}

/*
 * Returns the classes of two programs that send over one socket, in the form of struct label: what the first one left behind may go
 * out with what the second one sends.
 */
static __always_inline __u32 both_subjects(__u32 earlier, __u32 later)
{
	__u32 first = earlier & 0xffff, second = earlier >> 16, class = later & 0xffff;

	if (earlier == later)
		return later;
	if (class != later >> 16 || (first != second && class != first && class != second))
		return CONFLICTING_SUBJECTS;
	return class == first || class == second ? earlier : first | class << 16;
}

/*
 * Notes who uses a socket of this protocol. Only TCP keeps what was sent before. Returns false if the kernel has no memory for it.
 */
static __always_inline bool note_sender(struct sock *sock, __u32 protocol, const struct scope *scope,
					struct task_struct *task)
{
	struct sender *sender = bpf_sk_storage_get(&senders, sock, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (!sender)
		return false;
	if (sender->refused_by != scope->rules->generation)
		sender->refused_by = 0;
	if (protocol != IPPROTO_TCP || !sender->tgid ||
	    (sender->tgid == task->tgid && sender->label.generation != scope->rules->generation))
		sender->label.subject = subjects_of(scope);
	else if (sender->label.domain != scope->domain || sender->label.generation != scope->rules->generation)
		sender->label.subject = CONFLICTING_SUBJECTS;
	else
		sender->label.subject = both_subjects(sender->label.subject, subjects_of(scope));
	sender->label.domain = scope->domain;
	sender->label.generation = scope->rules->generation;
	sender->pid = task->pid;
	sender->tgid = task->tgid;
	sender->uid = BPF_CORE_READ(task, cred, uid.val);
	bpf_core_read(&sender->comm, sizeof(sender->comm), &task->comm);
	return true;
}

/* Checks the use of a socket by which a resolver is, or may be, asked. */
static __noinline int check_asking_of(struct scope *scope, const struct image_kinds *tables, struct sock *sock,
				      const struct socket_access *access, enum asks asks)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 decision = VERDICT_BLOCK << VERDICT_SHIFT | RULE_UNRESOLVED;
	const struct image_names *names = word_pair(scope->image, tables->dns);

	/* The host's own services have their leases and routes by packet sockets. */
	if (!sock || (scope->domain == HOST_DOMAIN && access->family == AF_PACKET))
		return 0;
	if (names && find_subject(scope, task)) {
		if (asks == ASKS_ANY_NAME)
			decision = keyed_decision(scope, names->cells, ANY_CELL);
		else if (note_sender(sock, access->protocol, scope, task))
			decision = VERDICT_ALLOW;
	}
	return answer_for_socket(scope, task, access, decision);
}

/* Checks whom the use of a socket asks, if there are rules for that. Most ask nobody, and are not to pay for a call. */
static __always_inline int check_asking(struct scope *scope, const struct image_kinds *tables, struct sock *sock,
					const struct socket_access *access)
{
	enum asks asks = tables->dns ? whom_it_asks(access) : ASKS_NOBODY;

	return asks == ASKS_NOBODY ? 0 : check_asking_of(scope, tables, sock, access, unknown(asks));
}

#endif
