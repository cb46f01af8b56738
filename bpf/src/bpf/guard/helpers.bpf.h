/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Guards settings that name a program which the kernel starts by itself, as root of the host and under the
 * rules of no domain. A setting is recognised by its filesystem's type and its name in it, whatever mount
 * shows it.
 */
#ifndef ARMOR_HELPERS_H
#define ARMOR_HELPERS_H

#include "guard/guard.bpf.h"
#include "path/access.bpf.h"

/* Length of the longest name below with its final 0, in words of eight bytes. */
#define SETTING_WORDS 2

/*
 * Returns whether a file of procfs, sysfs, version 1 of control groups, binfmt_misc or nfsd is such a
 * setting. So is /proc/sysrq-trigger, which starts no program but is as powerful: it ends every task.
 */
static __noinline bool starts_helpers(__u64 at, __u64 magic)
{
	struct dentry *dentry = (void *)at, *parent;
	__u64 name[SETTING_WORDS + 1] = {}, above[SETTING_WORDS] = {};
	__u64 first, second;

	/* The kernel's threads open what NFS exports, under the host's rules. */
	if (magic == BINFMTFS_MAGIC || magic == NFSD_MAGIC)
		return true;
	if (bpf_probe_read_kernel_str(name, sizeof(name), ADDRESS(dentry, dentry, d_name.name)) > SETTING_WORDS * 8)
		return false;
	first = name[0];
	second = name[1];
#define IS(one, two) (first == (one) && second == (two))
	if (magic == CGROUP_SUPER_MAGIC)
		return IS(EIGHT('r', 'e', 'l', 'e', 'a', 's', 'e', '_'), EIGHT('a', 'g', 'e', 'n', 't', 0, 0, 0));
	if (magic == PROC_SUPER_MAGIC)
		return IS(EIGHT('c', 'o', 'r', 'e', '_', 'p', 'a', 't'), EIGHT('t', 'e', 'r', 'n', 0, 0, 0, 0)) ||
			IS(EIGHT('m', 'o', 'd', 'p', 'r', 'o', 'b', 'e'), 0) ||
			IS(EIGHT('h', 'o', 't', 'p', 'l', 'u', 'g', 0), 0) ||
			IS(EIGHT('p', 'o', 'w', 'e', 'r', 'o', 'f', 'f'), EIGHT('_', 'c', 'm', 'd', 0, 0, 0, 0)) ||
			/* usermodehelper: capabilities of all helpers */
			IS(EIGHT('b', 's', 'e', 't', 0, 0, 0, 0), 0) ||
			IS(EIGHT('i', 'n', 'h', 'e', 'r', 'i', 't', 'a'), EIGHT('b', 'l', 'e', 0, 0, 0, 0, 0)) ||
			/* fs/ocfs2/nm/hb_ctl_path */
			IS(EIGHT('h', 'b', '_', 'c', 't', 'l', '_', 'p'), EIGHT('a', 't', 'h', 0, 0, 0, 0, 0)) ||
			/* net/rpc/CACHE/channel: what NFS exports */
			IS(EIGHT('c', 'h', 'a', 'n', 'n', 'e', 'l', 0), 0) ||
			IS(EIGHT('s', 'y', 's', 'r', 'q', '-', 't', 'r'), EIGHT('i', 'g', 'g', 'e', 'r', 0, 0, 0));
	if (magic != SYSFS_MAGIC)
		return false;
	if (IS(EIGHT('u', 'e', 'v', 'e', 'n', 't', '_', 'h'), EIGHT('e', 'l', 'p', 'e', 'r', 0, 0, 0)) ||
	    /* parameters of the modules drbd, nfs and nfsd */
	    IS(EIGHT('u', 's', 'e', 'r', 'm', 'o', 'd', 'e'), EIGHT('_', 'h', 'e', 'l', 'p', 'e', 'r', 0)) ||
	    IS(EIGHT('c', 'a', 'c', 'h', 'e', '_', 'g', 'e'), EIGHT('t', 'e', 'n', 't', 0, 0, 0, 0)) ||
	    IS(EIGHT('c', 'l', 't', 'r', 'a', 'c', 'k', '_'), EIGHT('p', 'r', 'o', 'g', 0, 0, 0, 0)))
		return true;
	/* devices/system/machinecheck/machinecheckN/trigger; other files of that name start nothing. */
	if (!IS(EIGHT('t', 'r', 'i', 'g', 'g', 'e', 'r', 0), 0))
		return false;
#undef IS
	parent = ADDRESS(dentry, dentry, d_parent);
	bpf_probe_read_kernel_str(above, sizeof(above), ADDRESS(dentry, parent, d_name.name));
	return above[0] == EIGHT('m', 'a', 'c', 'h', 'i', 'n', 'e', 'c') && (__u32)above[1] == FOUR('h', 'e', 'c', 'k');
}

/* Guards the setting release_agent as a mount option of control groups of version 1. */
SEC("lsm/fs_context_parse_param")
int BPF_PROG(fs_context_parse_param, struct fs_context *context, struct fs_parameter *parameter)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct label label = label_of(task);
	const struct image_domain *rules;
	__u64 key[SETTING_WORDS] = {};
	struct scratch *scratch;
	int verdict;

	if (!in_a_domain(&label) || is_exempt(&label))
		return 0;
	bpf_probe_read_kernel_str(key, sizeof(key), parameter->key);
	if (key[0] != EIGHT('r', 'e', 'l', 'e', 'a', 's', 'e', '_') ||
	    key[1] != EIGHT('a', 'g', 'e', 'n', 't', 0, 0, 0))
		return 0;
	rules = head_of(label.domain);
	if (!rules || !(rules->flags & DOMAIN_RULED))
		return 0;
	scratch = claim_scratch();
	if (!scratch)
		return refuse_unreported();
	begin(scratch, task, FS_CONTEXT_PARSE_PARAM);
	__builtin_memcpy(scratch->access.object, key, sizeof(key));
	scratch->access.permission = WRITE;
	verdict = refuse(scratch, label.domain, guard_verdict(rules), RULE_HELPER);
	release_scratch(scratch);
	return verdict;
}

#endif
