/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Decides who comes to a socket, by the peer's address and the socket's own port. The program runs for each packet that comes to
 * a socket of IP, and looks at those with which communication begins, for sockets at which a receiver is noted. What is refused
 * is as if it had never come.
 *
 * The judge cannot take part: it does not fit into programs of this kind.
 */
#ifndef ARMOR_INGRESS_H
#define ARMOR_INGRESS_H

#include "dns/packet.bpf.h"
#include "guard/guard.bpf.h"
#include "network/destination.bpf.h"
#include "network/receiver.bpf.h"

enum packet_fate { PACKET_DROP, PACKET_PASS };

/* Where the heads of IP have the sender's address. */
#define IPV4_SOURCE 12
#define IPV6_SOURCE 8
#define TCP_SYN 0x02
#define TCP_ACK 0x10
#define SCTP_CHUNKS 12 /* where the first chunk begins */
#define SCTP_INIT 1    /* which is alone in its packet */

/* Returns where the data of a packet's transport begins, from the head of IP. */
static __always_inline __u32 transport_offset(struct __sk_buff *packet)
{
	__u64 skb = (__u64)PLAIN(packet);

	return FIELD(sk_buff, skb, transport_header) - FIELD(sk_buff, skb, network_header);
}

/* Returns whether a socket's packet begins communication that the socket did not ask for. */
static __always_inline bool begins_communication(struct __sk_buff *packet, const struct bpf_sock *sock)
{
	__u8 byte;

	switch (sock->protocol) {
	case IPPROTO_TCP:
		if (sock->state != TCP_LISTEN)
			return false;
		return bpf_skb_load_bytes(packet, transport_offset(packet) + TCP_FLAGS, &byte, sizeof(byte)) ||
			(byte & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	case IPPROTO_SCTP:
		if (sock->state != TCP_LISTEN)
			return false;
		return bpf_skb_load_bytes(packet, transport_offset(packet) + SCTP_CHUNKS, &byte, sizeof(byte)) ||
			byte == SCTP_INIT;
	case IPPROTO_DCCP:
		return sock->state == TCP_LISTEN;
	}
	return sock->state != TCP_ESTABLISHED;
}

static __always_inline __u32 transport_of_protocol(__u32 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return TRANSPORT_TCP;
	case IPPROTO_SCTP:
		return TRANSPORT_SCTP;
	case IPPROTO_DCCP:
		return TRANSPORT_DCCP;
	}
	return TRANSPORT_UDP;
}

/* Reads who sent a packet. Returns false if it cannot be read. */
static __always_inline bool read_source(struct __sk_buff *packet, struct ip_address *ip)
{
	__u16 port;
	__u8 first;

	*ip = (struct ip_address){};
	if (bpf_skb_load_bytes(packet, 0, &first, sizeof(first)))
		return false;
	if (first >> 4 == 4) {
		ip->family = AF_INET;
		if (bpf_skb_load_bytes(packet, IPV4_SOURCE, ip->words, sizeof(ip->words[0])))
			return false;
	} else {
		ip->family = AF_INET6;
		if (bpf_skb_load_bytes(packet, IPV6_SOURCE, ip->words, sizeof(ip->words)))
			return false;
	}
	if (bpf_skb_load_bytes(packet, transport_offset(packet), &port, sizeof(port)))
		return false;
	ip->port = bpf_ntohs(port);
	return true;
}

/* Decides on the packet that scratch->incoming describes. Global, so that the verifier follows it once. */
__noinline int decide_incoming(__u32 slot)
{
	struct scratch *scratch = scratch_at(slot);
	const struct image_kinds *tables;
	const struct incoming *incoming;
	__u32 decision;
	struct scope scope;

	if (!scratch)
		return VERDICT_BLOCK << VERDICT_SHIFT | RULE_UNRESOLVED;
	incoming = &scratch->incoming;
	if (!enter_domain(&scope, incoming->label.domain) || !(scope.rules->flags & DOMAIN_PEERS))
		return VERDICT_ALLOW;
	/* With other rules the program's class is another, which the next use of the socket will have noted. */
	if (scope.rules->flags & DOMAIN_SUBJECTS)
		set_subject(&scope,
			    incoming->label.generation == scope.rules->generation ? incoming->label.subject :
										    CONFLICTING_SUBJECTS);
	tables = tables_of_kinds(&scope);
	decision = tables ? decide_destination(&scope, &tables->ingress, &incoming->from) :
			    VERDICT_BLOCK << VERDICT_SHIFT | RULE_UNRESOLVED;
	/* Without a class nothing is known but what the rules do at worst. */
	if ((decision & RULE_MASK) == RULE_UNRESOLVED)
		decision = guard_verdict(scope.rules) << VERDICT_SHIFT | RULE_UNRESOLVED;
	note_decision(&scope, &scratch->access, decision);
	return decision;
}

/* Sends the event about the decision in scratch->access. Who uses the socket may be gone: no more is known of it. */
static __always_inline void report_incoming(struct scratch *scratch, const struct receiver *receiver,
					    const struct bpf_sock *sock)
{
	struct event_header *header = &scratch->event.header;
	struct socket_event *event = &scratch->event.tail.socket;
	struct access *access = &scratch->access;

	if (!count_decision(access->domain, access->decision, access->alerts_per_second))
		return;
	__builtin_memset(header, 0, sizeof(*header));
	header->kind = EVENT_SOCKET;
	header->hook = CGROUP_INGRESS;
	header->time = bpf_ktime_get_boot_ns();
	header->generation = access->generation;
	header->domain = access->domain;
	header->decision = access->decision;
	header->pid = receiver->pid;
	header->tgid = receiver->tgid;
	header->uid = receiver->uid;
	__builtin_memcpy(header->comm, receiver->comm, sizeof(header->comm));
	header->length = __builtin_offsetof(struct event, strings);
	event->family = sock->family;
	event->type = sock->type;
	event->protocol = sock->protocol;
	event->descriptor = 0;
	event->own_port = sock->src_port;
	write_address(event, &scratch->incoming.ip);
	put(&scratch->event, 0);
}

/* Returns whether a packet that begins communication is refused. */
static __always_inline bool refuses_incoming(struct __sk_buff *packet, struct bpf_sock *sock, struct receiver *receiver,
					     struct scratch *scratch)
{
	struct incoming *incoming = &scratch->incoming;
	struct endpoint *reported = &receiver->reported;
	struct ip_address ip;
	struct destination peer;
	struct recipients *sent_to;
	__u32 decision;

	incoming->label = receiver->label;
	incoming->from.reach = read_source(packet, &ip) ? SOMEBODY : EVERYBODY;
	incoming->from.key = transport_of_protocol(sock->protocol) << 16 | (sock->src_port & 0xffff);
	incoming->ip = ip;
	unmap(&ip);
	set_address(&incoming->from, &ip);
	decision = decide_incoming(scratch->slot);
	if (!(decision >> VERDICT_SHIFT))
		return false;
	peer = incoming->from;
	peer.key = (peer.key & 0xffff0000) | (ip.port & 0xffff);
	sent_to = incoming->from.reach == SOMEBODY ? bpf_sk_storage_get(&recipients, sock, 0, 0) : 0;
	if (sent_to && has_sent_to(sent_to, &peer))
		return false;
	/* The kernel of a peer that gets no answer sends again. */
	if (receiver->reported_by == scratch->access.generation && is_endpoint(reported, &peer)) {
		count(blocks(decision) ? COUNT_BLOCKED : COUNT_AUDITED);
		return blocks(decision);
	}
	set_endpoint(reported, &peer);
	receiver->reported_by = scratch->access.generation;
	report_incoming(scratch, receiver, sock);
	return blocks(decision);
}

/* Returns the receiver of a socket. MPTCP takes packets by sockets of the kernel's own, below the one that tasks use. */
static __always_inline struct receiver *receiver_of(struct bpf_sock *sock)
{
	struct receiver *receiver = bpf_sk_storage_get(&receivers, sock, 0, 0);
	struct mptcp_sock *whole;

	if (receiver || !bpf_core_type_exists(struct mptcp_sock) || sock->protocol != IPPROTO_TCP)
		return receiver;
	whole = bpf_skc_to_mptcp_sock(sock);
	return whole ? bpf_sk_storage_get(&receivers, whole, 0, 0) : 0;
}

SEC("cgroup_skb/ingress")
int peer_ingress(struct __sk_buff *packet)
{
	struct bpf_sock *sock = packet->sk;
	struct receiver *receiver;
	struct scratch *scratch;
	bool refused;

	sock = sock ? bpf_sk_fullsock(sock) : 0;
	receiver = sock ? receiver_of(sock) : 0;
	if (!receiver)
		return PACKET_PASS;
	if (receiver->refused)
		return PACKET_DROP;
	if (!begins_communication(packet, sock))
		return PACKET_PASS;
	scratch = claim_scratch();
	if (!scratch) {
		refuse_unreported();
		return PACKET_DROP;
	}
	refused = refuses_incoming(packet, sock, receiver, scratch);
	release_scratch(scratch);
	return refused ? PACKET_DROP : PACKET_PASS;
}

/* Lets nothing out over a connection that was refused when it was accepted. */
SEC("cgroup_skb/egress")
int peer_egress(struct __sk_buff *packet)
{
	struct bpf_sock *sock = packet->sk;
	struct receiver *receiver;

	sock = sock ? bpf_sk_fullsock(sock) : 0;
	receiver = sock ? receiver_of(sock) : 0;
	return receiver && receiver->refused ? PACKET_DROP : PACKET_PASS;
}

#endif
