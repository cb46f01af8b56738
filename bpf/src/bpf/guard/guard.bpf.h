/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Contains what the guards share, which refuse accesses that no policy mentions. The refusals have the
 * reserved rule numbers RULE_AGENT, RULE_OUTSIDE, RULE_HELPER and RULE_SOURCE, so that they can be reported
 * even if a domain has no rules.
 */
#ifndef ARMOR_GUARD_H
#define ARMOR_GUARD_H

#include "core/entry.bpf.h"
#include "core/judge.bpf.h"

/* Alerts per second about a guard's refusals in a domain without rules, for which no bundle sets a rate. */
#define GUARD_ALERTS 100

static __always_inline bool in_a_domain(const struct label *label)
{
	return label->domain != HOST_DOMAIN;
}

static __always_inline bool is_exempt(const struct label *label)
{
	return label->domain > MAX_DOMAIN;
}

/* Returns whether a program has the agent's name, belongs to root and runs with all rights over the host. */
static __noinline bool runs_agents_program(struct task_struct *task)
{
	struct file *exe = ADDRESS(mm_struct, ADDRESS(task_struct, task, mm), exe_file);
	struct dentry *dentry = ADDRESS(file, exe, f_path.dentry);
	struct inode *inode = ADDRESS(file, exe, f_inode);
	__u64 name[3] = {};
	long length = bpf_probe_read_kernel_str(name, sizeof(name), ADDRESS(dentry, dentry, d_name.name));

	return length == sizeof("hzn-armor-agent") && name[0] == EIGHT('h', 'z', 'n', '-', 'a', 'r', 'm', 'o') &&
		name[1] == EIGHT('r', '-', 'a', 'g', 'e', 'n', 't', 0) && inode && !FIELD(inode, inode, i_uid.val) &&
		has_rights_over_the_host(task);
}

/*
 * Returns whether a task is an agent: it has the agent's label, or is about to take it, or runs another
 * command of the agent's program, on the host or in a container without rules that may be the agent's own.
 * Root on the host could give any program that name. To stop root there is beyond what these programs can.
 */
static __always_inline bool is_agent(const struct label *label, struct task_struct *task)
{
	if (is_exempt(label))
		return true;
	if (in_a_domain(label) && (has_rules(label->domain) || !may_be_the_agents(task)))
		return false;
	return runs_agents_program(task);
}

/* Returns the domain's head, even if it has no rules; 0 before the first generation. */
static __always_inline const struct image_domain *head_of(__u32 domain)
{
	__u32 key = 0;
	void *image = bpf_map_lookup_elem(&live, &key);

	return image && domain <= MAX_DOMAIN ? (void *)word(image, domain * IMAGE_DOMAIN_WORDS) : 0;
}

/* Sets a decision for a guard, or for the rule that it enforces. `domain` is that of the acting task. */
static __always_inline void note_refusal(struct access *access, __u32 domain, __u32 verdict, __u32 rule)
{
	const struct image_domain *rules = head_of(domain), *host = head_of(HOST_DOMAIN);
	bool ruled = rules && rules->flags & DOMAIN_RULED;

	access->decision = verdict << VERDICT_SHIFT | (rule & RULE_MASK);
	access->generation = ruled ? rules->generation : host ? host->generation : 0;
	access->domain = domain;
	access->alerts_per_second = ruled ? rules->alerts_per_second : GUARD_ALERTS;
}

/* Does the same, reports the decision, and returns what the hook returns. */
static __always_inline int refuse(struct scratch *scratch, __u32 domain, __u32 verdict, __u32 rule)
{
	note_refusal(&scratch->access, domain, verdict, rule);
	ask_to_report(scratch);
	return verdict == VERDICT_BLOCK ? -EACCES : 0;
}

/* Returns the verdict of a guard in a domain with these rules. */
static __always_inline __u32 guard_verdict(const struct image_domain *rules)
{
	return rules->flags & DOMAIN_REFUSES ? VERDICT_BLOCK : VERDICT_AUDIT;
}

#endif
