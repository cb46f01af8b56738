/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Tells with whom the use of a socket lets it communicate: by the peer's address and port when it is connected and when
 * something is sent without a connection, by the own port when it is bound, listened and accepted on, by that and the peer's
 * address once somebody has come. Where the kernel does not say with whom, everybody counts.
 */
#ifndef ARMOR_USE_H
#define ARMOR_USE_H

#include "network/address.bpf.h"

/* What carries the data of each kind of sockets. */
const __u8 transports[SOCKET_KINDS] = {
	[KIND_TCP] = TRANSPORT_TCP,
	[KIND_UDP] = TRANSPORT_UDP,
	[KIND_PING... KIND_PING6] = TRANSPORT_ICMP,
	[KIND_RAW_ICMP... KIND_PACKET] = TRANSPORT_OTHER,
	[KIND_SCTP_STREAM... KIND_SCTP_SEQPACKET] = TRANSPORT_SCTP,
	[KIND_DCCP] = TRANSPORT_DCCP,
	[KIND_STREAM... KIND_OTHER] = TRANSPORT_OTHER,
};

static __always_inline __u32 transport_of_kind(__u32 kind)
{
	return kind < SOCKET_KINDS ? transports[kind] : TRANSPORT_OTHER;
}

/* Returns whether who uses such a socket writes the packets' own headers, or names addresses in a way of its own. */
static __always_inline bool names_addresses_itself(const struct socket_access *access)
{
	if (access->kind < KIND_RAW_ICMP || access->kind > KIND_PACKET)
		return access->family == AF_RXRPC;
	return access->kind != KIND_RAW || is_ip(access) || access->family == AF_XDP;
}

/* The head of control data (struct cmsghdr, include/linux/socket.h). */
struct control_head {
	__u64 length;
	__u32 level, type;
};

struct control_walk {
	__u64 at, left; /* the control data that is left */
	__u32 routed;
};

static long control_step(__u32 step, struct control_walk *walk)
{
	struct control_head head;

	if (walk->left < sizeof(head))
		return 1;
	walk->routed = bpf_probe_read_kernel(&head, sizeof(head), (void *)walk->at) ||
		(head.level == SOL_IP && head.type == IP_RETOPTS) ||
		(head.level == SOL_IPV6 && (head.type == IPV6_RTHDR || head.type == IPV6_2292RTHDR)) ||
		(head.level == SOL_SCTP && (head.type == SCTP_DSTADDRV4 || head.type == SCTP_DSTADDRV6));
	/* The kernel takes no message of which one is too short or too long. */
	if (walk->routed || head.length < sizeof(head) || head.length > walk->left)
		return 1;
	head.length = (head.length + 7) & ~7ull;
	walk->at += head.length;
	walk->left -= head.length < walk->left ? head.length : walk->left;
	return 0;
}

/* Returns whether control data may send a message elsewhere than to its address. */
static __always_inline bool has_route(const struct socket_access *access)
{
	struct control_walk walk = {
		.at = access->control,
		.left = access->control_length,
		.routed = access->control_length > MAX_CONTROL,
	};

	if (walk.left && !walk.routed)
		bpf_loop(MAX_CONTROL / sizeof(struct control_head), control_step, &walk, 0);
	return walk.routed;
}

/* Returns whether a connection was accepted: it has its backlog from the socket that was listened on. */
static __always_inline bool is_accepted(const struct socket_access *access)
{
	return is_ip(access) && FIELD(sock, access->sock, sk_max_ack_backlog) &&
		FIELD(sock, access->sock, __sk_common.skc_state) != TCP_LISTEN;
}

/* Returns whether bind(2) gave a socket its port. */
static __always_inline bool is_bound(__u64 sock)
{
	return BPF_CORE_READ_BITFIELD_PROBED((struct sock *)sock, sk_userlocks) & SOCK_BINDPORT_LOCK;
}

/* Tells to whom a use of a socket that may send does so. */
static __always_inline void find_egress(const struct socket_access *access, const struct ip_address *ip,
					struct destination *to)
{
	bool is_sctp = access->kind == KIND_SCTP_STREAM || access->kind == KIND_SCTP_SEQPACKET;

	to->reach = ip->family ? SOMEBODY : NOBODY;
	switch (access->hook) {
	case SOCKET_SETSOCKOPT:
		to->reach = access->own_port ? NOBODY : EVERYBODY;
		break;
	case SOCKET_SENDMSG:
		if (has_route(access))
			to->reach = EVERYBODY;
		break;
	case SOCKET_CONNECT:
		/* Only the first of several addresses was read. */
		if (is_sctp && access->length > sizeof(struct sockaddr_in6))
			to->reach = EVERYBODY;
		if (is_sctp && ip->family == AF_INET && access->length > sizeof(struct sockaddr_in))
			to->reach = EVERYBODY;
		break;
	case SOCKET_RECEIVE:
	case PREEXISTING_FILE:
		/* They have several peers, or keep them elsewhere. */
		if (is_sctp || is_smc(access))
			to->reach = EVERYBODY;
		else if (is_accepted(access))
			to->reach = NOBODY;
		break;
	}
	to->key = transport_of_kind(access->kind) << 16;
	if (to->key != TRANSPORT_ICMP << 16)
		to->key |= ip->port & 0xffff;
	set_address(to, ip);
}

/* Tells on which port a use of a socket that may let others come does so. */
static __always_inline void find_ingress(const struct socket_access *access, const struct ip_address *ip,
					 struct destination *to)
{
	__u32 port = 0, transport = transport_of_kind(access->kind);
	bool has_ports = transport != TRANSPORT_ICMP && transport != TRANSPORT_OTHER, any_port = false;
	bool has_come = false;

	switch (access->hook) {
	case SOCKET_BIND:
		port = ip->family ? ip->port : 0;
		break;
	case SOCKET_LISTEN:
	case SOCKET_ACCEPT:
		if (access->accepted) {
			/* A connection that has ended has lost its port, but not what came over it. */
			port = bpf_ntohs(FIELD(inet_sock, access->sock, inet_sport));
			any_port = !port;
			has_come = true;
			break;
		}
		port = ip->family ? ip->port : 0;
		/* The kernel is about to choose one. */
		any_port = !port;
		break;
	case SOCKET_SETSOCKOPT:
		any_port = access->own_port;
		break;
	case SOCKET_RECEIVE:
	case PREEXISTING_FILE:
		any_port = is_smc(access);
		/* The kernel chooses a port for what is not bound. */
		if (!is_ip(access) ||
		    !(FIELD(sock, access->sock, __sk_common.skc_state) == TCP_LISTEN || is_accepted(access) ||
		      is_bound(access->sock)))
			break;
		port = FIELD(sock, access->sock, __sk_common.skc_num);
		/* Others have several peers, or keep them elsewhere. */
		has_come = transport == TRANSPORT_TCP && ip->family && is_accepted(access);
		break;
	}
	to->reach = !has_ports ? NOBODY : any_port ? EVERYBODY : !port ? NOBODY : has_come ? SOMEBODY : ANYBODY;
	to->key = transport << 16 | (port & 0xffff);
	set_address(to, ip);
}

/*
 * Tells what a use of a socket is about. Global, so that the verifier follows it once per program, and does
 * not go on with each of its outcomes.
 */
__noinline int describe_use(const struct socket_access *access, struct socket_use *use)
{
	struct ip_address ip = {};
	bool is_certain;

	if (!access || !use)
		return 0;
	read_address(access, &ip);
	use->ip = ip;
	use->egress.reach = use->ingress.reach = NOBODY;
	unmap(&ip);
	switch (access->hook) {
	case SOCKET_BIND:
	case SOCKET_LISTEN:
	case SOCKET_ACCEPT:
		find_ingress(access, &ip, &use->ingress);
		if (access->accepted && (!ip.family || is_nowhere(&ip)))
			use->ingress.reach = EVERYBODY;
		break;
	case SOCKET_SETSOCKOPT:
	case SOCKET_RECEIVE:
	case PREEXISTING_FILE:
		find_ingress(access, &ip, &use->ingress);
		/* fallthrough */
	case SOCKET_CONNECT:
	case SOCKET_SENDMSG:
		is_certain = resolve_nowhere(access, &ip);
		find_egress(access, &ip, &use->egress);
		if (!is_certain && use->egress.reach == SOMEBODY)
			use->egress.reach = EVERYBODY;
	}
	use->own_port = use->ingress.reach == SOMEBODY ? use->ingress.key & 0xffff : 0;
	if (names_addresses_itself(access))
		use->egress.reach = use->ingress.reach = EVERYBODY;
	return 0;
}

#endif
