/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* The hooks of programs that are started, and of tasks that are forked. */
#ifndef ARMOR_EXEC_HOOKS_H
#define ARMOR_EXEC_HOOKS_H

#include "core/entry.bpf.h"
#include "names/subject.bpf.h"
#include "names/trust.bpf.h"
#include "path/check.bpf.h"
#include "path/start.bpf.h"

SEC("lsm/bprm_check_security")
int BPF_PROG(bprm_check_security, struct linux_binprm *bprm)
{
	struct file *executable = PLAIN(bprm->executable);
	struct dentry *dentry = ADDRESS(file, executable, f_path.dentry);
	/* For a script this runs twice: with the script, then with its interpreter. */
	int verdict = check_file(bprm->file, BPRM_CHECK_SECURITY, 1u << EXEC);

	/* An interpreter of binfmt_misc may get a descriptor to read the file with. */
	if (verdict || !dentry)
		return verdict;
	return check_path(dentry, ADDRESS(file, executable, f_path.mnt), FILE_RECEIVE, 1u << READ, false);
}

SEC("lsm/task_alloc")
int BPF_PROG(task_alloc, struct task_struct *task)
{
	struct label parent = label_of(bpf_get_current_task_btf());
	struct label *child;

	if (parent.domain == HOST_DOMAIN && !parent.generation)
		return 0;
	child = bpf_task_storage_get(&labels, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!child)
		/* A child without a label would be the host's, so the fork fails if there is no memory. */
		return parent.domain == HOST_DOMAIN ? 0 : -EACCES;
	*child = parent;
	return 0;
}

/* This is the first hook for a program that a task starts. From here on the task may be a container's. */
SEC("lsm/bprm_creds_for_exec")
int BPF_PROG(bprm_creds_for_exec, struct linux_binprm *bprm)
{
	struct task_struct *task = bpf_get_current_task_btf();

	note_start(task, bprm);
	return enter_container(task);
}

/*
 * Starts a program that has rights by fromSource as if it were setuid: the dynamic loader then takes no
 * library and no path to one from the task that starts it (AT_SECURE, getauxval(3)). For a script the program
 * is its interpreter.
 */
SEC("lsm/bprm_creds_from_file")
int BPF_PROG(secure_source, struct linux_binprm *bprm)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct file *file = bprm->file;
	struct scratch *scratch;
	struct scope scope;
	int is_source = 1;

	if (!enter_scope(&scope, task) || !(scope.rules->flags & DOMAIN_SECURE_SOURCES) ||
	    !(scope.rules->flags & DOMAIN_SUBJECTS))
		return 0;
	scratch = claim_scratch();
	if (scratch) {
		begin(scratch, task, BPRM_CHECK_SECURITY);
		set_name(&scratch->access.name, file->f_path.dentry, PLAIN(file->f_path.mnt), 0, 0);
		is_source = ask(scratch, &scope, ASK_SOURCE);
		release_scratch(scratch);
	}
	if (is_source)
		bpf_bprm_opts_set(bprm, BPF_F_BPRM_SECUREEXEC);
	return 0;
}

/* Computes the class of a new program from the name that it was started by, if rules need it. */
SEC("lsm/bprm_committed_creds")
int BPF_PROG(bprm_committed_creds, struct linux_binprm *bprm)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct scope scope;
	bool needs_subject = enter_scope(&scope, task) && scope.rules->flags & DOMAIN_SUBJECTS;
	bool distrusted = needs_subject && is_distrusted(&scope, task);
	struct label *label = bpf_task_storage_get(&labels, task, 0, distrusted ? BPF_LOCAL_STORAGE_GET_F_CREATE : 0);

	if (label) {
		label->generation = 0;
		label->entered = (label->entered & ~DISTRUSTED) | (distrusted ? DISTRUSTED : 0);
		/* By now the descriptors that end with an exec are closed. */
		if (label->entered & ENTERING) {
			label->entered &= ~ENTERING;
			count(COUNT_ENTERED);
		}
	} else if (distrusted || label_of(task).generation) {
		/* The label cannot be written. It would give the program rights that it shall not have. */
		bpf_send_signal(SIGKILL);
	}
	if (needs_subject)
		ask_subject(task, &scope);
	return 0;
}

#endif
