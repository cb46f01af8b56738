/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Defines what the programs know of who asks for names of DNS, and of what. */
#ifndef ARMOR_DNS_TYPES_H
#define ARMOR_DNS_TYPES_H

#include "core/contract.h"

/* The subject of a label that grants no right which depends on it. */
#define CONFLICTING_SUBJECTS (~0u)

/* The task that last connected a socket to a resolver, or sent to one over it. */
struct sender {
	struct label label;
	__u32 pid, tgid, uid;
	char comm[16];
	/* The last segment of TCP that was refused, and by which generation: the kernel sends it again and again. */
	__u32 refused_by; /* 0: none */
	__u32 refused_sequence;
};

/* Who sends a packet, and the data in it. */
struct outgoing {
	struct sender sender;
	__u32 is_own; /* the sender is the current task */
	__u32 at, end;
	__u32 sequence; /* of a segment of TCP with data */
	__u32 scratch;	/* index of the scratch that the decision owns */
};

struct name_walk {
	__u32 at;   /* next byte of the name as it is sent */
	__u32 left; /* bytes of the label that are left */
	__u32 end;  /* one behind the length of 0; 0: not found yet */
};

#endif
