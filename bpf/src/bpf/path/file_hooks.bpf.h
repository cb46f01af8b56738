/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* The hooks of files that are opened, received, mapped, watched and truncated. */
#ifndef ARMOR_FILE_HOOKS_H
#define ARMOR_FILE_HOOKS_H

#include "guard/namespaces.bpf.h"
#include "guard/objects.bpf.h"
#include "guard/writes.bpf.h"
#include "path/check.bpf.h"

static __always_inline __u32 rights_of(struct file *file)
{
	__u32 mode = file->f_mode;

	/*
	 * Access mode 3 neither reads nor writes, but needs both rights. It is for ioctl() alone (open(2)).
	 */
	if ((file->f_flags & O_ACCMODE) == O_ACCMODE)
		return 1u << READ | 1u << WRITE;
	return (mode & FMODE_READ ? 1u << READ : 0) | (mode & FMODE_WRITE ? 1u << WRITE : 0);
}

/*
 * Returns whether the kernel opens a program to start it (do_open_execat(), fs/exec.c). A task that can
 * choose an open's flags freely, by mq_open(2) or an ioctl, gets in this way only a file that could be
 * started, and cannot write it.
 */
static __always_inline bool is_started(struct file *file)
{
	__u16 mode = file->f_inode->i_mode;

	return file->f_flags & FLAG_EXEC && !(file->f_mode & FMODE_WRITE) && (mode & S_IFMT) == S_IFREG &&
		mode & S_IXUGO && file->f_inode->i_sb->s_magic != MQUEUE_MAGIC;
}

/*
 * Guards the memory of programs with rights by fromSource, of which the kernel writes a core dump as the
 * program itself (do_coredump(), fs/coredump.c).
 */
static __noinline int guard_core_dump(struct file *file)
{
	struct label label = label_of(bpf_get_current_task_btf());
	const struct image_domain *rules = label.generation && label.subject ? head_of(label.domain) : 0;

	if (!rules || !(rules->flags & DOMAIN_RULED))
		return 0;
	return refuse_name((__u64)PLAIN(file->f_path.dentry), (__u64)PLAIN(file->f_path.mnt), FILE_OPEN,
			   guard_verdict(rules), RULE_SOURCE);
}

static __always_inline int guard_core(struct file *file)
{
	struct signal_struct *signal = ADDRESS(task_struct, bpf_get_current_task_btf(), signal);

	return ADDRESS(signal_struct, signal, core_state) ? guard_core_dump(file) : 0;
}

SEC("lsm/file_open")
int BPF_PROG(file_open, struct file *file)
{
	int verdict = 0;
	__u32 rights;

	/* Starting a program is not reading it: bprm_check_security decides on that. */
	if (is_started(file))
		return 0;
	rights = rights_of(file);
	if (rights & 1u << WRITE)
		verdict = guard_write(file->f_path.dentry, file->f_path.mnt, FILE_OPEN) ?: guard_core(file);
	else if (file->f_inode->i_sb->s_magic == NSFS_MAGIC)
		verdict = guard_namespace((__u64)PLAIN(file->f_inode), FILE_OPEN);
	return verdict ?: check_file(file, FILE_OPEN, rights);
}

SEC("lsm/file_receive")
int BPF_PROG(file_receive, struct file *file)
{
	__u32 rights = rights_of(file);
	int verdict = receive_own(file);

	if (!verdict && rights & 1u << WRITE)
		verdict = guard_write(file->f_path.dentry, file->f_path.mnt, FILE_RECEIVE);
	if (!verdict && file->f_inode->i_sb->s_magic == NSFS_MAGIC)
		verdict = guard_namespace((__u64)PLAIN(file->f_inode), FILE_RECEIVE);
	return verdict ?: check_file(file, FILE_RECEIVE, rights);
}

static __always_inline __u32 mapping_rights(unsigned long prot, bool shared)
{
	return (prot & PROT_EXEC ? 1u << MAP : 0) | (shared && prot & PROT_WRITE ? 1u << WRITE : 0);
}

/*
 * Returns whether execve() maps the program that bprm_check_security decided on. The interpreter that a
 * program names may be any other program, and is checked.
 */
static __always_inline bool maps_itself(struct file *file)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct file *exe;

	if (bpf_core_field_exists(task->in_execve) && !BPF_CORE_READ_BITFIELD_PROBED(task, in_execve))
		return false;
	exe = ADDRESS(mm_struct, task->mm, exe_file);
	return exe && ADDRESS(file, exe, f_inode) == file->f_inode;
}

SEC("lsm/mmap_file")
int BPF_PROG(mmap_file, struct file *file, unsigned long reqprot, unsigned long prot, unsigned long flags)
{
	unsigned long type = flags & MAP_TYPE;
	__u32 rights = mapping_rights(prot, type == MAP_SHARED || type == MAP_SHARED_VALIDATE);

	if (!file || !rights)
		return 0;
	if (rights == 1u << MAP && maps_itself(file))
		return 0;
	return check_file(file, MMAP_FILE, rights);
}

SEC("lsm/file_mprotect")
int BPF_PROG(file_mprotect, struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot)
{
	__u32 rights = mapping_rights(prot, vma->vm_flags & VM_SHARED);

	if (!vma->vm_file || !rights)
		return 0;
	return check_mapped((__u64)PLAIN(vma->vm_file), rights);
}

/* Since 6.2. Before, ftruncate() comes to path_truncate. */
SEC("lsm/file_truncate")
int BPF_PROG(file_truncate, struct file *file)
{
	return check_file(file, FILE_TRUNCATE, 1u << WRITE);
}

/* Guards the agent against a watcher who has its opens wait for his permission (fanotify(7)). */
static __noinline int guard_openers(__u64 dentry, __u64 mnt)
{
	struct label label = label_of(bpf_get_current_task_btf());
	struct guarded_key device = {
		.kind = GUARDED_DEVICE,
		.device = FIELD(super_block, ADDRESS(vfsmount, mnt, mnt_sb), s_dev),
	};

	if (!in_a_domain(&label) || is_exempt(&label) || !bpf_map_lookup_elem(&guarded, &device))
		return 0;
	return refuse_name(dentry, mnt, PATH_NOTIFY, VERDICT_BLOCK, RULE_AGENT);
}

/* Watching a file or directory is reading it. */
SEC("lsm/path_notify")
int BPF_PROG(path_notify, const struct path *path, __u64 mask)
{
	struct dentry *dentry = path->dentry;
	struct vfsmount *mnt = path->mnt;

	if (mask & FS_PERMISSION_EVENTS && guard_openers((__u64)PLAIN(dentry), (__u64)PLAIN(mnt)))
		return -EACCES;
	return check_path(path->dentry, path->mnt, PATH_NOTIFY, 1u << READ, false);
}

/* Checks a file for a filesystem's quotas: quotactl(2) makes the kernel read and write it without an open. */
SEC("lsm/quota_on")
int BPF_PROG(quota_on, struct dentry *dentry)
{
	return check_path(dentry, 0, QUOTA_ON, 1u << READ | 1u << WRITE, false);
}

#endif
