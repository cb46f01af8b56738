/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Carries out a decision on the use of a socket. */
#ifndef ARMOR_NETWORK_REPORT_H
#define ARMOR_NETWORK_REPORT_H

#include "network/use.bpf.h"
#include "number_check.bpf.h"

/* Returns what the hook returns. What a kernel thread does with a socket is none of its task's uses. */
static __noinline int answer_for_socket(const struct scope *scope, struct task_struct *task,
					const struct socket_access *access, __u32 decision)
{
	struct socket_event *event;
	struct scratch *scratch;

	decision = unknown(decision);
	if (!(decision >> VERDICT_SHIFT) || task->flags & PF_KTHREAD)
		return 0;
	scratch = begin_number_event(scope, task, access->hook, EVENT_SOCKET, decision);
	if (!scratch)
		return blocks(decision) ? -EACCES : 0;
	describe_use(access, &scratch->socket_use);
	event = &scratch->access.tail.socket;
	event->family = access->family;
	event->type = access->type;
	event->protocol = access->protocol;
	event->descriptor = 0;
	event->own_port = scratch->socket_use.own_port;
	write_address(event, &scratch->socket_use.ip);
	end_number_event(scratch);
	return blocks(decision) ? -EACCES : 0;
}

#endif
