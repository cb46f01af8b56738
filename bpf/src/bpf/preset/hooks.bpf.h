/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Decides by presets (policy::preset::Preset). Each program is attached only while a preset in force needs it, beside the
 * program that decides on the same hook by paths.
 */
#ifndef ARMOR_PRESET_HOOKS_H
#define ARMOR_PRESET_HOOKS_H

#include "core/procfs.bpf.h"
#include "number_check.bpf.h"
#include "path/file_hooks.bpf.h"

/* Names from the entry of a thread's deepest directory up to that of the process. */
#define PROC_DEPTH 8

/* What alerts call memory that is no file's. */
#define MEMORY "anonymous memory"

/* Sets the scope to the current task's rules, and returns the table of presets; 0 if there is none. */
static __always_inline __u32 enter_presets(struct scope *scope)
{
	const struct image_kinds *tables = 0;

	if (enter_scope(scope, bpf_get_current_task_btf()))
		tables = tables_of_kinds(scope);
	return tables ? tables->presets : 0;
}

/* Presets are about all programs, so any subject class will do. */
static __always_inline __u32 preset_decision(const struct scope *scope, __u32 table, __u32 preset)
{
	return decision_for_subject(scope, table, unknown(SUBJECT_NONE), preset);
}

/* Reports a decision about a name, or without one about memory, and returns what the hook returns. */
static __always_inline int end_preset(const struct scope *scope, __u32 decision, __u32 hook, __u32 permission,
				      struct dentry *dentry, struct vfsmount *mnt)
{
	struct scratch *scratch;

	if (!(decision >> VERDICT_SHIFT))
		return 0;
	scratch = begin_number_event(scope, bpf_get_current_task_btf(), hook, EVENT_PATH, decision);
	if (scratch) {
		scratch->access.permission = permission;
		if (dentry)
			set_dentry(&scratch->access.name, dentry, mnt);
		else
			__builtin_memcpy(scratch->access.object, MEMORY, sizeof(MEMORY));
		end_number_event(scratch);
	}
	return blocks(decision) ? -EACCES : 0;
}

/* Returns whether a file is removed. One that never had a name is no path's, and rules for paths decide on it. */
static __always_inline bool is_removed(struct file *file)
{
	struct dentry *dentry = ADDRESS(file, file, f_path.dentry);
	struct inode *inode = ADDRESS(file, file, f_inode);

	return !FIELD(inode, inode, __i_nlink) && !FIELD(dentry, dentry, d_hash.pprev) &&
		place_of(mount_of(ADDRESS(file, file, f_path.mnt))) != PLACE_ANONYMOUS;
}

/* Returns whether what a file has in it is memory that no file ever held: a memfd's, System V's, /dev/zero's. */
static __always_inline bool is_memory(struct file *file)
{
	struct inode *inode = ADDRESS(file, file, f_inode);

	return (FIELD(inode, inode, i_mode) & S_IFMT) != S_IFREG ||
		(!FIELD(inode, inode, __i_nlink) && !is_named(place_of(mount_of(ADDRESS(file, file, f_path.mnt)))));
}

static __always_inline int end_mapping(const struct scope *scope, __u32 decision, __u32 hook, struct file *file)
{
	return end_preset(scope, decision, hook, MAP, file ? ADDRESS(file, file, f_path.dentry) : 0,
			  file ? ADDRESS(file, file, f_path.mnt) : 0);
}

/* Decides on memory that becomes executable. `is_modified`: what is mapped need not be what the file says. */
static __always_inline int check_executable(struct file *file, __u32 hook, bool is_modified)
{
	struct scope scope;
	__u32 table = enter_presets(&scope), decision = 0;

	if (!table)
		return 0;
	if (!file || is_modified || is_memory(file))
		decision = preset_decision(&scope, table, PRESET_ANONYMOUS_MAP_EXEC);
	if (file && is_removed(file))
		decision = stricter(preset_decision(&scope, table, PRESET_FILELESS_EXEC), decision);
	return end_mapping(&scope, decision, hook, file);
}

SEC("lsm/bprm_check_security")
int BPF_PROG(preset_exec, struct linux_binprm *bprm)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct file *file = PLAIN(bprm->file);
	struct scope scope;
	__u32 table = enter_presets(&scope), decision = 0;

	if (!table)
		return 0;
	if (is_removed(file))
		decision = preset_decision(&scope, table, PRESET_FILELESS_EXEC);
	/* What a program maps of itself as it starts is not decided on again. */
	if (is_memory(file))
		decision = stricter(preset_decision(&scope, table, PRESET_ANONYMOUS_MAP_EXEC), decision);
	if (label_of(task).entered & SESSION && ADDRESS(signal_struct, ADDRESS(task_struct, task, signal), tty))
		decision = stricter(preset_decision(&scope, table, PRESET_EXEC), decision);
	return end_preset(&scope, decision, BPRM_CHECK_SECURITY, EXEC, ADDRESS(file, file, f_path.dentry),
			  ADDRESS(file, file, f_path.mnt));
}

SEC("lsm/mmap_file")
int BPF_PROG(preset_map, struct file *file, unsigned long reqprot, unsigned long prot, unsigned long flags)
{
	unsigned long type = flags & MAP_TYPE;
	struct file *mapped = PLAIN(file); /* may be 0, also where the verifier takes it for none */

	if (!(prot & PROT_EXEC) || (file && mapped && !(prot & PROT_WRITE) && maps_itself(file)))
		return 0;
	return check_executable(mapped, MMAP_FILE,
				type != MAP_SHARED && type != MAP_SHARED_VALIDATE && prot & PROT_WRITE);
}

SEC("lsm/file_mprotect")
int BPF_PROG(preset_protect, struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot)
{
	bool is_written = prot & PROT_WRITE || (!(vma->vm_flags & VM_EXEC) && PLAIN(vma->anon_vma));

	if (!(prot & PROT_EXEC))
		return 0;
	return check_executable(PLAIN(vma->vm_file), FILE_MPROTECT, !(vma->vm_flags & VM_SHARED) && is_written);
}

/* Returns the process that a name in procfs is about; 0 if it is about none. */
static __always_inline __u32 process_of_name(struct dentry *dentry)
{
	__u32 process;

	for (int depth = 0; depth < PROC_DEPTH; depth++) {
		process = process_of_inode((__u64)ADDRESS(dentry, dentry, d_inode));
		if (process)
			return process;
		dentry = ADDRESS(dentry, dentry, d_parent);
	}
	return 0;
}

/* Returns whether a name is of the environment, or of the memory that has it. */
static __always_inline bool shows_environment(struct dentry *dentry)
{
	__u64 name = 0;

	bpf_probe_read_kernel(&name, sizeof(name), ADDRESS(dentry, dentry, d_name.name));
	return name == EIGHT('e', 'n', 'v', 'i', 'r', 'o', 'n', 0) ||
		(__u32)name == EIGHT('m', 'e', 'm', 0, 0, 0, 0, 0);
}

/* Decides on what procfs, mounted wherever, has about another process. */
static __noinline int check_proc(struct dentry *dentry, struct vfsmount *mnt, __u32 hook)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct scope scope;
	__u32 table, process, decision;

	if (FIELD(super_block, ADDRESS(dentry, dentry, d_sb), s_magic) != PROC_SUPER_MAGIC)
		return 0;
	table = enter_presets(&scope);
	if (!table)
		return 0;
	process = process_of_name(dentry);
	if (!process || process == FIELD(task_struct, task, tgid))
		return 0;
	decision = preset_decision(&scope, table, PRESET_PROTECT_PROC);
	if (shows_environment(dentry))
		decision = stricter(preset_decision(&scope, table, PRESET_PROTECT_ENV), decision);
	return end_preset(&scope, decision, hook, READ, dentry, mnt);
}

SEC("lsm/file_open")
int BPF_PROG(preset_open, struct file *file)
{
	return check_proc(PLAIN(file->f_path.dentry), PLAIN(file->f_path.mnt), FILE_OPEN);
}

SEC("lsm/file_receive")
int BPF_PROG(preset_receive, struct file *file)
{
	return check_proc(PLAIN(file->f_path.dentry), PLAIN(file->f_path.mnt), FILE_RECEIVE);
}

/* Of the links there, most lead to files that have no path below the process's directory. */
SEC("lsm/inode_follow_link")
int BPF_PROG(preset_follow_link, struct dentry *dentry)
{
	return check_proc(PLAIN(dentry), 0, INODE_FOLLOW_LINK);
}

SEC("lsm/inode_readlink")
int BPF_PROG(preset_readlink, struct dentry *dentry)
{
	return check_proc(PLAIN(dentry), 0, INODE_READLINK);
}

#endif
