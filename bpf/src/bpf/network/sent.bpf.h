/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Remembers at a socket to whom it sent last, without a connection, if that was silently allowed: what sends to a resolver or
 * a log does so again and again.
 *
 * Invariant: only addresses of IPv4 that say by themselves where a message goes are remembered, and only where no rule is about
 * names of DNS or the peers of ingress, for which each message counts.
 */
#ifndef ARMOR_SENT_H
#define ARMOR_SENT_H

#include "core/scope.bpf.h"
#include "network/address.bpf.h"

struct sent {
	struct bpf_spin_lock lock;
	__u32 generation;
	__u32 domain;
	__u32 subject;
	__u64 address; /* the first bytes of a struct sockaddr_in: family, port and address */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct sent);
} sents SEC(".maps");

/* Returns the address of a message in the form of struct sent; 0 if it is none that can be remembered. */
static __always_inline __u64 address_of_message(struct msghdr *message)
{
	__u64 named = (__u64)PLAIN(message->msg_name), address;

	if (!named || message->msg_controllen || message->msg_namelen < (int)sizeof(struct sockaddr_in))
		return 0;
	address = (__u64)FIELD(sockaddr_in, named, sin_family) | (__u64)FIELD(sockaddr_in, named, sin_port) << 16 |
		(__u64)FIELD(sockaddr_in, named, sin_addr.s_addr) << 32;
	return (__u16)address == AF_INET && address >> 32 ? address : 0;
}

static __always_inline bool was_sent(const struct scope *scope, struct sock *sock, __u64 address)
{
	struct sent *sent = bpf_sk_storage_get(&sents, sock, 0, 0);
	bool was;

	if (!sent)
		return false;
	bpf_spin_lock(&sent->lock);
	was = sent->generation == scope->rules->generation && sent->domain == scope->domain &&
		sent->subject == subjects_of(scope) && sent->address == address;
	bpf_spin_unlock(&sent->lock);
	return was;
}

static __always_inline void remember_sent(const struct scope *scope, struct sock *sock, __u64 address)
{
	struct sent *sent = bpf_sk_storage_get(&sents, sock, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (!sent)
		return;
	bpf_spin_lock(&sent->lock);
	sent->generation = scope->rules->generation;
	sent->domain = scope->domain;
	sent->subject = subjects_of(scope);
	sent->address = address;
	bpf_spin_unlock(&sent->lock);
}

#endif
