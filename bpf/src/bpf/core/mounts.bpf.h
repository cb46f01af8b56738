/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Tells where a mount is, and which mount namespace is a domain's own. */
#ifndef ARMOR_MOUNTS_H
#define ARMOR_MOUNTS_H

#include "core/scope.bpf.h"

static __always_inline struct mount *mount_of(struct vfsmount *mnt)
{
	return (void *)mnt - bpf_core_field_offset(struct mount, mnt);
}

/* The place of a mount. Any other number is that of the mount namespace whose tree the mount is in. */
enum place {
	PLACE_BACKING,	 /* a layer below an overlay, opened by the kernel */
	PLACE_ANONYMOUS, /* memfd, pipe, socket: never has a path */
	PLACE_DETACHED,	 /* in no mount tree that a task is in */
};

/* Returns the place of a mount. Global like write_path(). */
__noinline __u32 place_at(__u64 mount)
{
	struct mnt_namespace *ns = ADDRESS(mount, mount, mnt_ns);
	__u32 number;

	if ((unsigned long)ns >= ERR_PTR_FIRST) { /* MNT_NS_INTERNAL, fs/mount.h */
		unsigned long flags = FIELD(super_block, ADDRESS(mount, mount, mnt.mnt_sb), s_flags);

		return flags & SB_KERNMOUNT ? PLACE_ANONYMOUS : PLACE_BACKING;
	}
	if (!ns)
		return PLACE_DETACHED;
	number = FIELD(mnt_namespace, ns, ns.inum);
	return number > PLACE_DETACHED && number != MNT_NS_ANON_INO ? number : PLACE_DETACHED;
}

static __always_inline __u32 place_of(struct mount *mount)
{
	return place_at((__u64)PLAIN(mount));
}

static __always_inline bool is_named(__u32 place)
{
	return place > PLACE_DETACHED;
}

/*
 * Returns whether the kernel fills a filesystem. Each instance then shows the same objects under the same
 * names, so a path in one is a path in all. Global like write_path().
 */
__noinline int is_the_kernels(__u64 magic)
{
	switch ((__u32)magic) {
	case PROC_SUPER_MAGIC:
	case SYSFS_MAGIC:
	case CGROUP_SUPER_MAGIC:
	case CGROUP2_SUPER_MAGIC:
	case DEBUGFS_MAGIC:
	case TRACEFS_MAGIC:
	case SECURITYFS_MAGIC:
	case SELINUX_MAGIC:
	case CONFIGFS_MAGIC:
	case MQUEUE_MAGIC:
	case DEVPTS_SUPER_MAGIC:
	case BPF_FS_MAGIC:
	case BINFMTFS_MAGIC:
	case FUSECTL_MAGIC:
	case PSTOREFS_MAGIC:
	case EFIVARFS_MAGIC:
	case RDTGROUP_SUPER_MAGIC:
	case NFSD_MAGIC:
	case AAFS_MAGIC:
		return true;
	default:
		return false;
	}
}

/*
 * Returns the address of the struct mnt_namespace with this number, 0 if there is none: a freed one has no
 * references. Global like write_path().
 */
__noinline __u64 namespace_at(__u32 number)
{
	__u64 *known = bpf_map_lookup_elem(&namespaces, &number), ns = known ? *known : 0;
	int references;

	if (!ns || FIELD(mnt_namespace, ns, ns.inum) != number)
		return 0;
	if (bpf_core_field_exists(((struct ns_common *)0)->__ns_ref))
		references = FIELD(mnt_namespace, ns, ns.__ns_ref.refs.counter);
	else
		references = FIELD(mnt_namespace, ns, ns.count.refs.counter);
	return references > 0 ? ns : 0;
}

static __always_inline __u64 sequence_of(__u64 ns)
{
	if (bpf_core_field_exists(((struct mnt_namespace *)0)->seq))
		return FIELD(mnt_namespace, ns, seq);
	return bpf_core_field_exists(((struct ns_common *)0)->ns_id) ? FIELD(mnt_namespace, ns, ns.ns_id) : 0;
}

/* Returns whether the mount namespace at this address is the one that a container was given. */
static __always_inline bool is_given(const struct entry_root *entry_root, __u64 ns)
{
	return ns && (!entry_root->sequence || sequence_of(ns) == entry_root->sequence);
}

/* Stands for the number of a namespace that is gone. No namespace has it. */
#define NAMESPACE_GONE 1

/*
 * Returns the inode number of the mount namespace whose tree is the domain's own, 0 if that is not known. If
 * `mnt` is not 0, it is a mount at `place`.
 */
static __noinline __u32 own_namespace(const struct scope *scope, __u64 mnt, __u32 place)
{
	struct entry_root *entry_root;
	__u32 number;
	__u64 ns;

	if (scope->domain == HOST_DOMAIN)
		return scope->rules->mount_namespace;
	entry_root = bpf_map_lookup_elem(&entrances, &scope->domain);
	number = entry_root ? entry_root->mount_namespace : 0;
	if (!number)
		return 0;
	/* A namespace that has mounts exists. */
	ns = mnt && place == number ? (__u64)ADDRESS(mount, mount_of((void *)mnt), mnt_ns) : namespace_at(number);
	return is_given(entry_root, ns) ? number : NAMESPACE_GONE;
}

/* Records where a task's mount namespace is, and its sequence if the entry root has only the number. */
static __always_inline void note_namespace(struct task_struct *task)
{
	struct nsproxy *namespaces_of = ADDRESS(task_struct, task, nsproxy);
	__u64 ns = (__u64)ADDRESS(nsproxy, namespaces_of, mnt_ns);
	__u32 number = FIELD(mnt_namespace, ns, ns.inum), domain = label_of(task).domain;
	struct entry_root *entry_root;

	if (!number)
		return;
	bpf_map_update_elem(&namespaces, &number, &ns, BPF_ANY);
	entry_root = domain == HOST_DOMAIN ? 0 : bpf_map_lookup_elem(&entrances, &domain);
	if (entry_root && entry_root->mount_namespace == number && !entry_root->sequence)
		entry_root->sequence = sequence_of(ns);
}

#endif
