/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Decides on what is sent to resolvers. The program runs for each packet that leaves a socket of IP, behind every copy from
 * user memory, and looks at those of sockets at which a sender is noted, whatever port they go to: rules of the packet filter
 * may have changed it. A packet that may ask for several names, or for one that cannot be read, gets the strictest decision.
 *
 * The judge cannot take part: it does not fit into programs of this kind.
 */
#ifndef ARMOR_EGRESS_H
#define ARMOR_EGRESS_H

#include "dns/packet.bpf.h"
#include "dns/question.bpf.h"
#include "dns/sender.bpf.h"
#include "guard/guard.bpf.h"

enum egress { EGRESS_DROP, EGRESS_SEND };

/* Messages in one segment of TCP. */
#define MESSAGES 8

/* Sets the scope to the rules that a sender with this label is under. Returns the word of their names, 0 if there are none. */
static __always_inline __u32 enter_senders_scope(struct scope *scope, const struct label *label)
{
	const struct image_kinds *tables;

	if (!enter_domain(scope, label->domain))
		return 0;
	tables = tables_of_kinds(scope);
	if (!tables || !tables->dns)
		return 0;
	/* With other rules the program's class is another, which the next message will have noted. */
	if (scope->rules->flags & DOMAIN_SUBJECTS)
		set_subject(scope,
			    label->generation == scope->rules->generation ? label->subject : CONFLICTING_SUBJECTS);
	return tables->dns;
}

/* Sends the event about a decision. */
static __always_inline void report_question(const struct scope *scope, struct scratch *scratch, __u32 decision)
{
	const struct outgoing *outgoing = &scratch->outgoing;
	struct event_header *header = &scratch->event.header;
	__u32 length = scratch->access.tail.dns.name_length;

	begin(scratch, bpf_get_current_task_btf(), CGROUP_EGRESS);
	scratch->access.kind = EVENT_DNS;
	note_decision(scope, &scratch->access, decision);
	if (outgoing->is_own) {
		report(scratch);
		return;
	}
	if (!count_decision(scope->domain, decision, scope->rules->alerts_per_second))
		return;
	/* The sender may be gone: no more is known of it. */
	__builtin_memset(header, 0, sizeof(*header));
	header->kind = EVENT_DNS;
	header->hook = CGROUP_EGRESS;
	header->time = bpf_ktime_get_boot_ns();
	header->generation = scope->rules->generation;
	header->domain = scope->domain;
	header->decision = decision;
	header->pid = outgoing->sender.pid;
	header->tgid = outgoing->sender.tgid;
	header->uid = outgoing->sender.uid;
	__builtin_memcpy(header->comm, outgoing->sender.comm, sizeof(header->comm));
	header->length = __builtin_offsetof(struct event, strings) + length;
	scratch->event.tail = scratch->access.tail;
	put(&scratch->event, length);
}

/*
 * Returns whether the message at outgoing.at is refused, with the scratch of this index. `length` is 0 if it cannot be read. Global,
 * so that the verifier follows it once.
 */
__noinline int refuses_message(struct __sk_buff *packet, __u32 slot, __u32 length)
{
	__u32 class = ANY_CELL, state, decision, asks, table;
	struct scratch *scratch = scratch_at(slot);
	const struct image_names *names;
	struct scope scope;

	if (!scratch)
		return true;
	table = enter_senders_scope(&scope, &scratch->outgoing.sender.label);
	if (!table)
		return false;
	names = word_pair(scope.image, table);
	if (!names)
		return true;
	asks = read_question(packet, scratch->outgoing.at, length, scratch);
	if (asks == QUESTION_NONE)
		return false;
	if (asks == QUESTION_NAMED) {
		scratch->scan.at = names->names.start;
		state = scan_path(scope.image, scratch, &names->names);
		if (state != NO_STATE)
			class = classes_at(scope.image, &names->names, state) & 0xffff;
	}
	decision = unknown(keyed_decision(&scope, names->cells, class));
	/* Without a class nothing is known but what the rules do at worst. */
	if ((decision & RULE_MASK) == RULE_UNRESOLVED)
		decision = guard_verdict(scope.rules) << VERDICT_SHIFT | RULE_UNRESOLVED;
	if (decision >> VERDICT_SHIFT)
		report_question(&scope, scratch, decision);
	return blocks(decision);
}

/* Returns whether a segment of TCP is refused: it has whole messages, each behind its length in two bytes. */
static __always_inline bool refuses_segment(struct __sk_buff *packet, struct scratch *scratch)
{
	struct outgoing *outgoing = &scratch->outgoing;
	__u16 length;

#pragma clang loop unroll(disable)
	for (int i = 0; i < MESSAGES && outgoing->at != outgoing->end; i++) {
		if (bpf_skb_load_bytes(packet, outgoing->at, &length, sizeof(length)))
			break;
		length = bpf_ntohs(length);
		outgoing->at += sizeof(length);
		if (outgoing->at + length > outgoing->end)
			break;
		if (refuses_message(packet, scratch->slot, length))
			return true;
		outgoing->at += length;
	}
	return outgoing->at != outgoing->end && refuses_message(packet, scratch->slot, 0);
}

/* Returns whether a packet is refused. */
static __always_inline bool refuses_packet(struct __sk_buff *packet, __u32 type, __u32 protocol, __u32 generation,
					   struct scratch *scratch)
{
	struct outgoing *outgoing = &scratch->outgoing;
	__u64 skb = (__u64)PLAIN(packet);
	__u8 header = UDP_HEADER, flags = 0;
	__u32 at;

	if (type == SOCK_RAW)
		return may_ask(packet) && refuses_message(packet, scratch->slot, 0);
	at = FIELD(sk_buff, skb, transport_header) - FIELD(sk_buff, skb, network_header);
	outgoing->end = packet->len;
	if (protocol == IPPROTO_TCP) {
		if (bpf_skb_load_bytes(packet, at + TCP_OFFSET, &header, sizeof(header)) ||
		    bpf_skb_load_bytes(packet, at + TCP_FLAGS, &flags, sizeof(flags)) ||
		    bpf_skb_load_bytes(packet, at + TCP_SEQUENCE, &outgoing->sequence, sizeof(outgoing->sequence)))
			return refuses_message(packet, scratch->slot, 0);
		header = header >> 4 << 2;
		flags &= TCP_URGENT;
	}
	outgoing->at = at + header;
	if (protocol == IPPROTO_TCP && outgoing->at == outgoing->end && !flags)
		return false;
	if (protocol == IPPROTO_TCP && outgoing->sender.refused_by == generation &&
	    outgoing->sender.refused_sequence == outgoing->sequence)
		return true;
	/* The other end takes an urgent byte out of the stream, and reads what is behind it in another way. */
	if (flags)
		return refuses_message(packet, scratch->slot, 0);
	if (outgoing->at > outgoing->end || is_shared(packet, protocol))
		return refuses_message(packet, scratch->slot, 0);
	if (protocol == IPPROTO_TCP)
		return refuses_segment(packet, scratch);
	return refuses_message(packet, scratch->slot, outgoing->end - outgoing->at);
}

/* Returns whether the current task makes a socket's packet by using the socket, and not as one arrives. */
static __always_inline bool is_in_use_by_current(struct __sk_buff *packet, struct bpf_sock *sock)
{
	__u64 kernel_sock = (__u64)ADDRESS(sk_buff, PLAIN(packet), sk);

	return sock->protocol != IPPROTO_TCP || FIELD(sock, kernel_sock, sk_lock.owned);
}

static __always_inline struct label label_of_current(void)
{
	__u64 task = (__u64)PLAIN(bpf_get_current_task_btf()), half = label_beside_lock(task, 0);

	return (struct label){
		.domain = half,
		.generation = half >> 32,
		.subject = label_beside_lock(task, 1),
	};
}

/*
 * Returns the label of who sends over a socket at which `noted` is; `is_noted` if that is the current task. UDP and raw sockets send
 * within the call, so that it is the current task's. What TCP sends may be from earlier. Before 6.5 no hook sees splice(2) into a
 * socket, by which a task may send that was another program when it was noted.
 */
static __always_inline struct label label_of_sender(const struct sender *noted, __u32 protocol, bool in_use,
						    bool is_noted)
{
	struct label label = {}, current;

	if (noted)
		label = noted->label;
	if (!in_use || (noted && (is_noted || protocol == IPPROTO_TCP) && !lock_may_be_taken()))
		return label;
	current = label_of_current();
	if (!noted || protocol != IPPROTO_TCP)
		return current;
	if (label.domain != current.domain || label.generation != current.generation)
		label.subject = CONFLICTING_SUBJECTS;
	else
		label.subject = both_subjects(label.subject, current.subject);
	return label;
}

SEC("cgroup_skb/egress")
int dns_egress(struct __sk_buff *packet)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct bpf_sock *sock = packet->sk;
	struct scratch *scratch;
	struct sender *noted;
	struct label label;
	struct scope scope;
	bool refused, in_use, is_noted;

	sock = sock ? bpf_sk_fullsock(sock) : 0;
	if (!sock)
		return EGRESS_SEND;
	noted = bpf_sk_storage_get(&senders, sock, 0, 0);
	if (!noted && sock->dst_port != bpf_htons(RESOLVER_PORT))
		return EGRESS_SEND;
	in_use = is_in_use_by_current(packet, sock);
	if (!noted && !(in_use && lock_may_be_taken()))
		return EGRESS_SEND;
	is_noted = noted && FIELD(task_struct, task, pid) == noted->pid;
	label = label_of_sender(noted, sock->protocol, in_use, is_noted);
	if (!enter_senders_scope(&scope, &label))
		return EGRESS_SEND;
	scratch = claim_scratch();
	if (!scratch) {
		refuse_unreported();
		return EGRESS_DROP;
	}
	if (noted)
		scratch->outgoing.sender = *noted;
	else
		scratch->outgoing.sender.refused_by = 0;
	scratch->outgoing.sender.label = label;
	scratch->outgoing.is_own = in_use && (sock->protocol != IPPROTO_TCP || !noted || is_noted);
	refused = refuses_packet(packet, sock->type, sock->protocol, scope.rules->generation, scratch);
	if (refused && noted && label.generation == scope.rules->generation) {
		noted->refused_by = scope.rules->generation;
		noted->refused_sequence = scratch->outgoing.sequence;
	}
	release_scratch(scratch);
	return refused ? EGRESS_DROP : EGRESS_SEND;
}

#endif
