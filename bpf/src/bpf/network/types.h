/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Defines how the programs describe the use of a socket. */
#ifndef ARMOR_NETWORK_TYPES_H
#define ARMOR_NETWORK_TYPES_H

#include <linux/types.h>

/* The use of a socket. */
struct socket_access {
	__u32 family, type, protocol;
	__u32 kind; /* enum socket_kind */
	__u32 hook;
	__u32 reserved;
	__u64 sock;    /* address of its struct sock; 0: it is being made */
	__u64 address; /* of a struct sockaddr in the kernel's memory; 0: none */
	__u64 control; /* of a message's control data in the kernel's memory */
	__u64 control_length;
	__u32 length;	/* of the struct sockaddr */
	__u32 own_port; /* SOCKET_SETSOCKOPT: the option is about the own port, not about the way of packets */
};

struct ip_address {
	__u32 family;	/* AF_INET or AF_INET6; 0: the use is about no address */
	__u32 port;	/* in host order */
	__u32 words[4]; /* in network order; of IPv4 the first */
};

/* How many a use of a socket lets communicate. */
enum reach { NOBODY, SOMEBODY, EVERYBODY };

struct destination {
	enum reach reach;
	__u32 family;
	__u32 key;	 /* policy::destination::DestinationTable::key() */
	__u64 high, low; /* the bits of the address, the first one in the highest */
};

/* What a use of a socket is about. */
struct socket_use {
	struct ip_address ip;
	struct destination egress, ingress;
};

#endif
