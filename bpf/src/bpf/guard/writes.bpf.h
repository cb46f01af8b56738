/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Checks, besides the rules, the names that are written, removed, mounted on or given to other objects. */
#ifndef ARMOR_WRITES_H
#define ARMOR_WRITES_H

#include "guard/files.bpf.h"
#include "guard/helpers.bpf.h"
#include "guard/objects.bpf.h"

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

#endif
