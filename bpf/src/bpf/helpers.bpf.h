/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Guards settings that name a program which the kernel starts by itself, as root of the host and under the
 * rules of no domain. A setting is recognised by its filesystem's type and its name in it, whatever mount
 * shows it.
 */
#ifndef ARMOR_HELPERS_H
#define ARMOR_HELPERS_H

#include "self.bpf.h"

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

/*
 * Returns whether an agent that is started later may see what is mounted on a mount. Where not, the mount
 * leaves the directory that it covers in place.
 */
static __always_inline bool is_seen_by_agents(__u64 mnt)
{
	struct mount *mount = mount_of((void *)mnt);
	__u32 host = host_mount_namespace();

	return !host || place_of(mount) == host || FIELD(mount, mount, mnt_group_id);
}

/*
 * Checks, besides the rules, every name that a hook gets and that is written, removed or given to another
 * object. Returns nonzero if that is refused. Global like write_path().
 */
__noinline int guard_name(__u64 dentry, __u64 mnt, __u32 hook)
{
	struct label label = label_of(bpf_get_current_task_btf());
	__u64 magic = FIELD(super_block, ADDRESS(dentry, (void *)dentry, d_sb), s_magic);
	bool only_below = (hook == SB_MOUNT || hook == MOVE_MOUNT) && !is_seen_by_agents(mnt);
	const struct image_domain *rules;

	if (is_exempt(&label))
		return 0;
	if (!in_a_domain(&label)) {
		if (magic != BPF_FS_MAGIC || !is_guarded(dentry, magic, only_below) ||
		    runs_agents_program(bpf_get_current_task_btf()))
			return 0;
		return refuse_name(dentry, mnt, hook, VERDICT_BLOCK, RULE_AGENT);
	}
	if (is_guarded(dentry, magic, only_below) && !is_agent(&label, bpf_get_current_task_btf()))
		return refuse_name(dentry, mnt, hook, VERDICT_BLOCK, RULE_AGENT);
	if (magic != PROC_SUPER_MAGIC && magic != SYSFS_MAGIC && magic != CGROUP_SUPER_MAGIC &&
	    magic != BINFMTFS_MAGIC && magic != NFSD_MAGIC)
		return 0;
	rules = head_of(label.domain);
	if (!rules || !(rules->flags & DOMAIN_RULED) || !starts_helpers(dentry, magic))
		return 0;
	return refuse_name(dentry, mnt, hook, guard_verdict(rules), RULE_HELPER);
}

/* Does the same and returns what a hook returns. */
static __always_inline int guard_write(struct dentry *dentry, struct vfsmount *mnt, __u32 hook)
{
	return guard_name((__u64)PLAIN(dentry), (__u64)PLAIN(mnt), hook) ? -EACCES : 0;
}

/* Does the same for two names of which one becomes the other. */
static __always_inline int guard_two(struct dentry *dentry, struct vfsmount *mnt, struct dentry *new_dentry,
				     struct vfsmount *new_mnt, __u32 hook)
{
	int verdict = guard_write(dentry, mnt, hook);

	return verdict ?: guard_write(new_dentry, new_mnt, hook);
}

/*
 * Guards the mounts of the pins, which go with the last mount of their filesystem. In another mount
 * namespace, root of the host may unmount the copy.
 */
static __always_inline int guard_umount(struct vfsmount *mnt)
{
	struct guarded_key device = { .kind = GUARDED_DEVICE, .device = mnt->mnt_sb->s_dev };
	__u32 host = host_mount_namespace();
	struct label label;

	if (mnt->mnt_sb->s_magic != BPF_FS_MAGIC || !bpf_map_lookup_elem(&guarded, &device) || !is_kept_out(false))
		return 0;
	label = label_of(bpf_get_current_task_btf());
	if (!in_a_domain(&label) && host && place_of(mount_of(PLAIN(mnt))) != host)
		return 0;
	return refuse_name((__u64)PLAIN(mnt->mnt_root), (__u64)PLAIN(mnt), SB_UMOUNT, VERDICT_BLOCK, RULE_AGENT);
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
