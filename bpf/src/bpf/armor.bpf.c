// SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause
/*
 * Contains the programs: one per hook, which says what an access needs and leaves the rest to check.h, and
 * the iterators that find what no hook sees.
 *
 * Invariants:
 * - A program returns 0 or -EACCES, whatever happens to the alert: decide first, report second.
 * - No decision depends on user memory, and no hook runs on read or write.
 * - What cannot be determined (no path, no scratch, a table that ends early) is refused if the domain has
 *   rules of that kind.
 */
#include "kernel.h"

#include <bpf/bpf_tracing.h>

#include "attributes.h"
#include "container.h"
#include "preexisting.h"
#include "mounting.h"
#include "socket.h"
#include "helpers.h"
#include "ptrace.h"
#include "trust.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Makes the skeleton generate the contract's types for Rust. No program reads it. */
struct contract {
	enum domain_number domain_number;
	enum image_size image_size;
	enum event_size event_size;
	enum table_bit table_bit;
	enum object_class object_class;
	enum subject_class subject_class;
	enum verdict verdict;
	enum reserved_rule reserved_rule;
	enum permission permission;
	enum hook hook;
	enum domain_flag domain_flag;
	enum device_kind device_kind;
	enum guarded_kind guarded_kind;
	enum guarded_reach guarded_reach;
	enum counter counter;
	enum event_kind event_kind;
	struct image_domain image_domain;
	struct label label;
	struct container_id container_id;
	struct labelled labelled;
	struct linked_key linked_key;
	struct guarded_key guarded_key;
	struct event event;
};
const volatile struct contract contract = {};

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

/* Sets up the names to find for an answer. Returns whether the current task's program is among them. */
static __always_inline bool begin_answer(struct scope *scope, struct scratch *scratch)
{
	struct question *question = &scratch->question;

	switch (question->asked) {
	case ASK_NAME:
		/* The generation has changed: what was cached for the last one does not count. */
		if (question->generation != scope->rules->generation)
			question->known = scratch->access.name.directory.known = 0;
		if (!question->known)
			want_object(scratch, NAME);
		break;
	case ASK_TWO_NAMES:
		want_object(scratch, NAME);
		want_object(scratch, NEW_NAME);
		break;
	case ASK_MOUNTING:
		begin_mounting(scope, scratch);
		break;
	case ASK_DEVICE:
		break;
	case ASK_LOOK:
		begin_look(scope, scratch);
		return false;
	case ASK_TRACED_EXEC:
		want_program(scratch, PROGRAM, question->tasks[0]);
		want_program(scratch, NAME, 0);
		return false;
	case ASK_SOURCE:
		want_program(scratch, NAME, 0);
		return false;
	}
	if (find_known_subject(scope))
		return false;
	want_program(scratch, PROGRAM, (__u64)PLAIN(bpf_get_current_task_btf()));
	return true;
}

/* Decides on the question in a scratch, in place of judge(). */
SEC("?freplace/judge")
int judge_access(__u32 slot)
{
	struct scratch *scratch = scratch_at(slot);
	struct scope scope;
	bool finds_subject;
	__u32 asked;

	if (!scratch)
		return 1;
	asked = scratch->question.asked;
	settle_own(bpf_get_current_task_btf(), scratch);
	if (asked == ASK_REPORT) {
		report_or_defer(scratch);
		return 0;
	}
	if (!enter_domain(&scope, scratch->question.domain))
		return 0;
	if (scope.rules->flags & DOMAIN_SUBJECTS)
		scope.label = bpf_task_storage_get(&labels, bpf_get_current_task_btf(), 0, 0);
	scratch->find_count = 0;
	finds_subject = begin_answer(&scope, scratch);
	find_wanted(&scope, scratch);
	if (finds_subject)
		store_subject(&scope, &scratch->access.program);
	switch (scratch->question.asked) {
	case ASK_SUBJECT:
		return 0;
	case ASK_NAME:
		return judge_name(&scope, scratch);
	case ASK_TWO_NAMES:
		return judge_two_names(&scope, scratch);
	case ASK_MOUNTING:
		return judge_mounting(&scope, scratch);
	case ASK_DEVICE:
		return judge_device(&scope, scratch);
	case ASK_LOOK:
		return judge_look(&scope, scratch);
	case ASK_TRACED_EXEC:
		return judge_traced_exec(&scope, scratch);
	case ASK_SOURCE:
		return subject_found(&scratch->access.name) != SUBJECT_NONE;
	}
	return 1;
}

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

/*
 * Returns whether a name is a POSIX queue's. A queue is made and removed by name without a path
 * (ipc/mqueue.c), so inode_create and inode_unlink decide, however it is done.
 */
static __always_inline bool is_queue(struct dentry *dentry)
{
	return FIELD(super_block, ADDRESS(dentry, PLAIN(dentry), d_sb), s_magic) == MQUEUE_MAGIC;
}

/* Checks a name that is written: first the guards, then the rules. */
static __always_inline int check_written(struct dentry *dentry, struct vfsmount *mnt, __u32 hook, bool making_directory)
{
	return guard_write(dentry, mnt, hook) ?: check_path(dentry, mnt, hook, 1u << WRITE, making_directory);
}

/* Checks a name that is removed, and with it what is mounted on it. */
static __always_inline int check_removed(struct dentry *dentry, struct vfsmount *mnt, __u32 hook)
{
	int verdict = guard_write(dentry, mnt, hook) ?: check_detaching(dentry, mnt, hook);

	return verdict ?: check_path(dentry, mnt, hook, 1u << WRITE, false);
}

SEC("lsm/path_truncate")
int BPF_PROG(path_truncate, const struct path *path)
{
	return check_written(path->dentry, path->mnt, PATH_TRUNCATE, false);
}

SEC("lsm/path_chmod")
int BPF_PROG(path_chmod, const struct path *path)
{
	return check_written(path->dentry, path->mnt, PATH_CHMOD, false);
}

SEC("lsm/path_chown")
int BPF_PROG(path_chown, const struct path *path)
{
	return check_written(path->dentry, path->mnt, PATH_CHOWN, false);
}

SEC("lsm/path_unlink")
int BPF_PROG(path_unlink, const struct path *dir, struct dentry *dentry)
{
	if (is_queue(dentry))
		return 0;
	return check_removed(dentry, dir->mnt, PATH_UNLINK);
}

SEC("lsm/path_rmdir")
int BPF_PROG(path_rmdir, const struct path *dir, struct dentry *dentry)
{
	return check_removed(dentry, dir->mnt, PATH_RMDIR);
}

SEC("lsm/path_mkdir")
int BPF_PROG(path_mkdir, const struct path *dir, struct dentry *dentry)
{
	return check_written(dentry, dir->mnt, PATH_MKDIR, true);
}

SEC("lsm/path_mknod")
int BPF_PROG(path_mknod, const struct path *dir, struct dentry *dentry)
{
	if (is_queue(dentry))
		return 0;
	return check_written(dentry, dir->mnt, PATH_MKNOD, false);
}

SEC("lsm/path_symlink")
int BPF_PROG(path_symlink, const struct path *dir, struct dentry *dentry)
{
	return check_written(dentry, dir->mnt, PATH_SYMLINK, false);
}

SEC("lsm/path_link")
int BPF_PROG(path_link, struct dentry *old_dentry, const struct path *new_dir, struct dentry *new_dentry)
{
	/* The old name is in the new one's mount: link() does not cross mounts. */
	return guard_two(old_dentry, new_dir->mnt, new_dentry, new_dir->mnt, PATH_LINK) ?:
		check_two(old_dentry, new_dir->mnt, new_dentry, new_dir->mnt, PATH_LINK, false);
}

SEC("lsm/path_rename")
int BPF_PROG(path_rename, const struct path *old_dir, struct dentry *old_dentry, const struct path *new_dir,
	     struct dentry *new_dentry, unsigned int flags)
{
	int verdict = guard_two(old_dentry, old_dir->mnt, new_dentry, new_dir->mnt, PATH_RENAME);

	if (!verdict)
		verdict = check_detaching(new_dentry, new_dir->mnt, PATH_RENAME);
	return verdict ?:
		check_two(old_dentry, old_dir->mnt, new_dentry, new_dir->mnt, PATH_RENAME, flags & RENAME_EXCHANGE);
}

/* Checks a mount at a path. The kernel puts it on top of all that is mounted there already. */
static __noinline int mounts_at(struct dentry *dentry, struct vfsmount *mnt, __u32 hook, enum mounting mounting)
{
	struct topmost top = { .mount = (__u64)mount_of(PLAIN(mnt)), .dentry = (__u64)PLAIN(dentry) };

	find_topmost(&top);
	dentry = (void *)top.dentry;
	mnt = (void *)top.mount + bpf_core_field_offset(struct mount, mnt);
	return guard_write(dentry, mnt, hook) ?: check_mounting(dentry, mnt, hook, mounting);
}

SEC("lsm/sb_mount")
int BPF_PROG(sb_mount, const char *dev_name, const struct path *path, const char *type, unsigned long flags, void *data)
{
	/* In the order of path_mount(), fs/namespace.c: with MS_BIND no later flag counts. */
	if (flags & MS_REMOUNT || (!(flags & MS_BIND) && flags & MS_CHANGES_PROPAGATION))
		return 0;
	/* What is moved is known only by a name in user memory, so it might be any name that rules block. */
	return mounts_at(path->dentry, path->mnt, SB_MOUNT,
			 flags & MS_MOVE && !(flags & MS_BIND) ? MOVES_ALL : MOUNTS_OVER);
}

SEC("lsm/move_mount")
int BPF_PROG(move_mount, const struct path *from, const struct path *to)
{
	struct vfsmount *mnt = from->mnt;
	int verdict = 0;

	if (is_named(place_of(mount_of(PLAIN(mnt)))))
		verdict = check_mounting(from->dentry, mnt, MOVE_MOUNT, TAKES_AWAY);
	return verdict ?: mounts_at(to->dentry, to->mnt, MOVE_MOUNT, MOUNTS_OVER);
}

SEC("lsm/sb_pivotroot")
int BPF_PROG(sb_pivotroot, const struct path *old, const struct path *new)
{
	return check_mounting(new->dentry, new->mnt, SB_PIVOTROOT, MOVES_ALL);
}

SEC("lsm/sb_umount")
int BPF_PROG(sb_umount, struct vfsmount *mnt, int flags)
{
	return guard_umount(mnt) ?: check_mounting(mnt->mnt_root, mnt, SB_UMOUNT, TAKES_AWAY);
}

/*
 * Checks changes that go by no path: those that an overlay makes in its upper layer for a task, and those of
 * queues. Most calls are others, which the path hooks have decided on.
 */
static __always_inline int check_pathless(struct dentry *dentry, __u32 hook, bool making_directory)
{
	if (!is_acted_for(bpf_get_current_task_btf()) && !is_queue(dentry))
		return 0;
	return check_written(dentry, 0, hook, making_directory);
}

/* The same for what is mounted in another mount tree on a name that goes so. */
static __always_inline int check_detaching_pathless(struct dentry *dentry, __u32 hook)
{
	return is_acted_for(bpf_get_current_task_btf()) ? check_detaching(dentry, 0, hook) : 0;
}

SEC("lsm/inode_create")
int BPF_PROG(inode_create, struct inode *dir, struct dentry *dentry)
{
	return check_pathless(dentry, INODE_CREATE, false);
}

SEC("lsm/inode_unlink")
int BPF_PROG(inode_unlink, struct inode *dir, struct dentry *dentry)
{
	return check_pathless(dentry, INODE_UNLINK, false) ?: check_detaching_pathless(dentry, INODE_UNLINK);
}

SEC("lsm/inode_symlink")
int BPF_PROG(inode_symlink, struct inode *dir, struct dentry *dentry)
{
	return check_pathless(dentry, INODE_SYMLINK, false);
}

SEC("lsm/inode_mkdir")
int BPF_PROG(inode_mkdir, struct inode *dir, struct dentry *dentry)
{
	return check_pathless(dentry, INODE_MKDIR, true);
}

SEC("lsm/inode_mknod")
int BPF_PROG(inode_mknod, struct inode *dir, struct dentry *dentry)
{
	return check_pathless(dentry, INODE_MKNOD, false);
}

SEC("lsm/inode_rename")
int BPF_PROG(inode_rename, struct inode *old_dir, struct dentry *old_dentry, struct inode *new_dir,
	     struct dentry *new_dentry)
{
	int verdict;

	if (!is_acted_for(bpf_get_current_task_btf()))
		return 0;
	verdict = guard_two(old_dentry, 0, new_dentry, 0, INODE_RENAME) ?: check_detaching(new_dentry, 0, INODE_RENAME);
	return verdict ?: check_two(old_dentry, 0, new_dentry, 0, INODE_RENAME, false);
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

SEC("lsm/unix_stream_connect")
int BPF_PROG(unix_stream_connect, struct sock *sock, struct sock *other)
{
	return check_peer(other, UNIX_STREAM_CONNECT);
}

/* The kernel asks when a datagram socket connects, and again for each message. */
SEC("lsm/unix_may_send")
int BPF_PROG(unix_may_send, struct socket *sock, struct socket *other)
{
	struct sock *peer = other->sk;

	return peer ? check_peer(peer, UNIX_MAY_SEND) : 0;
}

SEC("lsm/inode_setattr")
int BPF_PROG(inode_setattr, void *idmap, struct dentry *dentry, struct iattr *attr)
{
	return check_setattr(dentry, attr);
}

/* The same hook on kernels where it has no first argument. */
SEC("lsm/inode_setattr")
int BPF_PROG(inode_setattr_unmapped, struct dentry *dentry, struct iattr *attr)
{
	return check_setattr(dentry, attr);
}

SEC("lsm/inode_setxattr")
int BPF_PROG(inode_setxattr, void *idmap, struct dentry *dentry)
{
	return check_attributes(dentry, INODE_SETXATTR);
}

SEC("lsm/inode_removexattr")
int BPF_PROG(inode_removexattr, void *idmap, struct dentry *dentry)
{
	return check_attributes(dentry, INODE_REMOVEXATTR);
}

/* Since 6.2, like inode_remove_acl. Before, ACLs come to inode_setxattr and inode_removexattr. */
SEC("lsm/inode_set_acl")
int BPF_PROG(inode_set_acl, void *idmap, struct dentry *dentry)
{
	return check_attributes(dentry, INODE_SET_ACL);
}

SEC("lsm/inode_remove_acl")
int BPF_PROG(inode_remove_acl, void *idmap, struct dentry *dentry)
{
	return check_attributes(dentry, INODE_REMOVE_ACL);
}

/* Since 6.17: flags and project ids, changed by ioctl or system call. */
SEC("lsm/inode_file_setattr")
int BPF_PROG(inode_file_setattr, struct dentry *dentry)
{
	return check_attributes(dentry, INODE_FILE_SETATTR);
}

/* Bars an inode from the cache for good once it gets a second name, whatever task gives it. */
SEC("lsm/inode_link")
int BPF_PROG(inode_link, struct dentry *old_dentry, struct inode *dir, struct dentry *new_dentry)
{
	struct inode *inode = old_dentry->d_inode;
	struct verdict_cache *cache;

	if (!inode)
		return 0;
	if (is_acted_for(bpf_get_current_task_btf())) {
		int verdict = guard_two(old_dentry, 0, new_dentry, 0, INODE_LINK) ?:
			check_two(old_dentry, 0, new_dentry, 0, INODE_LINK, false);

		if (verdict)
			return verdict;
	}
	cache = bpf_inode_storage_get(&inodes, inode, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!cache)
		/* Out of memory: better no second name than one that the cache does not know. */
		return -EACCES;
	cache->ever_linked = 1;
	return 0;
}

/* Counts a directory's removal before it happens: the inode's number and address may become another's. */
SEC("lsm/inode_rmdir")
int BPF_PROG(inode_rmdir, struct inode *dir, struct dentry *dentry)
{
	__sync_fetch_and_add(&removals, 1);
	return check_pathless(dentry, INODE_RMDIR, false) ?: check_detaching_pathless(dentry, INODE_RMDIR);
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
	return enter_container(bpf_get_current_task_btf());
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

SEC("iter/task")
int label_tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;

	return task && is_shown() ? show_labelled(ctx->meta->seq, task, false) : 0;
}

/* The extent to which the kernel lets tasks be preempted (kernel/sched/core.c), if that is set at boot. */
extern const void preempt_dynamic_mode __ksym __weak;

/* preempt_dynamic_mode plus one, for the agent; 0 if the kernel has none. */
__u32 preempt_mode;

/* Records where mount namespaces are, before a generation that names them becomes live. */
SEC("iter/task")
int note_namespaces(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	__s32 mode = 0;

	if (task)
		note_namespace(task);
	else if (&preempt_dynamic_mode && !bpf_probe_read_kernel(&mode, sizeof(mode), &preempt_dynamic_mode))
		preempt_mode = mode + 1;
	return 0;
}

/* Settles the refusals of names that did not exist, for tasks that have asked nothing since. */
SEC("iter/task")
int settle_undecided(struct bpf_iter__task *ctx)
{
	if (!ctx->task && is_shown())
		settle_all();
	return 0;
}

SEC("iter/task")
int release_unidentified(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;

	return task && is_shown() ? show_labelled(ctx->meta->seq, task, true) : 0;
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

SEC("iter/task_file")
int preexisting_files(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;

	if (!task || !file || !is_shown())
		return 0;
	return show_preexisting(ctx->meta->seq, task, file, ctx->fd, rights_of(file));
}

SEC("iter/task_vma")
int preexisting_mappings(struct bpf_iter__task_vma *ctx)
{
	struct task_struct *task = ctx->task;
	struct vm_area_struct *vma = ctx->vma;
	unsigned long flags;
	struct file *file, *exe;
	__u32 rights = 0;

	if (!task || !vma || !is_shown())
		return 0;
	flags = vma->vm_flags;
	file = ADDRESS(vm_area_struct, vma, vm_file);
	if (!file)
		return 0;
	if (flags & VM_EXEC) {
		/* The running program itself was started, not mapped. */
		exe = ADDRESS(mm_struct, ADDRESS(task_struct, task, mm), exe_file);
		rights = ADDRESS(file, exe, f_inode) == ADDRESS(file, file, f_inode) ? 1u << EXEC : 1u << MAP;
	}
	if (flags & VM_SHARED && flags & VM_WRITE)
		rights |= 1u << WRITE;
	return show_preexisting(ctx->meta->seq, task, file, A_MAPPING, rights);
}
