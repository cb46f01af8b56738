/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * The hooks of sockets. A socket is judged when it is made, and again when it is connected, bound, listened or accepted
 * on, when its descriptor is received, and when something is sent that no connection has decided on: it may be from
 * before the rules, or from a process without them.
 */
#ifndef ARMOR_NETWORK_HOOKS_H
#define ARMOR_NETWORK_HOOKS_H

#include "dns/sender.bpf.h"
#include "network/destination.bpf.h"
#include "network/report.bpf.h"

static __noinline int check_socket(const struct socket_access *access)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 kind = unknown(kind_of_socket(access->family, access->type, access->protocol)), decision = VERDICT_ALLOW;
	const struct image_kinds *tables;
	struct socket_use use = {};
	struct scope scope;
	/* A new socket has no peer and no port. */
	bool has_destination = access->hook != SOCKET_CREATE || names_addresses_itself(access, kind);

	if (kind == NO_KIND || !enter_scope(&scope, task))
		return 0;
	tables = tables_of_kinds(&scope);
	if (!tables || !(tables->network || (has_destination && (tables->egress | tables->ingress))))
		return 0;
	if (!find_subject(&scope, task)) {
		decision = VERDICT_BLOCK << VERDICT_SHIFT | RULE_UNRESOLVED;
	} else {
		if (tables->network)
			decision = unknown(keyed_decision(&scope, tables->network, kind));
		if (has_destination && (tables->egress | tables->ingress)) {
			describe_use(access, kind, &use);
			decision = stricter(decision, decide_destinations(&scope, tables, &use));
		}
	}
	return answer_for_socket(&scope, task, access, decision);
}

/* Checks an access to a socket that exists. */
static __always_inline int check_sock(__u64 sock, __u32 hook, __u64 address, int length)
{
	struct socket_access access = {
		.hook = hook,
		.sock = sock,
		.address = address,
		.length = length > 0 ? length : 0,
	};

	if (!sock)
		return 0;
	describe_sock(&access);
	return check_socket(&access);
}

/* Checks an access by which a resolver may be asked too. */
static __always_inline int check_sock_that_asks(struct sock *sock, __u32 hook, __u64 address, int length)
{
	struct socket_access access = {
		.hook = hook,
		.sock = (__u64)PLAIN(sock),
		.address = address,
		.length = length > 0 ? length : 0,
	};
	int refused;

	if (!access.sock)
		return 0;
	describe_sock(&access);
	refused = check_asking(sock, &access);
	return refused ?: check_socket(&access);
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
	return check_sock_that_asks(socket->sk, SOCKET_CONNECT, (__u64)PLAIN(address), length);
}

SEC("lsm/socket_bind")
int BPF_PROG(socket_bind, struct socket *socket, struct sockaddr *address, int length)
{
	return check_sock_that_asks(socket->sk, SOCKET_BIND, (__u64)PLAIN(address), length);
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

/*
 * What goes over a connection was decided on when that was made, unless control data or the packet's own head sends it
 * elsewhere.
 */
SEC("lsm/socket_sendmsg")
int BPF_PROG(socket_sendmsg, struct socket *socket, struct msghdr *message, int size)
{
	struct socket_access access = {
		.hook = SOCKET_SENDMSG,
		.sock = (__u64)PLAIN(socket->sk),
		.address = (__u64)PLAIN(message->msg_name),
		.control_length = message->msg_controllen,
	};
	bool is_decided = !access.address && !access.control_length &&
		FIELD(sock, access.sock, __sk_common.skc_state) == TCP_ESTABLISHED &&
		FIELD(sock, access.sock, sk_type) != SOCK_RAW;
	int refused;

	if (is_decided && FIELD(sock, access.sock, __sk_common.skc_dport) != bpf_htons(RESOLVER_PORT))
		return 0;
	if (!access.sock)
		return 0;
	access.control = (__u64)PLAIN(message->msg_control);
	access.length = message->msg_namelen > 0 ? message->msg_namelen : 0;
	describe_sock(&access);
	refused = check_asking(socket->sk, &access);
	return refused || is_decided ? refused : check_socket(&access);
}

/*
 * Options by which packets go another way than to their address, source routes, and that by which the kernel's choice of a
 * port is the task's.
 */
SEC("lsm/socket_setsockopt")
int BPF_PROG(socket_setsockopt, struct socket *socket, int level, int option)
{
	struct socket_access access = {
		.hook = SOCKET_SETSOCKOPT,
		.sock = (__u64)PLAIN(socket->sk),
		.own_port = level == SOL_IP && option == IP_LOCAL_PORT_RANGE,
	};

	if (!access.own_port && !(level == SOL_IP && option == IP_OPTIONS) &&
	    !(level == SOL_IPV6 &&
	      (option == IPV6_RTHDR || option == IPV6_2292PKTOPTIONS || option == IPV6_FLOWLABEL_MGR)))
		return 0;
	if (!access.sock)
		return 0;
	describe_sock(&access);
	return check_socket(&access);
}

/* A descriptor is received by SCM_RIGHTS or pidfd_getfd(2). */
SEC("lsm/file_receive")
int BPF_PROG(socket_receive, struct file *file)
{
	return check_sock(sock_of_file((__u64)PLAIN(file)), SOCKET_RECEIVE, 0, 0);
}

#endif
