/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * The kernel's types, cut down to the fields that the programs read. Offsets are relocated at load (CO-RE), so only names
 * and types count here. Kernels 6.1 to 7.2.
 */
#ifndef ARMOR_KERNEL_H
#define ARMOR_KERNEL_H

#include <linux/bpf.h>
#include <stdbool.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	__u32 val;
} kuid_t;

struct super_block {
	__u32 s_dev;
	unsigned long s_flags;
	struct dentry *s_root;
};

struct inode {
	__u16 i_mode;
	kuid_t i_uid;
	struct super_block *i_sb;
	unsigned long i_ino;
	union {
		const unsigned int i_nlink;
		unsigned int __i_nlink;
	};
};

struct qstr {
	union {
		struct {
			__u32 hash;
			__u32 len;
		};
		__u64 hash_len;
	};
	const unsigned char *name;
};

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
};

struct vfsmount {
	struct dentry *mnt_root;
	struct super_block *mnt_sb;
};

struct ns_common {
	unsigned int inum;
};

struct mnt_namespace {
	struct ns_common ns;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
	struct mnt_namespace *mnt_ns;
	int mnt_id;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct file {
	unsigned int f_mode;
	unsigned int f_flags;
	struct path f_path;
	struct inode *f_inode;
};

struct mm_struct {
	struct file *exe_file;
};

struct vm_area_struct {
	unsigned long vm_flags;
	struct file *vm_file;
};

struct linux_binprm {
	struct file *file;
};

struct cred {
	kuid_t fsuid;
};

struct pid_namespace;

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[1];
};

struct kernfs_node {
	__u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct task_struct {
	struct mm_struct *mm;
	int pid;
	int tgid;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	const struct cred *cred;
	struct css_set *cgroups;
	unsigned int in_execve : 1;
};

#pragma clang attribute pop

/* Values that BTF does not carry; the same from 6.1 to 7.2. */
#define S_IFMT 0170000
#define S_IFDIR 0040000
#define SB_KERNMOUNT (1ul << 22) /* include/linux/fs.h */
#define FMODE_READ (1u << 0)
#define FMODE_WRITE (1u << 1)
#define FMODE_CREATED (1u << 20)
#define FLAG_EXEC 0x20 /* __FMODE_EXEC in f_flags: opened by the kernel to execute it; open() cannot ask for it */
#define PROT_WRITE 0x2
#define PROT_EXEC 0x4
#define MAP_TYPE 0x0f
#define MAP_SHARED 0x01
#define MAP_SHARED_VALIDATE 0x03
#define VM_SHARED 0x8ul
#define RENAME_EXCHANGE (1u << 1)
#define EACCES 13
#define ERR_PTR_FIRST ((unsigned long)-4095) /* include/linux/err.h */
/* A mount namespace that no task is in (open_tree, fsmount): 0 before 6.18, MNT_NS_ANON_INO since. */
#define MNT_NS_ANON_INO 0xEFFFFFF7u

#endif
