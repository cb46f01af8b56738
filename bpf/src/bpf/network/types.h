/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Defines how the programs describe the use of a socket. */
#ifndef ARMOR_NETWORK_TYPES_H
#define ARMOR_NETWORK_TYPES_H

#include <linux/types.h>

#include "core/contract.h"

/* The use of a socket. */
struct socket_access {
	__u32 family, type, protocol;
	__u32 kind; /* enum socket_kind */
	__u32 hook;
	__u32 accepted; /* SOCKET_ACCEPT: the socket is a connection that is being given to who accepts it */
	__u64 sock;	/* address of its struct sock; 0: it is being made */
	__u64 address;	/* of a struct sockaddr in the kernel's memory; 0: none */
	__u64 control;	/* of a message's control data in the kernel's memory */
	__u64 control_length;
	__u32 length;	/* of the struct sockaddr */
	__u32 own_port; /* SOCKET_SETSOCKOPT: the option is about the own port, not about the way of packets */
};

struct ip_address {
	__u32 family;	/* AF_INET or AF_INET6; 0: the use is about no address */
	__u32 port;	/* in host order */
	__u32 words[4]; /* in network order; of IPv4 the first */
};

/* Whom a use of a socket lets communicate: nobody, one whose address is known, one who is not known yet, or all at once. */
enum reach { NOBODY, SOMEBODY, ANYBODY, EVERYBODY };

struct destination {
	enum reach reach;
	__u32 family;
	__u32 key;	 /* policy::destination::DestinationTable::key() */
	__u64 high, low; /* the bits of the address, the first one in the highest */
};

/* What a use of a socket is about. */
struct socket_use {
	struct ip_address ip;
	__u32 own_port; /* the port to which the peer came; 0: the use is not about a peer that came */
	struct destination egress, ingress;
};

/* One end of what a socket without a connection exchanges. */
struct endpoint {
	__u64 high, low;
	__u32 family, key; /* as in struct destination */
};

/* Peers to which a socket without a connection has sent, and from which it expects answers. */
#define RECIPIENTS 16

struct recipients {
	struct bpf_spin_lock lock;
	__u32 next; /* where the next one is noted */
	struct endpoint of[RECIPIENTS];
};

/* The task that last used a socket to which others come. */
struct receiver {
	struct label label;
	__u32 pid, tgid, uid;
	char comm[16];
	__u32 refused; /* a connection that was refused when it was accepted: nothing goes over it */
	/* What was reported last: a peer that is refused sends again and again. */
	__u32 reported_by; /* generation; 0: nothing */
	struct endpoint reported;
};

/* A packet that comes to a socket, and to whom. */
struct incoming {
	struct label label;
	struct ip_address ip;
	struct destination from;
	__u32 decision;
};

#endif
