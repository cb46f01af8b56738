/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Declares the kernel's types, cut down to the fields that the programs read. Offsets are relocated at load
 * (CO-RE), so only names and types matter here. Kernels 6.1 to 7.2.
 */
#ifndef ARMOR_KERNEL_H
#define ARMOR_KERNEL_H

#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

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

/* Since 6.5: a file that an overlay or a FUSE passthrough opened in the filesystem below. */
struct backing_file {
	struct file file;
	struct path user_path;
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
	struct file *vm_file;
};

struct linux_binprm {
	struct file *executable; /* the program starts with a descriptor of this file (AT_EXECFD); 0: with none */
	struct file *file;
};

struct iattr {
	unsigned int ia_valid;
};

struct sock;

struct socket {
	struct sock *sk;
};

struct unix_sock {
	struct path path; /* of a socket bound to a name; otherwise 0 */
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
	struct user_namespace *user_ns;
};

struct pid_namespace;

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
};

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

/* Since 6.2. It costs nothing, and tells the verifier the type that an address is read as. */
extern void *bpf_rdonly_cast(const void *address, __u32 type) __ksym __weak;

/*
 * Reads a field of a kernel structure at an address that the verifier knows nothing of; 0 if it cannot be
 * read. It is a plain load if the kernel has bpf_rdonly_cast, otherwise a call that takes ten times as long.
 * An address whose type the verifier knows needs neither.
 */
#define FIELD(structure, address, field)                                                                               \
	({                                                                                                             \
		const struct structure *at_ = (const void *)(address);                                                 \
		typeof(((struct structure *)0)->field) value_ = 0;                                                     \
                                                                                                                       \
		if (bpf_ksym_exists(bpf_rdonly_cast))                                                                  \
			value_ = ((struct structure *)bpf_rdonly_cast(at_, bpf_core_type_id_kernel(struct structure))) \
					 ->field;                                                                      \
		else                                                                                                   \
			bpf_core_read(&value_, sizeof(value_), &at_->field);                                           \
		value_;                                                                                                \
	})

/*
 * Makes a pointer a plain number, so that the verifier need not distinguish where it came from. Negating it
 * twice makes the verifier forget its type. ADDRESS() does so with a field that is itself an address.
 */
#define PLAIN(pointer)                                              \
	({                                                          \
		typeof(pointer) number_ = (pointer);                \
                                                                    \
		asm volatile("%0 = -%0\n%0 = -%0" : "+r"(number_)); \
		number_;                                            \
	})
#define ADDRESS(structure, address, field) PLAIN(FIELD(structure, address, field))

/* Characters in memory order, as one number. */
#define FOUR(a, b, c, d) ((__u32)(a) | (b) << 8 | (c) << 16 | (d) << 24)
#define EIGHT(a, b, c, d, e, f, g, h) (FOUR(a, b, c, d) | (__u64)FOUR(e, f, g, h) << 32)

/* Values that BTF does not carry. They are the same from 6.1 to 7.2. */
#define S_IFMT 0170000
#define S_IFDIR 0040000
#define S_IFCHR 0020000
#define NULL_DEVICE (1u << 20 | 3) /* drivers/char/mem.c, include/linux/kdev_t.h */
#define S_IFBLK 0060000
#define S_IFREG 0100000
#define S_IXUGO 0111
/* include/uapi/linux/magic.h, fs/f2fs, fs/xfs */
#define EXT4_SUPER_MAGIC 0xef53
#define XFS_SUPER_MAGIC 0x58465342
#define F2FS_SUPER_MAGIC 0xf2f52010
#define OVERLAYFS_SUPER_MAGIC 0x794c7630
#define TMPFS_MAGIC 0x01021994
#define RAMFS_MAGIC 0x858458f6
#define MSDOS_SUPER_MAGIC 0x4d44
#define EXFAT_SUPER_MAGIC 0x2011bab0
#define ECRYPTFS_SUPER_MAGIC 0xf15f
/*
 * Filesystems that the kernel fills: include/uapi/linux/magic.h, ipc/mqueue.c, fs/configfs, fs/binfmt_misc.c,
 * fs/nfsd.
 */
#define PROC_SUPER_MAGIC 0x9fa0
#define SYSFS_MAGIC 0x62656572
#define CGROUP_SUPER_MAGIC 0x27e0eb
#define CGROUP2_SUPER_MAGIC 0x63677270
#define DEBUGFS_MAGIC 0x64626720
#define TRACEFS_MAGIC 0x74726163
#define SECURITYFS_MAGIC 0x73636673
#define SELINUX_MAGIC 0xf97cff8c
#define CONFIGFS_MAGIC 0x62656570
#define MQUEUE_MAGIC 0x19800202
#define DEVPTS_SUPER_MAGIC 0x1cd1
#define BPF_FS_MAGIC 0xcafe4a11
#define BINFMTFS_MAGIC 0x42494e4d
#define FUSECTL_MAGIC 0x65735543
#define PSTOREFS_MAGIC 0x6165676c
#define EFIVARFS_MAGIC 0xde5e81e4
#define RDTGROUP_SUPER_MAGIC 0x7655821
#define NFSD_MAGIC 0x6e667364
#define NSFS_MAGIC 0x6e736673
#define AAFS_MAGIC 0x5a3c69f0
#define SB_RDONLY 1ul /* include/linux/fs.h */
#define SB_KERNMOUNT (1ul << 22)
#define FMODE_READ (1u << 0)
#define FMODE_WRITE (1u << 1)
#define FMODE_CREATED (1u << 20)
/* __FMODE_EXEC in f_flags: opened for execution; open() cannot ask for it, mq_open() can. */
#define FLAG_EXEC 0x20
#define O_ACCMODE 3u
#define O_TRUNC 01000u
/* include/linux/fsnotify_backend.h: events that wait for the watcher to permit them */
#define FS_PERMISSION_EVENTS (0xful << 16 | 1ul << 20)
#define PF_FORKNOEXEC 0x40u /* include/linux/sched.h: forked, and no program started since */
/* include/linux/fs.h: bits of an iattr's ia_valid for times that a task sets */
#define ATTR_MODE (1u << 0)
#define ATTR_ATIME_SET (1u << 7)
#define ATTR_MTIME_SET (1u << 8)
#define ATTR_TIMES_SET (1u << 16)
#define ATTR_TOUCH (1u << 17)
#define PF_KTHREAD 0x00200000u
/* include/linux/dcache.h: the bits before and in 6.15, where there is no enum dentry_flags. */
#define DCACHE_PAR_LOOKUP_BEFORE_ENUM (1u << 28 | 1u << 24)
/* The same. */
#define DCACHE_DISCONNECTED_BEFORE_ENUM (1u << 5)
/* The same; the second bit until 6.7, then the first. */
#define DCACHE_MOUNTED_BEFORE_ENUM (1u << 15 | 1u << 16)
#define PR_SET_MM 35 /* include/uapi/linux/prctl.h */
#define PR_SET_MM_EXE_FILE 13
#define PR_SET_MM_MAP 14
#define PROT_WRITE 0x2
#define PROT_EXEC 0x4
#define MAP_TYPE 0x0f
#define MAP_SHARED 0x01
#define MAP_SHARED_VALIDATE 0x03
#define VM_WRITE 0x2ul
#define VM_EXEC 0x4ul
#define VM_SHARED 0x8ul
#define RENAME_EXCHANGE (1u << 1)
#define PTRACE_MODE_NOAUDIT 0x04
#define EACCES 13
#define MS_REMOUNT 0x20ul /* include/uapi/linux/mount.h */
#define MS_BIND 0x1000ul
#define MS_MOVE 0x2000ul
#define MS_CHANGES_PROPAGATION (1ul << 17 | 1ul << 18 | 1ul << 19 | 1ul << 20)
#define SIGKILL 9
#define CAP_SYS_ADMIN 21
#define NAME_MAX 255
#define ERR_PTR_FIRST ((unsigned long)-4095) /* include/linux/err.h */
/* Number of a mount namespace without tasks (open_tree, fsmount): 0 before 6.18, MNT_NS_ANON_INO since. */
#define MNT_NS_ANON_INO 0xEFFFFFF7u

#endif
