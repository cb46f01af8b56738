/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Guards the mount namespaces of others, which setns(2) takes without asking a hook. */
#ifndef ARMOR_NAMESPACES_H
#define ARMOR_NAMESPACES_H

#include "guard/guard.bpf.h"
#include "path/access.bpf.h"

struct namespace_search {
	__u32 number;
	__u64 sequence; /* of the namespace, if it is a mount namespace */
	__u32 domain;	/* domain to leave out */
	__u32 found;
};

static long search_namespace(__u32 domain, struct namespace_search *search)
{
	struct entry_root *entry_root = bpf_map_lookup_elem(&entrances, &domain);

	search->found = domain != search->domain && entry_root && entry_root->mount_namespace == search->number &&
		entry_root->sequence == search->sequence;
	return search->found;
}

/* Refuses a container any file of another domain's mount namespace. */
static __noinline int guard_namespace(__u64 inode, __u32 hook)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct namespace_search search = {};
	const struct image_domain *rules;
	struct scratch *scratch;
	struct label label;
	int verdict;

	label = label_of(task);
	if (!in_a_domain(&label) || is_exempt(&label))
		return 0;
	rules = head_of(label.domain);
	if (!rules || !(rules->flags & DOMAIN_RULED))
		return 0;
	search.number = FIELD(inode, inode, i_ino);
	search.sequence =
		sequence_of((__u64)ADDRESS(inode, inode, i_private) - bpf_core_field_offset(struct mnt_namespace, ns));
	search.domain = label.domain;
	if (search.number == mount_namespace_of(task))
		return 0;
	search.found = search.number == host_mount_namespace();
	if (!search.found)
		bpf_loop(MAX_DOMAIN + 1, search_namespace, &search, 0);
	if (!search.found)
		return 0;
	scratch = claim_scratch();
	if (!scratch)
		return refuse_unreported();
	begin(scratch, task, hook);
	__builtin_memcpy(scratch->access.object, "mount namespace", sizeof("mount namespace"));
	scratch->access.permission = READ;
	verdict = refuse(scratch, label.domain, guard_verdict(rules), RULE_OUTSIDE);
	release_scratch(scratch);
	return verdict;
}

#endif
