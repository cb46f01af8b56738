/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Tells what rules for protocols can tell of a socket (policy::network::SocketKind). Families that go over IP by
 * sockets of the kernel's own count as what they go over; nothing else sees those sockets.
 */
#ifndef ARMOR_KIND_H
#define ARMOR_KIND_H

#include <linux/in.h>

#include "core/read.bpf.h"

/* Of UNIX sockets and netlink, which no rule is about. */
#define NO_KIND SOCKET_KINDS

static __always_inline __u32 ip_kind(__u32 type, __u32 protocol)
{
	switch (type) {
	case SOCK_STREAM:
		return protocol == IPPROTO_SCTP ? KIND_SCTP_STREAM : KIND_TCP;
	case SOCK_DGRAM:
		switch (protocol) {
		case 0: /* as socket(2) is asked for it */
		case IPPROTO_UDP:
		case IPPROTO_UDPLITE:
			return KIND_UDP;
		case IPPROTO_ICMP:
			return KIND_PING;
		case IPPROTO_ICMPV6:
			return KIND_PING6;
		}
		return KIND_DGRAM;
	case SOCK_RAW:
		if (protocol == IPPROTO_ICMP)
			return KIND_RAW_ICMP;
		return protocol == IPPROTO_ICMPV6 ? KIND_RAW_ICMP6 : KIND_RAW;
	case SOCK_SEQPACKET:
		return KIND_SCTP_SEQPACKET;
	case SOCK_DCCP:
		return KIND_DCCP;
	case SOCK_RDM:
		return KIND_RDM;
	}
	return KIND_OTHER;
}

static __always_inline bool is_ruled_family(__u32 family)
{
	return family != AF_UNIX && family != AF_NETLINK;
}

static __noinline __u32 kind_of_socket(__u32 family, __u32 type, __u32 protocol)
{
	if (!is_ruled_family(family))
		return NO_KIND;
	switch (family) {
	case AF_INET:
	case AF_INET6:
		return ip_kind(type, protocol);
	case AF_SMC:
		return KIND_TCP;
	case AF_RXRPC:
		return KIND_UDP;
	case AF_PACKET:
		return KIND_PACKET;
	}
	switch (type) {
	case SOCK_STREAM:
		return KIND_STREAM;
	case SOCK_DGRAM:
		return KIND_DGRAM;
	case SOCK_RAW:
		return KIND_RAW;
	case SOCK_RDM:
		return KIND_RDM;
	case SOCK_SEQPACKET:
		return KIND_SEQPACKET;
	case SOCK_DCCP:
		return KIND_DCCP;
	case SOCK_PACKET:
		return KIND_PACKET;
	}
	return KIND_OTHER;
}

/* Returns the address of the struct sock of a file, 0 if it is no socket. */
static __always_inline __u64 sock_of_file(__u64 file)
{
	struct inode *inode = ADDRESS(file, file, f_inode);

	if ((FIELD(inode, inode, i_mode) & S_IFMT) != S_IFSOCK ||
	    FIELD(super_block, ADDRESS(inode, inode, i_sb), s_magic) != SOCKFS_MAGIC)
		return 0;
	return (__u64)ADDRESS(socket, ADDRESS(file, file, private_data), sk);
}

#endif
