/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Defines numbers of the kernel that BTF does not carry. They are the same from 6.1 to 7.2. */
#ifndef ARMOR_CONSTANTS_H
#define ARMOR_CONSTANTS_H

#define S_IFMT 0170000
#define S_IFDIR 0040000
#define S_IFCHR 0020000
#define NULL_DEVICE (1u << 20 | 3) /* drivers/char/mem.c, include/linux/kdev_t.h */
#define S_IFBLK 0060000
#define S_IFREG 0100000
#define S_IFSOCK 0140000
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
#define SOCKFS_MAGIC 0x534f434b
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
#define EPERM 1
#define EACCES 13
#define CAP_OPT_NOAUDIT (1u << 1) /* include/linux/security.h: the answer is no use of the capability */
#define MS_REMOUNT 0x20ul	  /* include/uapi/linux/mount.h */
#define MS_BIND 0x1000ul
#define MS_MOVE 0x2000ul
#define MS_CHANGES_PROPAGATION (1ul << 17 | 1ul << 18 | 1ul << 19 | 1ul << 20)
#define SIGKILL 9
#define CAP_SYS_ADMIN 21
#define CAPABILITY_BITS 64 /* of a kernel_cap_t */
#define NAME_MAX 255
/* include/linux/socket.h, include/linux/net.h, include/net/tcp_states.h, include/linux/in6.h */
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define AF_NETLINK 16
#define AF_PACKET 17
#define AF_RXRPC 33
#define AF_SMC 43
#define AF_XDP 44
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define SOCK_RAW 3
#define SOCK_RDM 4
#define SOCK_SEQPACKET 5
#define SOCK_DCCP 6
#define SOCK_PACKET 10
#define TCP_ESTABLISHED 1
#define TCP_CLOSE 7
#define TCP_LISTEN 10
#define SOCK_BINDPORT_LOCK 8
#define SCTP_SOCKOPT_BINDX_ADD 100 /* include/uapi/linux/sctp.h */
#define SCTP_SOCKOPT_CONNECTX 110
#define SCTP_SENDMSG_CONNECT 126
#define SIN6_LEN_RFC2133 24 /* bytes of the shortest struct sockaddr_in6 */
#define SOL_IP 0
#define SOL_IPV6 41
#define SOL_SCTP 132
#define IPPROTO_SMC 256 /* since 6.11 */
#define IP_LOCAL_PORT_RANGE 51
#define SCTP_DSTADDRV4 7
#define SCTP_DSTADDRV6 8
#define MAX_CONTROL \
	(1u << 17)     /* bytes of a message that are looked through: net.core.optmem_max, unless it was raised */
#define RANGE_STEPS 20 /* to find one of as many ranges as 2 to this */
#define ANY_CELL ~0u   /* none: the decision is that on everybody, or on any name */
#define RESOLVER_PORT 53
#define ERR_PTR_FIRST ((unsigned long)-4095) /* include/linux/err.h */
/* Number of a mount namespace without tasks (open_tree, fsmount): 0 before 6.18, MNT_NS_ANON_INO since. */
#define MNT_NS_ANON_INO 0xEFFFFFF7u

#endif
