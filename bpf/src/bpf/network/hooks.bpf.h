/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * The hooks of sockets. A socket is judged when it is made, and again when it is connected, bound, listened or accepted
 * on, when its descriptor is received, and when something is sent that no connection has decided on: it may be from
 * before the rules, or from a process without them.
 */
#ifndef ARMOR_NETWORK_HOOKS_H
#define ARMOR_NETWORK_HOOKS_H

#include <bpf/bpf_endian.h>

#include "network/kind.bpf.h"
#include "number_check.bpf.h"

/* What a hook asks about. */
struct socket_access {
	__u32 family, type, protocol;
	__u32 hook;
	__u64 address; /* of a struct sockaddr in the kernel's memory; 0: none */
	__u32 length;  /* of it */
};

/* Writes the address if it is one of IP, and as much of it as there is. */
static __always_inline void write_address(struct socket_event *event, const struct socket_access *access)
{
	struct sockaddr_in6 address = {};

	event->address_family = 0;
	event->port = 0;
	if (!access->address || access->length < sizeof(struct sockaddr_in) ||
	    bpf_probe_read_kernel(&address, sizeof(struct sockaddr_in), (void *)access->address))
		return;
	event->port = bpf_ntohs(address.sin6_port);
	/* Without a family, IPv4 takes an address for its own. */
	if (address.sin6_family == AF_INET || (!address.sin6_family && access->family == AF_INET)) {
		event->address_family = AF_INET;
		__builtin_memcpy(event->address, &((struct sockaddr_in *)&address)->sin_addr, 4);
	} else if (address.sin6_family == AF_INET6 && access->length >= SIN6_LEN_RFC2133 &&
		   !bpf_probe_read_kernel(&address, SIN6_LEN_RFC2133, (void *)access->address)) {
		event->address_family = AF_INET6;
		__builtin_memcpy(event->address, &address.sin6_addr, 16);
	}
}

static __noinline int check_socket(const struct socket_access *access)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 kind = kind_of_socket(access->family, access->type, access->protocol), decision;
	const struct image_keyed *tables;
	struct socket_event *event;
	struct scratch *scratch;
	struct scope scope;

	if (kind == NO_KIND || !enter_scope(&scope, task))
		return 0;
	tables = keyed_tables(&scope);
	if (!tables || !tables->network)
		return 0;
	decision = decide_number(&scope, task, tables->network, kind);
	if (!(decision >> VERDICT_SHIFT) || task->flags & PF_KTHREAD)
		return 0;
	scratch = begin_number_event(&scope, task, access->hook, EVENT_SOCKET, decision);
	if (!scratch)
		return blocks(decision) ? -EACCES : 0;
	event = &scratch->access.tail.socket;
	event->family = access->family;
	event->type = access->type;
	event->protocol = access->protocol;
	event->descriptor = 0;
	write_address(event, access);
	end_number_event(scratch);
	return blocks(decision) ? -EACCES : 0;
}

/* Checks an access to a socket that exists. */
static __always_inline int check_sock(__u64 sock, __u32 hook, __u64 address, int length)
{
	struct socket_access access = {
		.hook = hook,
		.address = address,
		.length = length > 0 ? length : 0,
	};

	if (!sock)
		return 0;
	access.family = FIELD(sock, sock, __sk_common.skc_family);
	access.type = FIELD(sock, sock, sk_type);
	access.protocol = FIELD(sock, sock, sk_protocol);
	return check_socket(&access);
}

SEC("lsm/socket_create")
int BPF_PROG(socket_create, int family, int type, int protocol, int kern)
{
	struct socket_access access = {
		.family = family,
		.type = type,
		.protocol = protocol,
		.hook = SOCKET_CREATE,
	};

	return kern ? 0 : check_socket(&access);
}

SEC("lsm/socket_connect")
int BPF_PROG(socket_connect, struct socket *socket, struct sockaddr *address, int length)
{
	return check_sock((__u64)PLAIN(socket->sk), SOCKET_CONNECT, (__u64)PLAIN(address), length);
}

SEC("lsm/socket_bind")
int BPF_PROG(socket_bind, struct socket *socket, struct sockaddr *address, int length)
{
	return check_sock((__u64)PLAIN(socket->sk), SOCKET_BIND, (__u64)PLAIN(address), length);
}

SEC("lsm/socket_listen")
int BPF_PROG(socket_listen, struct socket *socket, int backlog)
{
	return check_sock((__u64)PLAIN(socket->sk), SOCKET_LISTEN, 0, 0);
}

SEC("lsm/socket_accept")
int BPF_PROG(socket_accept, struct socket *socket, struct socket *accepted)
{
	return check_sock((__u64)PLAIN(socket->sk), SOCKET_ACCEPT, 0, 0);
}

/*
 * SCTP also connects and binds by socket options. The kernel asks about other options too, some of them for packets
 * that have nothing to do with the current task.
 */
SEC("lsm/sctp_bind_connect")
int BPF_PROG(sctp_bind_connect, struct sock *sock, int option, struct sockaddr *address, int length)
{
	switch (option) {
	case SCTP_SOCKOPT_BINDX_ADD:
		return check_sock((__u64)PLAIN(sock), SOCKET_BIND, (__u64)PLAIN(address), length);
	case SCTP_SOCKOPT_CONNECTX:
	case SCTP_SENDMSG_CONNECT:
		return check_sock((__u64)PLAIN(sock), SOCKET_CONNECT, (__u64)PLAIN(address), length);
	}
	return 0;
}

/* What goes over a connection was decided on when that was made. */
SEC("lsm/socket_sendmsg")
int BPF_PROG(socket_sendmsg, struct socket *socket, struct msghdr *message, int size)
{
	__u64 sock = (__u64)PLAIN(socket->sk), name = (__u64)PLAIN(message->msg_name);

	if (!name && FIELD(sock, sock, __sk_common.skc_state) == TCP_ESTABLISHED)
		return 0;
	return check_sock(sock, SOCKET_SENDMSG, name, message->msg_namelen);
}

/* A descriptor is received by SCM_RIGHTS or pidfd_getfd(2). */
SEC("lsm/file_receive")
int BPF_PROG(socket_receive, struct file *file)
{
	return check_sock(sock_of_file((__u64)PLAIN(file)), SOCKET_RECEIVE, 0, 0);
}

#endif
