/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Reads the question of a DNS message (RFC 1035, 4.1) from a packet. */
#ifndef ARMOR_QUESTION_OF_DNS_H
#define ARMOR_QUESTION_OF_DNS_H

#include <bpf/bpf_endian.h>

#include "core/scratch.bpf.h"

struct dns_header {
	__u16 id;
	__u8 flags[2];
	__u16 questions, answers, authorities, additional;
};

#define DNS_RESPONSE 0x80 /* of the first byte of flags */
#define DNS_OPCODE 0x78
/* Bytes of a name as it is sent, each label behind its length, and a length of 0 behind the last one. */
#define MAX_WIRE_NAME 255
#define MAX_DNS_LABEL 63
/* A name is followed by type and class. */
#define SHORTEST_MESSAGE (sizeof(struct dns_header) + 1 + 4)
#define LONGEST_QUESTION (sizeof(struct dns_header) + MAX_WIRE_NAME + 4)

enum question_of_dns {
	QUESTION_NONE,	    /* the message asks nothing */
	QUESTION_UNCERTAIN, /* it may ask for any name */
	QUESTION_NAMED,	    /* scratch->path has the name, from scan.position to scan.end */
};

/* Where the name ends that is written backwards, and the message lies in scratch->path. */
#define BACKWARDS_END 512
#define MESSAGE_AT PATH_CAPACITY

/*
 * Writes a byte of the name twice: backwards for the automaton (policy::dns::NameTable), and with dots for the alert. A byte
 * that would look like the border of a label becomes one that no rule has. The position is in a map for the reason that
 * advance() has.
 */
static long name_step(__u32 step, struct scratch **of)
{
	struct scratch *scratch = *of;
	struct name_walk *walk = &scratch->name_walk;
	__u32 at = walk->at, before;
	__u8 byte, text;

	if (at >= MAX_WIRE_NAME)
		return 1;
	asm volatile("" : "+r"(at)); /* otherwise clang drops the mask that 6.1 requires */
	at &= 255;
	before = at - 1;
	byte = text = scratch->path[MESSAGE_AT + sizeof(struct dns_header) + at];
	if (!walk->left) {
		if (byte > MAX_DNS_LABEL)
			return 1;
		walk->left = byte;
		if (!byte)
			walk->end = at + 1;
		byte = '/';
		text = '.';
	} else {
		walk->left--;
		if (byte >= 'A' && byte <= 'Z')
			byte += 'a' - 'A';
		if (!byte || byte == '/')
			byte = 1;
	}
	scratch->path[BACKWARDS_END - at] = byte;
	if (at)
		scratch->event.strings[before & 255] = text;
	walk->at = at + 1;
	return walk->end != 0;
}

/*
 * Reads the question of the message of this length at a place in the packet, and writes its name with dots to the strings of
 * scratch->event. Global, so that the verifier follows it once.
 */
__noinline int read_question(struct __sk_buff *packet, __u32 at, __u32 length, struct scratch *scratch)
{
	const struct dns_header *header;
	__u32 end;

	if (!scratch)
		return QUESTION_UNCERTAIN;
	scratch->access.tail.dns.name_length = scratch->access.tail.dns.is_named = 0;
	if (length < SHORTEST_MESSAGE)
		return QUESTION_UNCERTAIN;
	if (length > LONGEST_QUESTION)
		length = LONGEST_QUESTION;
	/* Otherwise clang drops the mask, without which 6.1 takes the length for 0. */
	asm volatile("" : "+r"(length));
	length = ((length - 1) & 511) + 1;
	if (bpf_skb_load_bytes(packet, at, &scratch->path[MESSAGE_AT], length))
		return QUESTION_UNCERTAIN;
	header = (void *)&scratch->path[MESSAGE_AT];
	if (header->flags[0] & DNS_RESPONSE)
		return QUESTION_NONE;
	if (header->flags[0] & DNS_OPCODE || header->questions != bpf_htons(1))
		return QUESTION_UNCERTAIN;
	scratch->name_walk = (struct name_walk){};
	bpf_loop(MAX_WIRE_NAME, name_step, &scratch, 0);
	end = scratch->name_walk.end;
	if (!end || sizeof(struct dns_header) + end + 4 > length)
		return QUESTION_UNCERTAIN;
	/* The name of the root has a length of 0 alone. */
	scratch->access.tail.dns.name_length = end > 1 ? end - 2 : 0;
	scratch->access.tail.dns.is_named = 1;
	scratch->scan.position = end > 1 ? BACKWARDS_END + 1 - end : BACKWARDS_END;
	scratch->scan.end = BACKWARDS_END;
	return QUESTION_NAMED;
}

#endif
