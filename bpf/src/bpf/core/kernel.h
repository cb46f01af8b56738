/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Declares the kernel's types, cut down to the fields that the programs read. Offsets are relocated at load
 * (CO-RE), so only names and types matter here. Kernels 6.1 to 7.2.
 */
#ifndef ARMOR_KERNEL_H
#define ARMOR_KERNEL_H

#include <linux/bpf.h>
#include <linux/in6.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	__u32 val;
} kuid_t;

struct list_head {
	struct list_head *next;
};

struct hlist_node {
	struct hlist_node *next;
};

struct hlist_head {
	struct hlist_node *first;
};

struct file_system_type;

struct block_device {
	__u32 bd_dev;
};

struct super_block {
	__u32 s_dev;
	struct block_device *s_bdev; /* 0 if it is on none */
	char s_id[32];
	struct file_system_type *s_type;
	unsigned long s_flags;
	unsigned long s_magic;
	struct dentry *s_root;
};

struct inode {
	__u16 i_mode;
	kuid_t i_uid;
	struct super_block *i_sb;
	unsigned long i_ino;
	__u32 i_rdev;
	struct hlist_head i_dentry;
	void *i_private;
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

struct hlist_bl_node {
	struct hlist_bl_node **pprev;
};

struct dentry {
	unsigned int d_flags;
	struct hlist_bl_node d_hash;
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	struct super_block *d_sb;
	union {
		struct hlist_node d_alias;
	} d_u; /* 7.2 has its members in the dentry itself */
};

struct vfsmount {
	struct dentry *mnt_root;
	struct super_block *mnt_sb;
};

typedef struct {
	struct {
		int counter;
	} refs;
} refcount_t;

struct ns_common {
	unsigned int inum;
	refcount_t count; /* `__ns_ref` since 6.18 */
	refcount_t __ns_ref;
	__u64 ns_id; /* since 6.18; never used again for another namespace */
};

struct mount;

struct mnt_namespace {
	struct ns_common ns;
	struct mount *root;
	__u64 seq; /* the same, before 6.18 */
	struct user_namespace *user_ns;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
	struct list_head mnt_mounts; /* its children */
	struct list_head mnt_child;  /* its link in the parent's list */
	struct mnt_namespace *mnt_ns;
	int mnt_group_id;	  /* group that mounts are propagated to; 0: none */
	struct mount *mnt_master; /* of the group that mounts are propagated from; 0: none */
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
	void *private_data;
};

/* A file that an overlay or a FUSE passthrough opened in the filesystem below. */
struct backing_file {
	struct file file;
	struct path user_path; /* since 6.7; before, f_path is the overlay's */
};

struct backing_file_ctx {
	struct file *user_file; /* until 6.12 */
};

/* Since 6.13; the overlay may be a module, so that its types are there only where it is loaded. */
struct ovl_file {
	struct file *realfile;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct mm_struct {
	struct file *exe_file;
};

struct vm_area_struct {
	unsigned long vm_flags;
	struct anon_vma *anon_vma; /* 0: no page of it is its own */
	struct file *vm_file;
};

struct linux_binprm {
	struct file *executable; /* the program starts with a descriptor of this file (AT_EXECFD); 0: with none */
	struct file *file;
	unsigned long p; /* address in the new memory of the arguments' strings */
	int argc;
	char buf[256];	      /* the file's first bytes (BINPRM_BUF_SIZE) */
	const char *filename; /* name of the file that execve() names */
	const char *interp;   /* the same address, until a file names its interpreter */
};

struct iattr {
	unsigned int ia_valid;
};

struct sock_common {
	unsigned short skc_family;
	unsigned char skc_state;
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num; /* the own port */
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
};

struct sock {
	struct sock_common __sk_common;
	__u16 sk_type;
	__u16 sk_protocol;
	__u32 sk_max_ack_backlog;
	unsigned char sk_userlocks : 4;
	struct {
		int owned; /* a task holds the socket's lock */
	} sk_lock;
};

struct socket {
	struct sock *sk;
};

struct msghdr {
	void *msg_name; /* copied from user memory */
	int msg_namelen;
	void *msg_control; /* the same */
	unsigned long msg_controllen;
};

struct inet_sock {
	__be16 inet_sport;
};

/* It is there where the kernel knows MPTCP. */
struct mptcp_sock {
	struct sock sk;
};

struct unix_sock {
	struct path path; /* of a socket bound to a name; otherwise 0 */
};

struct sk_buff {
	struct sock *sk;
	unsigned int len, data_len;
	__u16 transport_header, network_header; /* from head */
	unsigned int end;			/* where the struct skb_shared_info is, from head */
	unsigned char *head;
};

struct skb_shared_info {
	__u8 flags; /* that tasks share pages of it */
	unsigned short gso_size;
};

struct user_namespace {
	int level;
};

/* 64 bits: one number since 6.3, two before. */
typedef struct {
	__u32 cap[2];
} kernel_cap_t;

struct cred {
	kuid_t uid;
	kuid_t fsuid;
	kernel_cap_t cap_effective;
	kernel_cap_t cap_bset;
	struct user_namespace *user_ns;
};

struct pid_namespace {
	struct user_namespace *user_ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct hlist_head tasks[1]; /* by enum pid_type */
	struct upid numbers[1];
};

struct kernfs_iattrs {
	kuid_t ia_uid;
};

struct kernfs_node {
	const char *name;
	__u64 id;
	struct kernfs_iattrs *iattr; /* 0 if owner and mode were never set: root's */
};

struct cgroup {
	struct kernfs_node *kn;
	int level;
	struct cgroup *ancestors[1]; /* from the root to the group itself */
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
};

enum dentry_flags {
	DCACHE_PAR_LOOKUP = 1,
	DCACHE_MOUNTED,
	DCACHE_DISCONNECTED,
};

enum cgroup_subsys_id {
	devices_cgrp_id,
	CGROUP_SUBSYS_COUNT,
};

struct css_set {
	struct cgroup_subsys_state *subsys[CGROUP_SUBSYS_COUNT];
	struct cgroup *dfl_cgrp;
};

struct nsproxy {
	struct mnt_namespace *mnt_ns;
};

struct fs_struct {
	int users; /* tasks that share it */
	struct path root;
	struct path pwd;
};

#ifdef __TARGET_ARCH_x86
struct pt_regs {
	unsigned long bp, bx, r10, r9, r8, cx, dx, si, di;
};
#else
struct pt_regs {
	__u64 regs[31];
};
#endif

/* The beginning of every seqlock_t. */
struct seqcount {
	unsigned int sequence;
};

enum pid_type {
	PIDTYPE_PID,
	PIDTYPE_TGID,
};

struct core_state;

struct signal_struct {
	struct {
		int counter;
	} live;
	struct pid *pids[PIDTYPE_TGID + 1];
	struct core_state *core_state; /* while the process dumps core */
	struct tty_struct *tty;	       /* the terminal that controls it; 0: none */
};

struct notification;

struct seccomp_filter {
	struct seccomp_filter *prev; /* installed before; 0: none */
	struct notification *notif;  /* a listener decides in its place; 0: none */
};

struct seccomp {
	struct seccomp_filter *filter; /* installed last; 0: none */
};

struct task_struct {
	struct mm_struct *mm;
	struct signal_struct *signal;
	int pid;
	int tgid;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	struct hlist_node pid_links[1]; /* by enum pid_type */
	struct seccomp seccomp;
	const struct cred *real_cred;
	const struct cred *cred;
	struct css_set *cgroups;
	struct nsproxy *nsproxy;
	struct fs_struct *fs;
	struct bpf_local_storage *bpf_storage;
	struct files_struct *files;
	struct io_uring_task *io_uring; /* 0: none */
	unsigned int flags;
	unsigned int ptrace;
	struct task_struct *parent; /* the tracer, otherwise real_parent */
	__u64 start_boottime;	    /* nanoseconds */
	char comm[16];
	unsigned int in_execve : 1;
};

struct btf;

struct bpf_map {
	__u32 id;
	enum bpf_map_type map_type;
	__u32 value_size;
	__u32 map_flags;
	struct btf *btf;
	char name[16];
};

struct bpf_prog_aux {
	__u32 used_map_cnt;
	struct bpf_map **used_maps;
	struct btf *btf;
	char name[16];
};

struct bpf_prog {
	struct bpf_prog_aux *aux;
};

struct bpf_link {
	struct bpf_prog *prog;
};

struct proc_inode {
	struct pid *pid;
	struct inode vfs_inode;
};

struct fs_context;

struct fs_parameter {
	const char *key;
};

struct kernel_siginfo;
struct rlimit;
struct fown_struct;

struct seq_file;

struct bpf_iter_meta {
	__bpf_md_ptr(struct seq_file *, seq);
};

struct bpf_iter__task {
	__bpf_md_ptr(struct bpf_iter_meta *, meta);
	__bpf_md_ptr(struct task_struct *, task);
};

struct bpf_iter__task_file {
	__bpf_md_ptr(struct bpf_iter_meta *, meta);
	__bpf_md_ptr(struct task_struct *, task);
	__u32 fd;
	__bpf_md_ptr(struct file *, file);
};

struct bpf_iter__task_vma {
	__bpf_md_ptr(struct bpf_iter_meta *, meta);
	__bpf_md_ptr(struct task_struct *, task);
	__bpf_md_ptr(struct vm_area_struct *, vma);
};

#pragma clang attribute pop

#endif
