/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Checks filesystems that are mounted from a device or stacked on a directory. Mounting a device's filesystem is
 * reading the device, which the kernel opens by its number.
 */
#ifndef ARMOR_DEVICE_H
#define ARMOR_DEVICE_H

#include "guard/guard.bpf.h"
#include "path/check.bpf.h"

static __always_inline int judge_device(struct scope *scope, struct scratch *scratch)
{
	struct classes *classes = &scratch->access.name.classes;
	__u32 *class = class_of_device(scope, DEVICE_BLOCK, scratch->question.device);

	if (!class)
		return 0;
	set_class(classes, *class);
	return conclude(scope, scratch, decide(scope, scratch, classes, scratch->question.permissions, 0));
}

/* Checks whether the device of a filesystem may be used with these permissions, by its number. */
static __noinline int check_device(struct super_block *sb, __u32 hook, __u32 permissions)
{
	struct block_device *device = PLAIN(sb->s_bdev);
	struct scratch *scratch;
	struct scope scope;
	int verdict;

	if (!device)
		return 0;
	scratch = begin_check(&scope, hook, &verdict);
	if (!scratch)
		return verdict;
	__builtin_memcpy(scratch->access.object, "/dev/", 5);
	bpf_probe_read_kernel_str(&scratch->access.object[5], OBJECT_NAME - 5, PLAIN(&sb->s_id));
	scratch->question.device = FIELD(block_device, device, bd_dev);
	scratch->question.permissions = permissions;
	verdict = ask(scratch, &scope, ASK_DEVICE);
	release_scratch(scratch);
	return verdict;
}

/*
 * Guards against eCryptfs, which has a thread of the kernel open what a task is refused
 * (ecryptfs_privileged_open()), and removes and renames in the directory below it by no path.
 */
static __always_inline int guard_stacking(struct super_block *sb)
{
	struct scratch *scratch;
	struct scope scope;
	int verdict;

	if (sb->s_magic != ECRYPTFS_SUPER_MAGIC)
		return 0;
	scratch = begin_check(&scope, SB_KERN_MOUNT, &verdict);
	if (!scratch)
		return verdict;
	__builtin_memcpy(scratch->access.object, "ecryptfs", sizeof("ecryptfs"));
	scratch->access.permission = WRITE;
	verdict = refuse(scratch, scope.domain, guard_verdict(scope.rules), RULE_HELPER);
	release_scratch(scratch);
	return verdict;
}

/* Before a new filesystem has a place. */
SEC("lsm/sb_kern_mount")
int BPF_PROG(sb_kern_mount, struct super_block *sb)
{
	return guard_stacking(sb) ?:
		check_device(sb, SB_KERN_MOUNT, sb->s_flags & SB_RDONLY ? 1u << READ : 1u << READ | 1u << WRITE);
}

/* What becomes of the filesystem, and so of its device, is not known here: it may be made writable. */
SEC("lsm/sb_remount")
int BPF_PROG(sb_remount, struct super_block *sb)
{
	return check_device(sb, SB_REMOUNT, 1u << READ | 1u << WRITE);
}

#endif
