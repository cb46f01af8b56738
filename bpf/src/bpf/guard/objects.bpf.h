/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Protects the programs, maps and links from all tasks but the agent.
 *
 * A task of a container's domain, with rules or without, gets no descriptor of a map, program or link of
 * ours, however it asks for one. Outside of containers only changes are refused: root of the host could do
 * worse, but must not do it by accident. Our objects are recognised by the BTF that one load gives all of
 * them, maps without BTF by their address, and a generation's image by its form.
 */
#ifndef ARMOR_OBJECTS_H
#define ARMOR_OBJECTS_H

#include "guard/guard.bpf.h"

static __always_inline struct btf *own_btf(void)
{
	return ADDRESS(bpf_map, PLAIN((void *)&counters), btf);
}

static __noinline bool is_own_map(__u64 map)
{
	struct btf *btf = ADDRESS(bpf_map, map, btf);

	/* Two versions that are live at the same time may share these: Enforcer::load(). */
	if ((btf && btf == own_btf()) || map == (__u64)PLAIN((void *)&live) || map == (__u64)PLAIN((void *)&events) ||
	    map == (__u64)PLAIN((void *)&labels) || map == (__u64)PLAIN((void *)&containers) ||
	    map == (__u64)PLAIN((void *)&entrances) || map == (__u64)PLAIN((void *)&bounding_sets))
		return true;
	return FIELD(bpf_map, map, map_type) == BPF_MAP_TYPE_ARRAY &&
		FIELD(bpf_map, map, value_size) == sizeof(struct image_page) &&
		FIELD(bpf_map, map, map_flags) & BPF_F_INNER_MAP;
}

/*
 * Returns whether a program is ours. The one in place of judge() has its own BTF, but our maps, first that of
 * the scratches.
 */
static __always_inline bool is_own_program(__u64 program)
{
	struct bpf_prog_aux *aux = ADDRESS(bpf_prog, program, aux);
	struct btf *btf = ADDRESS(bpf_prog_aux, aux, btf);
	__u64 map = 0;

	if (btf && btf == own_btf())
		return true;
	if (FIELD(bpf_prog_aux, aux, used_map_cnt))
		bpf_probe_read_kernel(&map, sizeof(map), (void *)ADDRESS(bpf_prog_aux, aux, used_maps));
	return map && ADDRESS(bpf_map, map, btf) == own_btf();
}

static __always_inline bool is_own_link_id(__u32 id)
{
	struct guarded_key key = { .kind = GUARDED_LINK, .number = id };

	return bpf_map_lookup_elem(&guarded, &key);
}

/* Returns whether an open file is a map, program or link of ours. Other files have none of the marks. */
static __noinline bool is_own_object(__u64 file)
{
	__u64 object = (__u64)ADDRESS(file, file, private_data);

	return object &&
		(is_own_map(object) || is_own_program(object) ||
		 is_own_program((__u64)ADDRESS(bpf_link, object, prog)));
}

static __always_inline __u64 file_of_descriptor(struct task_struct *task, __u32 number)
{
	struct fdtable *table = ADDRESS(files_struct, ADDRESS(task_struct, task, files), fdt);
	struct file **files = ADDRESS(fdtable, table, fd);
	__u64 file = 0;

	if (number < FIELD(fdtable, table, max_fds))
		bpf_probe_read_kernel(&file, sizeof(file), &files[number]);
	return file;
}

/* Kinds of our objects in alerts. The kernel's name for the object follows. */
#define KIND_MAP EIGHT('b', 'p', 'f', ' ', 'm', 'a', 'p', ' ')
#define KIND_PROGRAM EIGHT('p', 'r', 'o', 'g', 'r', 'a', 'm', ' ')
#define KIND_LINK EIGHT('b', 'p', 'f', ' ', 'l', 'i', 'n', 'k')

static __noinline int refuse_object(__u32 hook, __u64 kind, __u64 name)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct label label = label_of(task);
	struct scratch *scratch;
	int verdict;

	scratch = claim_scratch();
	if (!scratch)
		return refuse_unreported();
	begin(scratch, task, hook);
	__builtin_memcpy(scratch->access.object, &kind, sizeof(kind));
	scratch->access.object[sizeof(kind)] = 0;
	if (name)
		bpf_probe_read_kernel_str(&scratch->access.object[sizeof(kind)], 16, (void *)name);
	scratch->access.permission = WRITE;
	verdict = refuse(scratch, label.domain, VERDICT_BLOCK, RULE_AGENT);
	release_scratch(scratch);
	return verdict;
}

/* Returns whether our objects are refused to the current task. `looks`: the access could change nothing. */
static __always_inline bool is_kept_out(bool looks)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct label label = label_of(task);

	return (in_a_domain(&label) || !looks) && !is_agent(&label, task);
}

/* Returns whether the iterators show anything to the current task. They show nothing to containers. */
static __always_inline bool is_shown(void)
{
	struct label label = label_of(bpf_get_current_task_btf());

	return !in_a_domain(&label) || is_agent(&label, bpf_get_current_task_btf());
}

/* Checks each descriptor of a map that the kernel gives out: for an id, a pin, a new map. */
SEC("lsm/bpf_map")
int BPF_PROG(bpf_map, struct bpf_map *map, unsigned int mode)
{
	if (!is_own_map((__u64)PLAIN(map)) || !is_kept_out(!(mode & FMODE_WRITE)))
		return 0;
	return refuse_object(BPF_MAP, KIND_MAP, (__u64)PLAIN(&map->name));
}

SEC("lsm/bpf_prog")
int BPF_PROG(bpf_prog, struct bpf_prog *prog)
{
	if (!is_own_program((__u64)PLAIN(prog)) || !is_kept_out(true))
		return 0;
	return refuse_object(BPF_PROGRAM, KIND_PROGRAM, (__u64)PLAIN(&prog->aux->name));
}

/* Offset in union bpf_attr (include/uapi/linux/bpf.h) of the program that BPF_PROG_LOAD is to attach to. */
#define ATTACH_PROGRAM 112

/* Returns the descriptor that a command is about: a link, or a program to attach to or to replace. */
static __always_inline __u32 meant_by(int command, const void *attr)
{
	__u32 words[3] = {}, program = 0;

	bpf_probe_read_kernel(words, sizeof(words), attr);
	switch (command) {
	case BPF_PROG_LOAD:
		bpf_probe_read_kernel(&program, sizeof(program), attr + ATTACH_PROGRAM);
		return program;
	case BPF_LINK_CREATE: /* target_fd */
		return words[1];
	case BPF_OBJ_PIN: /* bpf_fd */
		return words[2];
	}
	return words[0];
}

/*
 * Checks the commands that name a link, for which there is no hook, and those that use a descriptor of one.
 * Another thread may meanwhile change what the descriptor's number stands for. It can only become the link of
 * an LSM program or a kprobe, which can neither be detached nor given another program, or, for root of the host, that of
 * the program for packets or a program of ours. Iterators' links are not pinned, and the iterators show nothing to others.
 */
SEC("lsm/bpf")
int BPF_PROG(bpf, int command, union bpf_attr *attr, unsigned int size)
{
	__u32 meant = meant_by(command, PLAIN(attr));

	switch (command) {
	case BPF_LINK_GET_FD_BY_ID:
		if (!is_own_link_id(meant))
			return 0;
		break;
	case BPF_PROG_LOAD:
	case BPF_LINK_CREATE:
		if (!meant)
			return 0;
		/* fallthrough */
	case BPF_LINK_UPDATE:
	case BPF_LINK_DETACH:
	case BPF_ITER_CREATE:
	case BPF_PROG_BIND_MAP:
	case BPF_OBJ_PIN:
		if (!is_own_object(file_of_descriptor(bpf_get_current_task_btf(), meant)))
			return 0;
		break;
	default:
		return 0;
	}
	return is_kept_out(false) ? refuse_object(BPF_COMMAND, KIND_LINK, 0) : 0;
}

/* Refuses a descriptor of ours that another process hands to this one. Returns what the hook returns. */
static __always_inline int receive_own(struct file *file)
{
	struct label label = label_of(bpf_get_current_task_btf());

	if (!in_a_domain(&label) || is_exempt(&label) || !is_own_object((__u64)PLAIN(file)))
		return 0;
	return refuse_object(BPF_COMMAND, EIGHT('b', 'p', 'f', ' ', 'f', 'i', 'l', 'e'), 0);
}

#endif
