/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Tells which address and port of IP the use of a socket is about. What the kernel does with an address counts, not how
 * it is written.
 */
#ifndef ARMOR_ADDRESS_H
#define ARMOR_ADDRESS_H

#include <bpf/bpf_endian.h>

#include "network/kind.bpf.h"
#include "network/types.h"

/* Completes an access to a socket that exists. */
static __always_inline void describe_sock(struct socket_access *access)
{
	access->family = FIELD(sock, access->sock, __sk_common.skc_family);
	access->type = FIELD(sock, access->sock, sk_type);
	access->protocol = FIELD(sock, access->sock, sk_protocol);
}

static __always_inline bool is_ip(const struct socket_access *access)
{
	return access->family == AF_INET || access->family == AF_INET6;
}

/* Reads the address that a call names. */
static __always_inline void read_named(const struct socket_access *access, struct ip_address *ip)
{
	struct sockaddr_in6 address = {};
	__u32 family;

	if (access->length < sizeof(struct sockaddr_in) ||
	    bpf_probe_read_kernel(&address, sizeof(struct sockaddr_in), (void *)access->address))
		return;
	family = address.sin6_family;
	/* Without a family, IPv4 takes an address for its own, but connect(2) ends a connection. */
	if (!family && access->family == AF_INET && access->hook != SOCKET_CONNECT)
		family = AF_INET;
	if (family == AF_INET) {
		ip->words[0] = ((struct sockaddr_in *)&address)->sin_addr.s_addr;
	} else if (family != AF_INET6 || access->length < SIN6_LEN_RFC2133 ||
		   bpf_probe_read_kernel(&address, SIN6_LEN_RFC2133, (void *)access->address)) {
		return;
	} else {
		__builtin_memcpy(ip->words, &address.sin6_addr, sizeof(ip->words));
	}
	ip->family = family;
	ip->port = bpf_ntohs(address.sin6_port);
}

/* Reads the other end of a connection. */
static __always_inline void read_peer(const struct socket_access *access, struct ip_address *ip)
{
	const struct sock_common *sock = (void *)access->sock;
	__u32 state = FIELD(sock_common, sock, skc_state);

	if (!is_ip(access) || state == TCP_CLOSE || state == TCP_LISTEN)
		return;
	if (access->family == AF_INET)
		ip->words[0] = FIELD(sock_common, sock, skc_daddr);
	else
		bpf_core_read(ip->words, sizeof(ip->words), &sock->skc_v6_daddr);
	ip->family = access->family;
	ip->port = bpf_ntohs(FIELD(sock_common, sock, skc_dport));
}

/* Reads the own end of a socket that has a port. */
static __always_inline void read_own(const struct socket_access *access, struct ip_address *ip)
{
	const struct sock_common *sock = (void *)access->sock;

	if (!is_ip(access) || !FIELD(sock_common, sock, skc_num))
		return;
	if (access->family == AF_INET)
		ip->words[0] = FIELD(sock_common, sock, skc_rcv_saddr);
	else
		bpf_core_read(ip->words, sizeof(ip->words), &sock->skc_v6_rcv_saddr);
	ip->family = access->family;
	ip->port = FIELD(sock_common, sock, skc_num);
}

static __always_inline void read_address(const struct socket_access *access, struct ip_address *ip)
{
	if (access->address)
		read_named(access, ip);
	else if (access->hook == SOCKET_LISTEN)
		read_own(access, ip);
	else if (access->hook == SOCKET_RECEIVE || access->hook == PREEXISTING_FILE)
		read_peer(access, ip);
}

/* Turns an address of IPv4 within IPv6 into one of IPv4. */
static __always_inline void unmap(struct ip_address *ip)
{
	if (ip->family == AF_INET6 && !ip->words[0] && !ip->words[1] && ip->words[2] == bpf_htonl(0xffff)) {
		ip->family = AF_INET;
		ip->words[0] = ip->words[3];
		ip->words[2] = ip->words[3] = 0;
	}
}

/* Replaces the address of nowhere by where the kernel sends what goes there: to this machine. */
static __always_inline void resolve_nowhere(const struct socket_access *access, struct ip_address *ip)
{
	if (ip->family == AF_INET && !ip->words[0]) {
		/* ip_route_output_key_hash_rcu(), net/ipv4/route.c: to where it comes from. */
		if (access->sock && is_ip(access))
			ip->words[0] = FIELD(sock, access->sock, __sk_common.skc_rcv_saddr);
		if (!ip->words[0])
			ip->words[0] = bpf_htonl(INADDR_LOOPBACK);
	} else if (ip->family == AF_INET6 && !(ip->words[0] | ip->words[1] | ip->words[2] | ip->words[3])) {
		ip->words[3] = bpf_htonl(1);
	}
}

static __always_inline void write_address(struct socket_event *event, const struct ip_address *ip)
{
	event->address_family = ip->family;
	event->port = ip->port;
	__builtin_memcpy(event->address, ip->words, sizeof(event->address));
}

#endif
