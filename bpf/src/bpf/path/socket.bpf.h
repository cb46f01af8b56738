/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Checks UNIX sockets that are bound to a name. To connect or send to one needs the right to write it, as
 * opening a FIFO does.
 *
 * The kernel keeps the name that the socket was bound to, in the mount of the task that bound it. Abstract
 * sockets and those without a name are no files and are not judged.
 */
#ifndef ARMOR_SOCKET_H
#define ARMOR_SOCKET_H

#include "path/check.bpf.h"

/*
 * Returns the mount by which a socket's name is judged, 0 if it is in another mount namespace. The names
 * there are not the task's, so only the canonical paths of such a socket count.
 */
static __always_inline struct vfsmount *mount_of_peer(struct sock *peer)
{
	struct vfsmount *mnt = ADDRESS(unix_sock, peer, path.mnt);
	struct nsproxy *namespaces = ADDRESS(task_struct, bpf_get_current_task_btf(), nsproxy);

	return ADDRESS(mount, mount_of(mnt), mnt_ns) == ADDRESS(nsproxy, namespaces, mnt_ns) ? mnt : 0;
}

static __always_inline bool known_peer(const struct scope *scope, struct peer_cache *cache, struct epochs now)
{
	bool hit;

	if (!cache || !quiet(now))
		return false;
	bpf_spin_lock(&cache->lock);
	hit = cache->generation == scope->rules->generation && cache->domain == scope->domain &&
		cache->subject == subjects_of(scope) && cache->renames == now.renames && cache->mounts == now.mounts;
	bpf_spin_unlock(&cache->lock);
	return hit;
}

/* Caches that the access found with the scratch is allowed. */
static __always_inline void remember_peer(const struct scratch *scratch, struct sock *peer, struct epochs before)
{
	struct peer_cache *cache = bpf_sk_storage_get(&peers, peer, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (!cache)
		return;
	bpf_spin_lock(&cache->lock);
	cache->generation = scratch->access.generation;
	cache->domain = scratch->access.domain;
	cache->subject = scratch->question.subjects;
	cache->renames = before.renames;
	cache->mounts = before.mounts;
	bpf_spin_unlock(&cache->lock);
}

/* Names of one socket that are looked at, most recent first. A socket with more dead ones is refused where rules refuse. */
#define ALIASES 16

/* The same, in the dentry itself since 7.2. */
struct dentry___flat {
	struct hlist_node d_alias;
} __attribute__((preserve_access_index));

static __always_inline __u64 dentry_of_alias(__u64 alias)
{
	if (bpf_core_field_exists(((struct dentry *)0)->d_u))
		return alias - bpf_core_field_offset(struct dentry, d_u.d_alias);
	return alias - bpf_core_field_offset(struct dentry___flat, d_alias);
}

/*
 * Finds the name of a socket: the one it was bound to or, if that is gone, another that it has now (link(2)
 * and unlink(2) give a socket its name in one step). Returns whether all its names were looked at.
 */
static __always_inline bool name_of_peer(struct sock *peer, struct dentry **name)
{
	struct dentry *bound = ADDRESS(unix_sock, peer, path.dentry);
	struct inode *inode;
	__u64 alias, dentry;

	*name = bound;
	if (!bound || FIELD(dentry, bound, d_hash.pprev))
		return true;
	inode = ADDRESS(dentry, bound, d_inode);
	alias = (__u64)ADDRESS(inode, inode, i_dentry.first);
	for (int step = 0; step < ALIASES && alias; step++) {
		dentry = dentry_of_alias(alias);
		if (FIELD(dentry, dentry, d_hash.pprev)) {
			*name = (void *)dentry;
			return true;
		}
		alias = (__u64)ADDRESS(hlist_node, alias, next);
	}
	return !alias;
}

static __noinline int check_peer(struct sock *peer, __u32 hook)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct dentry *dentry;
	bool named = name_of_peer(peer, &dentry);
	struct scratch *scratch;
	struct epochs before;
	struct scope scope;
	int verdict;

	if (!dentry || !enter_scope(&scope, task))
		return 0;
	/* Where rules only audit, the name that it was bound to has to do. */
	if (!named && scope.rules->flags & DOMAIN_REFUSES)
		return refuse_unreported();
	before = read_epochs();
	/* The subject is nearly always known. If not, the cache holds nothing for this program. */
	find_known_subject(&scope);
	if (known_peer(&scope, bpf_sk_storage_get(&peers, peer, 0, 0), before))
		return 0;
	scratch = claim_scratch();
	if (!scratch)
		return refuse_unreported();
	begin(scratch, task, hook);
	set_dentry(&scratch->access.name, dentry, mount_of_peer(peer));
	scratch->question.inode = (__u64)ADDRESS(dentry, dentry, d_inode);
	scratch->question.permissions = 1u << WRITE;
	verdict = ask(scratch, &scope, ASK_NAME);
	if (scratch->question.allowed && is_as_of(scratch, before) &&
	    scratch->access.name.classes.of[0] != OBJECT_UNRESOLVED)
		remember_peer(scratch, peer, before);
	release_scratch(scratch);
	return verdict;
}

SEC("lsm/unix_stream_connect")
int BPF_PROG(unix_stream_connect, struct sock *sock, struct sock *other)
{
	return check_peer(other, UNIX_STREAM_CONNECT);
}

/* The kernel asks when a datagram socket connects, and again for each message. */
SEC("lsm/unix_may_send")
int BPF_PROG(unix_may_send, struct socket *sock, struct socket *other)
{
	struct sock *peer = other->sk;

	return peer ? check_peer(peer, UNIX_MAY_SEND) : 0;
}

#endif
