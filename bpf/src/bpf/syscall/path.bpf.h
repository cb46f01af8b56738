/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Reads a path that a system call names: absolute, without `.` and `..`, as it is written. No link is followed, and another
 * thread may write something else before the kernel reads it: rules that refuse are decided in the hooks of objects.
 */
#ifndef ARMOR_SYSCALL_PATH_H
#define ARMOR_SYSCALL_PATH_H

#include "core/mounts.bpf.h"
#include "names/walk.bpf.h"

#define AT_FDCWD (-100)
/* What read_call_path() returns instead of a length. */
#define NO_PATH (-1)	/* the call names no object that has a path */
#define UNREADABLE (-2) /* it may name any path */

#define PLACE(structure, field) bpf_core_field_offset(struct structure, field)

/* Returns where the registers of a call have an argument, which counts from 1; in a program of 32 bits for `compat`. */
static __always_inline __u32 register_of(__u32 argument, bool compat)
{
#ifdef __TARGET_ARCH_x86
	switch (argument) {
	case 1:
		return compat ? PLACE(pt_regs, bx) : PLACE(pt_regs, di);
	case 2:
		return compat ? PLACE(pt_regs, cx) : PLACE(pt_regs, si);
	case 3:
		return PLACE(pt_regs, dx);
	case 4:
		return compat ? PLACE(pt_regs, si) : PLACE(pt_regs, r10);
	case 5:
		return compat ? PLACE(pt_regs, di) : PLACE(pt_regs, r8);
	}
	return compat ? PLACE(pt_regs, bp) : PLACE(pt_regs, r9);
#else
	return PLACE(pt_regs, regs) + 8 * (argument - 1);
#endif
}

/* A call whose paths rules may name. */
struct named_call {
	const struct image_names *names;
	__u64 registers; /* address of the struct pt_regs with its arguments */
	__u32 call;
	bool compat, narrow; /* as in enum call_cookie */
};

static __always_inline __u64 call_argument(const struct named_call *of, __u32 argument)
{
	__u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)of->registers + register_of(argument, of->compat));
	return of->narrow ? (__u32)value : value;
}

/* Takes the byte before those that were taken. The numbers are in a map for the reason that advance() has. */
static long fold_step(__u32 step, struct scratch **of)
{
	struct scratch *scratch = *of;
	struct path_fold *fold = &scratch->fold;
	__u32 at = fold->at - 1, to = fold->to, length = fold->component - to;
	const __u32 mask = 2 * PATH_CAPACITY - 1;
	bool is_dot;
	char byte;

	if (fold->at <= fold->start)
		return 1;
	fold->at = at;
	byte = scratch->path[at & mask];
	if (byte != '/') {
		to--;
		scratch->path[to & mask] = byte;
		fold->to = to;
		return 0;
	}
	is_dot = scratch->path[to & mask] == '.';
	if (length == 1 && is_dot) {
		to = fold->component;
	} else if (length == 2 && is_dot && scratch->path[(to + 1) & mask] == '.') {
		fold->climbs++;
		to = fold->component;
	} else if (length && fold->climbs) {
		fold->climbs--;
		to = fold->component;
	} else if (length) {
		to--;
		scratch->path[to & mask] = '/';
	}
	fold->to = fold->component = to;
	return 0;
}

/* Returns the address of the struct path that a text begins at: the root, a directory's descriptor or the working directory. */
static __always_inline __u64 path_before(struct task_struct *task, bool is_absolute, int directory)
{
	struct fdtable *table = ADDRESS(files_struct, ADDRESS(task_struct, task, files), fdt);
	struct fs_struct *fs = ADDRESS(task_struct, task, fs);
	__u64 file = 0;

	if (is_absolute)
		return (__u64)fs + PLACE(fs_struct, root);
	if (directory == AT_FDCWD)
		return (__u64)fs + PLACE(fs_struct, pwd);
	if ((__u32)directory < FIELD(fdtable, table, max_fds))
		bpf_probe_read_kernel(&file, sizeof(file), ADDRESS(fdtable, table, fd) + directory);
	return file ? file + PLACE(file, f_path) : 0;
}

/*
 * Reads the path in this place of the current task's call (enum call_cookie) to the beginning of scratch->path. Returns its length,
 * which is 0 for the root, NO_PATH or UNREADABLE.
 */
static __noinline int read_call_path(struct scratch *scratch, struct task_struct *task, const struct named_call *of,
				     __u32 place)
{
	__u32 base = place >> 4, start, end, kept;
	__u64 text = call_argument(of, place & 0xf), before;
	bool has_descriptor = base != BASE_WORKING_DIRECTORY && base != BASE_NOTHING;
	int directory = has_descriptor ? (int)call_argument(of, base) : AT_FDCWD;
	struct path_fold *fold = &scratch->fold;
	struct vfsmount *mnt;
	long length = 0;
	char first = 0;

	if (text && bpf_probe_read_user(&first, sizeof(first), (void *)text))
		return UNREADABLE;
	/* Without a text a call is about its descriptor, or fails. */
	if ((!first && !has_descriptor) || (first != '/' && base == BASE_NOTHING))
		return NO_PATH;
	before = path_before(task, first == '/', directory);
	if (!before)
		return NO_PATH;
	mnt = ADDRESS(path, before, mnt);
	if (!is_named(place_of(mount_of(mnt))))
		return first ? UNREADABLE : NO_PATH;
	start = write_path(scratch, (__u64)ADDRESS(path, before, dentry), (__u64)mnt, 1);
	if (start >= PATH_CAPACITY)
		return UNREADABLE;
	if (first)
		length = bpf_probe_read_user_str(&scratch->path[PATH_CAPACITY], PATH_CAPACITY, (void *)text) - 1;
	if (length < 0 || length >= PATH_CAPACITY)
		return UNREADABLE;
	end = PATH_CAPACITY + length;
	fold->start = start;
	fold->at = fold->to = fold->component = end;
	fold->climbs = 0;
	bpf_loop(2 * PATH_CAPACITY, fold_step, &scratch, 0);
	start = fold->to;
	kept = end - start;
	if (start >= 2 * PATH_CAPACITY || kept >= PATH_CAPACITY)
		return UNREADABLE;
	if (kept && bpf_probe_read_kernel(scratch->path, kept, &scratch->path[start]))
		return UNREADABLE;
	return kept;
}

#endif
