/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * The hooks of sockets. A socket is judged when it is made, and again when it is connected, bound, listened or accepted
 * on, when its descriptor is received, and when something is sent that no connection has decided on: it may be from
 * before the rules, or from a process without them. Who comes to a socket is judged in packets (ingress.bpf.h), and again when
 * a connection is accepted.
 */
#ifndef ARMOR_NETWORK_HOOKS_H
#define ARMOR_NETWORK_HOOKS_H

#include "dns/sender.bpf.h"
#include "network/destination.bpf.h"
#include "network/receiver.bpf.h"
#include "network/report.bpf.h"
#include "network/sent.bpf.h"

/* Returns whether rules for protocols decide on sockets of this kind. */
static __always_inline bool decides_kind(const struct scope *scope, __u32 kind)
{
	return scope->rules->flags & DOMAIN_SOCKETS << kind;
}

/* Returns whether rules for destinations decide on an access. A new socket has no peer and no port. */
static __always_inline bool has_destination(const struct image_kinds *tables, const struct socket_access *access)
{
	return (tables->egress.cells | tables->ingress.cells) &&
		(access->hook != SOCKET_CREATE || names_addresses_itself(access));
}

/* Returns the decision on an access of the current task, whose rules the scope has. */
static __noinline __u32 decide_access(struct scope *scope, struct task_struct *task, const struct image_kinds *tables,
				      const struct socket_access *access)
{
	bool by_kind, by_destination = has_destination(tables, access);
	struct socket_use use = {};
	__u32 decision = VERDICT_ALLOW;

	if (access->kind == NO_KIND)
		return VERDICT_ALLOW;
	by_kind = decides_kind(scope, access->kind);
	if (!by_kind && !by_destination)
		return VERDICT_ALLOW;
	if (!find_subject(scope, task))
		return VERDICT_BLOCK << VERDICT_SHIFT | RULE_UNRESOLVED;
	if (by_kind)
		decision = unknown(keyed_decision(scope, tables->network, access->kind));
	if (by_destination) {
		describe_use(access, &use);
		decision = stricter(decision, decide_destinations(scope, tables, &use));
	}
	return decision;
}

/* Checks an access of the current task, whose rules the scope has. */
static __always_inline int check_access(struct scope *scope, struct task_struct *task, const struct image_kinds *tables,
					const struct socket_access *access)
{
	__u32 decision = unknown(decide_access(scope, task, tables, access));

	return decision >> VERDICT_SHIFT ? answer_for_socket(scope, task, access, decision) : 0;
}

/*
 * Returns where the tables are that a task's sockets of a family are under, and sets the scope; 0 if they are under none. The
 * family comes first: most of what a node sends goes to its own log.
 */
static __always_inline const struct image_kinds *enter_socket_scope(struct scope *scope, struct task_struct *task,
								    __u32 family)
{
	return is_ruled_family(family) && enter_scope(scope, task) ? tables_of_kinds(scope) : 0;
}

/* Does the same for rules that depend on the peer of what comes. */
static __always_inline const struct image_kinds *enter_peers_scope(struct scope *scope, struct task_struct *task,
								   __u32 family)
{
	const struct image_kinds *tables = enter_socket_scope(scope, task, family);

	return tables && scope->rules->flags & DOMAIN_PEERS ? tables : 0;
}

/* Checks an access to a socket that a hook got. */
static __always_inline int check_sock(struct sock *sock, __u32 hook, __u64 address, int length)
{
	struct socket_access access = { .hook = hook, .address = address, .length = length > 0 ? length : 0 };
	struct task_struct *task = bpf_get_current_task_btf();
	const struct image_kinds *tables;
	struct scope scope;

	if (!sock)
		return 0;
	tables = enter_socket_scope(&scope, task, sock->__sk_common.skc_family);
	if (!tables)
		return 0;
	describe_sock(&access, sock);
	return check_access(&scope, task, tables, &access);
}

/* Checks an access by which a resolver may be asked, or somebody may come. */
static __always_inline int check_sock_with_peers(struct sock *sock, __u32 hook, __u64 address, int length)
{
	struct socket_access access = { .hook = hook, .address = address, .length = length > 0 ? length : 0 };
	struct task_struct *task = bpf_get_current_task_btf();
	const struct image_kinds *tables;
	struct scope scope;
	int refused;

	if (!sock)
		return 0;
	tables = enter_socket_scope(&scope, task, sock->__sk_common.skc_family);
	if (!tables)
		return 0;
	describe_sock(&access, sock);
	refused = check_asking(&scope, tables, sock, &access);
	if (!refused)
		refused = check_access(&scope, task, tables, &access);
	return refused || hook == SOCKET_CONNECT ? refused : check_receiving(&scope, sock, &access);
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
	struct task_struct *task = bpf_get_current_task_btf();
	const struct image_kinds *tables;
	struct scope scope;

	if (kern || !is_ruled_family(family) || !enter_scope(&scope, task))
		return 0;
	access.kind = unknown(kind_of_socket(family, type, protocol));
	/* Most sockets that are made are of a kind that no rule is about. */
	if (!decides_kind(&scope, access.kind) && !names_addresses_itself(&access))
		return 0;
	tables = tables_of_kinds(&scope);
	return tables ? check_access(&scope, task, tables, &access) : 0;
}

SEC("lsm/socket_connect")
int BPF_PROG(socket_connect, struct socket *socket, struct sockaddr *address, int length)
{
	return check_sock_with_peers(socket->sk, SOCKET_CONNECT, (__u64)PLAIN(address), length);
}

SEC("lsm/socket_bind")
int BPF_PROG(socket_bind, struct socket *socket, struct sockaddr *address, int length)
{
	return check_sock_with_peers(socket->sk, SOCKET_BIND, (__u64)PLAIN(address), length);
}

SEC("lsm/socket_listen")
int BPF_PROG(socket_listen, struct socket *socket, int backlog)
{
	return check_sock_with_peers(socket->sk, SOCKET_LISTEN, 0, 0);
}

SEC("lsm/socket_accept")
int BPF_PROG(socket_accept, struct socket *socket, struct socket *accepted)
{
	return check_sock_with_peers(socket->sk, SOCKET_ACCEPT, 0, 0);
}

/*
 * A connection is given to who accepts it. It may have come before the rules, or to another program. The kernel does not ask
 * whether it may be accepted, so that one which is refused stays open, and nothing goes over it.
 */
SEC("lsm/sock_graft")
int BPF_PROG(socket_graft, struct sock *sock, struct socket *socket)
{
	struct socket_access access = { .hook = SOCKET_ACCEPT, .accepted = 1 };
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 decision = VERDICT_BLOCK << VERDICT_SHIFT | RULE_UNRESOLVED;
	const struct image_kinds *tables;
	struct socket_use use = {};
	struct receiver *receiver;
	struct scope scope;

	if (!sock)
		return 0;
	tables = enter_peers_scope(&scope, task, sock->__sk_common.skc_family);
	if (!tables)
		return 0;
	describe_sock(&access, sock);
	if (!is_ip(&access) || is_smc(&access) || (access.kind != KIND_TCP && access.kind != KIND_DCCP))
		return 0;
	if (find_subject(&scope, task)) {
		describe_use(&access, &use);
		decision = unknown(decide_destination(&scope, &tables->ingress, &use.ingress));
	}
	/* What is audited was reported when it came. */
	if (!blocks(decision))
		return 0;
	receiver = bpf_sk_storage_get(&receivers, sock, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (receiver)
		receiver->refused = 1;
	answer_for_socket(&scope, task, &access, decision);
	return 0;
}

/* What is received over a socket is the receiver's, who may be another one than before. */
SEC("lsm/socket_recvmsg")
int BPF_PROG(socket_recvmsg, struct socket *socket, struct msghdr *message, int size, int flags)
{
	struct socket_access access = { .hook = SOCKET_RECVMSG };
	struct task_struct *task = bpf_get_current_task_btf();
	struct sock *sock = socket->sk;
	struct receiver *receiver;
	struct scope scope;

	if (!sock)
		return 0;
	if (!enter_peers_scope(&scope, task, sock->__sk_common.skc_family))
		return 0;
	receiver = bpf_sk_storage_get(&receivers, sock, 0, 0);
	if (receiver && receiver->refused)
		return -EACCES;
	describe_sock(&access, sock);
	if (access.kind != KIND_UDP || !receives(&access))
		return 0;
	if (!find_subject(&scope, task))
		return answer_for_socket(&scope, task, &access, VERDICT_BLOCK << VERDICT_SHIFT | RULE_UNRESOLVED);
	return check_receiving_of(&scope, sock, &access);
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
		return check_sock(sock, SOCKET_BIND, (__u64)PLAIN(address), length);
	case SCTP_SOCKOPT_CONNECTX:
	case SCTP_SENDMSG_CONNECT:
		return check_sock(sock, SOCKET_CONNECT, (__u64)PLAIN(address), length);
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
	struct task_struct *task = bpf_get_current_task_btf();
	struct socket_access access = { .hook = SOCKET_SENDMSG };
	const struct image_kinds *tables;
	struct sock *sock = socket->sk;
	struct scope scope;
	__u32 decision;
	__u64 address;
	bool is_decided;
	int refused;

	if (!sock)
		return 0;
	is_decided = !message->msg_name && !message->msg_controllen && sock->__sk_common.skc_state == TCP_ESTABLISHED &&
		sock->sk_type != SOCK_RAW;
	if (is_decided && sock->__sk_common.skc_dport != bpf_htons(RESOLVER_PORT))
		return 0;
	if (!is_ruled_family(sock->__sk_common.skc_family) || !enter_scope(&scope, task))
		return 0;
	/* Where rules depend on the peer, each message is noted for its answers. */
	address = scope.rules->flags & DOMAIN_PEERS ? 0 : address_of_message(message);
	if (address && find_known_subject(&scope) && was_sent(&scope, sock, address))
		return 0;
	tables = tables_of_kinds(&scope);
	if (!tables)
		return 0;
	access.address = (__u64)PLAIN(message->msg_name);
	access.length = message->msg_namelen > 0 ? message->msg_namelen : 0;
	access.control = (__u64)PLAIN(message->msg_control);
	access.control_length = message->msg_controllen;
	describe_sock(&access, sock);
	refused = check_asking(&scope, tables, sock, &access);
	if (refused || is_decided)
		return refused;
	decision = unknown(decide_access(&scope, task, tables, &access));
	if (decision >> VERDICT_SHIFT && answer_for_socket(&scope, task, &access, decision))
		return -EACCES;
	if (address && !(decision >> VERDICT_SHIFT) && !tables->dns)
		remember_sent(&scope, sock, address);
	return check_answers(&scope, sock, &access);
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
		.own_port = level == SOL_IP && option == IP_LOCAL_PORT_RANGE,
	};
	struct task_struct *task = bpf_get_current_task_btf();
	const struct image_kinds *tables;
	struct sock *sock = socket->sk;
	struct scope scope;

	if (!access.own_port && !(level == SOL_IP && option == IP_OPTIONS) &&
	    !(level == SOL_IPV6 &&
	      (option == IPV6_RTHDR || option == IPV6_2292PKTOPTIONS || option == IPV6_FLOWLABEL_MGR)))
		return 0;
	if (!sock)
		return 0;
	tables = enter_socket_scope(&scope, task, sock->__sk_common.skc_family);
	if (!tables)
		return 0;
	describe_sock(&access, sock);
	return check_access(&scope, task, tables, &access);
}

/* A descriptor is received by SCM_RIGHTS or pidfd_getfd(2). */
SEC("lsm/file_receive")
int BPF_PROG(socket_receive, struct file *file)
{
	struct socket *socket = bpf_sock_from_file(file);

	return socket ? check_sock_with_peers(socket->sk, SOCKET_RECEIVE, 0, 0) : 0;
}

#endif
