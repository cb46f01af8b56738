/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Tells which container a task is in. A container is known by its id, which runtimes write into the name of its
 * control group.
 */
#ifndef ARMOR_CONTAINER_H
#define ARMOR_CONTAINER_H

#include "core/mounts.bpf.h"

/* The digits are no id: there is another character among them, or there are too many. */
#define NO_ID (2 * CONTAINER_ID_BYTES + 1)

struct container_search {
	struct scratch *scratch;
	struct cgroup *group;
	__u32 domain;
	bool is_unidentified; /* an id was found that is not in `containers` */
};

/* Reads one character of scratch->group.name. An id follows its start or a '-', up to its end or a '.'. */
static long read_digit(__u32 position, struct container_search *search)
{
	struct scratch *scratch = search->scratch;
	char digit = scratch->group.name[position & (GROUP_NAME - 1)];
	__u32 digits = scratch->group.digits, value = 16;
	__u8 *byte;

	if (!digit || (digit == '.' && digits == 2 * CONTAINER_ID_BYTES)) {
		scratch->group.found = digits == 2 * CONTAINER_ID_BYTES;
		return 1;
	}
	if (digit >= '0' && digit <= '9')
		value = digit - '0';
	else if (digit >= 'a' && digit <= 'f')
		value = digit - 'a' + 10;
	if (value < 16 && digits < 2 * CONTAINER_ID_BYTES) {
		byte = &scratch->group.container.bytes[digits / 2 & (CONTAINER_ID_BYTES - 1)];
		*byte = *byte << 4 | value;
		scratch->group.digits = digits + 1;
	} else {
		scratch->group.digits = digit == '-' ? 0 : NO_ID;
	}
	return 0;
}

/* Looks at one control group, from the root down. Of nested containers the outermost is the host's. */
static long search_step(__u32 level, struct container_search *search)
{
	__u64 *ancestors = (void *)search->group + bpf_core_field_offset(struct cgroup, ancestors);
	struct scratch *scratch = search->scratch;
	struct kernfs_iattrs *owner;
	struct container_id id;
	struct cgroup *group = 0;
	__u32 *domain;
	long length;

	bpf_probe_read_kernel(&group, sizeof(group), &ancestors[level]);
	length = bpf_probe_read_kernel_str(scratch->group.name, GROUP_NAME, BPF_CORE_READ(group, kn, name));
	if (length > 2 * CONTAINER_ID_BYTES && length < GROUP_NAME) {
		scratch->group.digits = 0;
		scratch->group.found = 0;
		bpf_loop(GROUP_NAME, read_digit, search, 0);
		/* 6.1 accepts no map key in memory that a global function was passed. */
		id = scratch->group.container;
		domain = scratch->group.found ? bpf_map_lookup_elem(&containers, &id) : 0;
		if (domain || (scratch->group.found && !search->is_unidentified))
			scratch->group.outermost = id;
		if (domain) {
			search->domain = *domain;
			return 1;
		}
		if (scratch->group.found)
			search->is_unidentified = true;
	}
	/* The owner of a group names the groups in it: below one that is not root's the search ends. */
	owner = ADDRESS(kernfs_node, ADDRESS(cgroup, group, kn), iattr);
	return owner && FIELD(kernfs_iattrs, owner, ia_uid.val);
}

static __always_inline __u32 domain_of_group(struct scratch *scratch, struct cgroup *group)
{
	struct container_search search = { .scratch = scratch, .group = group };

	bpf_loop((FIELD(cgroup, group, level) & 0xffff) + 1, search_step, &search, 0);
	return search.domain == HOST_DOMAIN && search.is_unidentified ? UNIDENTIFIED_DOMAIN : search.domain;
}

/*
 * Returns the domain of the container that a task is in, and leaves the container's id in scratch->group.outermost.
 * Returns UNIDENTIFIED_DOMAIN if the id is not known, HOST_DOMAIN if the task is in no container.
 */
static __noinline __u32 domain_of_container(struct scratch *scratch, struct task_struct *task)
{
	struct css_set *groups = ADDRESS(task_struct, task, cgroups);
	__u32 domain = domain_of_group(scratch, ADDRESS(css_set, groups, dfl_cgrp));
	struct cgroup_subsys_state **subsystems, *devices = 0;

	if (domain != HOST_DOMAIN || !bpf_core_enum_value_exists(enum cgroup_subsys_id, devices_cgrp_id))
		return domain;
	/* Version 1 has a hierarchy for each controller. Every runtime uses that of devices. */
	subsystems = (void *)groups + bpf_core_field_offset(struct css_set, subsys);
	bpf_probe_read_kernel(&devices, sizeof(devices),
			      &subsystems[bpf_core_enum_value(enum cgroup_subsys_id, devices_cgrp_id)]);
	return domain_of_group(scratch, ADDRESS(cgroup_subsys_state, devices, cgroup));
}

static __always_inline bool has_rules(__u32 domain)
{
	__u32 key = 0;
	void *image = bpf_map_lookup_elem(&live, &key);
	struct image_domain *rules = image ? (void *)word(image, domain * IMAGE_DOMAIN_WORDS) : 0;

	return rules && rules->flags & DOMAIN_RULED;
}

static __always_inline bool has_rights_over_the_host(struct task_struct *task)
{
	const struct cred *cred = ADDRESS(task_struct, task, cred);
	__u32 capabilities[2] = {};

	bpf_core_read(capabilities, sizeof(capabilities), &cred->cap_effective);
	return capabilities[0] & 1u << CAP_SYS_ADMIN && !BPF_CORE_READ(cred, user_ns, level);
}

/* Returns whether a task's container may be the agent's own. */
static __always_inline bool may_be_the_agents(struct task_struct *task)
{
	return has_rights_over_the_host(task) && !BPF_CORE_READ(task, thread_pid, level);
}

static __always_inline __u32 seconds(void)
{
	return bpf_ktime_get_boot_ns() / 1000000000;
}

#endif
