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

static __always_inline void describe(struct socket_access *access, __u64 sock, __u32 family, __u32 type, __u32 protocol)
{
	access->sock = sock;
	access->family = family;
	access->type = type;
	access->protocol = protocol;
	access->kind = unknown(kind_of_socket(family, type, protocol));
}

/* Completes an access to a socket that a hook got. */
static __always_inline void describe_sock(struct socket_access *access, struct sock *sock)
{
	describe(access, (__u64)PLAIN(sock), sock->__sk_common.skc_family, sock->sk_type, sock->sk_protocol);
}

/* Completes an access to a socket that is known by its address. */
static __always_inline void describe_sock_at(struct socket_access *access, __u64 sock)
{
	describe(access, sock, FIELD(sock, sock, __sk_common.skc_family), FIELD(sock, sock, sk_type),
		 FIELD(sock, sock, sk_protocol));
}

static __always_inline bool is_ip(const struct socket_access *access)
{
	return access->family == AF_INET || access->family == AF_INET6;
}

/* Returns whether a socket communicates by another one, of the kernel's own. */
static __always_inline bool is_smc(const struct socket_access *access)
{
	return access->family == AF_SMC || (is_ip(access) && access->protocol == IPPROTO_SMC);
}

/* Reads the address that a call names. */
static __always_inline void read_named(const struct socket_access *access, struct ip_address *ip)
{
	const void *address = (void *)access->address;
	__u32 family;

	if (access->length < sizeof(struct sockaddr_in))
		return;
	family = FIELD(sockaddr_in, address, sin_family);
	/*
	 * Without a family, IPv4 takes an address for its own, but connect(2) ends a connection. A socket of IPv6 can
	 * become one of IPv4 meanwhile (IPV6_ADDRFORM).
	 */
	if (!family && (is_ip(access) || access->family == AF_SMC) && access->hook != SOCKET_CONNECT)
		family = AF_INET;
	if (family == AF_INET) {
		ip->words[0] = FIELD(sockaddr_in, address, sin_addr.s_addr);
	} else if (family == AF_INET6 && access->length >= SIN6_LEN_RFC2133) {
		for (int i = 0; i < 4; i++)
			ip->words[i] = FIELD(sockaddr_in6, address, sin6_addr.in6_u.u6_addr32[i]);
	} else {
		return;
	}
	ip->family = family;
	ip->port = bpf_ntohs(FIELD(sockaddr_in, address, sin_port));
}

/* Reads the other end of a connection. */
static __always_inline void read_peer(const struct socket_access *access, struct ip_address *ip)
{
	const struct sock_common *sock = (void *)access->sock;
	__u32 state = FIELD(sock_common, sock, skc_state);

	/* What came over a connection can be read after its end. */
	if (!is_ip(access) || (!access->accepted && (state == TCP_CLOSE || state == TCP_LISTEN)))
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
	else if (access->hook == SOCKET_LISTEN || (access->hook == SOCKET_ACCEPT && !access->accepted))
		read_own(access, ip);
	else if (access->accepted || access->hook == SOCKET_RECEIVE || access->hook == PREEXISTING_FILE)
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

/* Sets the bits of the address that a table of destinations is asked about. */
static __always_inline void set_address(struct destination *to, const struct ip_address *ip)
{
	to->family = ip->family;
	to->high = (__u64)bpf_ntohl(ip->words[0]) << 32 | bpf_ntohl(ip->words[1]);
	to->low = (__u64)bpf_ntohl(ip->words[2]) << 32 | bpf_ntohl(ip->words[3]);
}

static __always_inline bool is_nowhere(const struct ip_address *ip)
{
	return !(ip->words[0] | ip->words[1] | ip->words[2] | ip->words[3]);
}

/*
 * Replaces the address of nowhere by that of this machine, where the kernel sends what goes there. Returns false if the
 * own address decides where it goes: to that, or if it is one of IPv4 within IPv6, to this machine's of IPv4.
 */
static __always_inline bool resolve_nowhere(const struct socket_access *access, struct ip_address *ip)
{
	const struct sock_common *sock = (void *)access->sock;
	struct ip_address own = {};

	if (!ip->family || !is_nowhere(ip))
		return true;
	/* Control data may name an own address. */
	if (!is_ip(access) || is_smc(access) || access->control_length)
		return false;
	if (access->family == AF_INET)
		own.words[0] = FIELD(sock_common, sock, skc_rcv_saddr);
	else
		bpf_core_read(own.words, sizeof(own.words), &sock->skc_v6_rcv_saddr);
	ip->words[ip->family == AF_INET ? 0 : 3] = bpf_htonl(ip->family == AF_INET ? INADDR_LOOPBACK : 1);
	return is_nowhere(&own);
}

static __always_inline void write_address(struct socket_event *event, const struct ip_address *ip)
{
	event->address_family = ip->family;
	event->port = ip->port;
	__builtin_memcpy(event->address, ip->words, sizeof(event->address));
}

#endif
