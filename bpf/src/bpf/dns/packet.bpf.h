/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Tells what a packet that leaves a socket may be, without reading what it asks. */
#ifndef ARMOR_DNS_PACKET_H
#define ARMOR_DNS_PACKET_H

#include <bpf/bpf_endian.h>
#include <linux/in.h>

#include "core/read.bpf.h"

/* Bytes of heads without options. */
#define IPV4_HEADER 20
#define IN_LOOPBACKNET 127 /* first byte of this machine's addresses */
#define IPV6_HEADER 40
#define UDP_HEADER 8
#define TCP_SEQUENCE 4
#define TCP_FLAGS 13
#define TCP_URGENT 0x20
#define TCP_OFFSET 12 /* byte with the length of the head in its upper half, in words of four bytes */

/* Returns whether the data of a packet is, or may be, in memory that a task can still write. */
static __always_inline bool is_shared(struct __sk_buff *packet, __u32 protocol)
{
	__u64 skb = (__u64)PLAIN(packet);
	__u64 shared = (__u64)ADDRESS(sk_buff, skb, head) + FIELD(sk_buff, skb, end);

	if (FIELD(skb_shared_info, shared, flags))
		return true;
	/* UDP copies what fits into one packet into one piece. Segments that the device makes of it are several messages. */
	return protocol == IPPROTO_UDP && (FIELD(sk_buff, skb, data_len) || FIELD(skb_shared_info, shared, gso_size));
}

/*
 * Returns whether what a raw socket sends may go to a resolver: to its port, or to any of this machine, where Docker's own
 * resolver listens on another one. A fragment does not say what it is part of.
 */
static __always_inline bool may_ask(struct __sk_buff *packet)
{
	__u8 head[IPV4_HEADER], protocol;
	bool is_ipv4, is_local = false;
	__u16 ports[2];
	__u32 at;

	if (bpf_skb_load_bytes(packet, 0, head, sizeof(head)))
		return true;
	is_ipv4 = head[0] >> 4 == 4;
	if (is_ipv4) {
		protocol = head[9];
		at = (head[0] & 0xf) * 4;
		if ((head[6] & 0x3f) | head[7])
			return true;
		is_local = head[16] == IN_LOOPBACKNET;
	} else {
		protocol = head[6];
		at = IPV6_HEADER;
	}
	switch (protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
	case IPPROTO_SCTP:
	case IPPROTO_DCCP:
		return is_local || bpf_skb_load_bytes(packet, at, ports, sizeof(ports)) ||
			ports[1] == bpf_htons(RESOLVER_PORT);
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_FRAGMENT:
	case IPPROTO_DSTOPTS:
		return !is_ipv4;
	}
	return false;
}

#endif
