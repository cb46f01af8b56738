/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * UNIX sockets that are bound to a name: who connects or sends to one needs the right to write it, as who opens a FIFO.
 *
 * The kernel keeps the name that the socket was bound to, in the mount of who bound it. Abstract sockets and those without a
 * name are no files, and not judged.
 */
#ifndef ARMOR_SOCKET_H
#define ARMOR_SOCKET_H

#include "check.h"

/*
 * The mount that a socket's name is looked at in. Another mount namespace's names are none of the task's: of those sockets
 * only the names count that the domain's own tree gives them.
 */
static __always_inline struct vfsmount *mount_of_peer(struct sock *peer)
{
	struct vfsmount *mnt = ADDRESS(unix_sock, peer, path.mnt);
	struct nsproxy *namespaces = ADDRESS(task_struct, bpf_get_current_task_btf(), nsproxy);

	return ADDRESS(mount, mount_of(mnt), mnt_ns) == ADDRESS(nsproxy, namespaces, mnt_ns) ? mnt : 0;
}

static __always_inline __u32 subjects_of(const struct scope *scope)
{
	return scope->subject | scope->other_subject << 16;
}

static __always_inline bool known_peer(const struct scope *scope, struct peer_cache *cache, struct epochs now)
{
	bool hit;

	if (!cache || !quiet(now))
		return false;
	bpf_spin_lock(&cache->lock);
	hit = cache->generation == scope->rules->generation && cache->domain == scope->domain && cache->subject == subjects_of(scope) &&
	      cache->renames == now.renames && cache->mounts == now.mounts;
	bpf_spin_unlock(&cache->lock);
	return hit;
}

static __always_inline void remember_peer(const struct scope *scope, struct sock *peer, struct epochs before)
{
	struct peer_cache *cache = bpf_sk_storage_get(&peers, peer, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (!cache)
		return;
	bpf_spin_lock(&cache->lock);
	cache->generation = scope->rules->generation;
	cache->domain = scope->domain;
	cache->subject = subjects_of(scope);
	cache->renames = before.renames;
	cache->mounts = before.mounts;
	bpf_spin_unlock(&cache->lock);
}

static __noinline int check_peer(struct sock *peer, __u32 hook)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct dentry *dentry = ADDRESS(unix_sock, peer, path.dentry);
	struct scratch *scratch;
	struct epochs before;
	struct scope scope;
	struct name *name;
	__u32 slot;
	int verdict = 0;

	if (!dentry || !enter_scope(&scope, task))
		return 0;
	before = read_epochs();
	/* Nearly always computed before; where not, the cache holds nothing of this program. */
	find_known_subject(&scope);
	if (known_peer(&scope, bpf_sk_storage_get(&peers, peer, 0, 0), before))
		return 0;
	slot = claim_scratch();
	scratch = scratch_at(slot);
	if (!scratch)
		return refuse_without_scratch();
	begin(scratch, task, hook);
	name = &scratch->access.name;
	set_dentry(name, dentry, mount_of_peer(peer));
	find_subject(&scope, scratch);
	if (!resolve(&scope, scratch, name))
		goto out;
	if (!silently_allowed(&scope, &name->classes, 1u << WRITE))
		verdict = conclude(&scope, scratch,
				   decide(&scope, scratch, &name->classes, 1u << WRITE, owns(task, ADDRESS(dentry, dentry, d_inode))));
	else if (settled(before) && name->classes.of[0] != OBJECT_UNRESOLVED)
		remember_peer(&scope, peer, before);
out:
	release_scratch(slot);
	return verdict;
}

#endif
