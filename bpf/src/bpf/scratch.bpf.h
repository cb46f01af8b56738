/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Declares the scratch memory that a decision owns while it runs, and what it holds. */
#ifndef ARMOR_SCRATCH_H
#define ARMOR_SCRATCH_H

#include "maps.h"
#include "read.bpf.h"

/*
 * An LSM program may be preempted by another task that enters the same program on the same processor, so one
 * buffer per processor is not enough. Each decision claims one of SCRATCH_SLOTS. If none is free, the access
 * is refused.
 */
#define SCRATCH_SLOTS 4

/* Number of classes that an object may have. The strictest decision over all of them holds. */
#define CLASSES 6

struct classes {
	union {
		__u16 of[CLASSES]; /* each class once; the first is that of the mount path, if there is one */
		__u64 cached;	   /* the first CACHED_CLASSES */
	};
	__u32 count;
};

/* Number of paths of a directory whose states are kept. */
#define NAME_STATES 4

/* The result of a search for the paths of a name. */
enum find_outcome {
	FIND_NOTHING, /* there is no path that counts */
	FIND_TORN,    /* subjects: renames kept the path from being determined */
	FIND_NAMES,
};

/* Filesystems stacked on one another (FILESYSTEM_MAX_STACK_DEPTH, include/linux/fs.h). */
#define OVERLAY_DEPTH 2

/* A name that an access is about, and what it resolved to. */
struct name {
	__u64 dentry; /* addresses; 0: no such name */
	__u64 mnt;    /* 0: only the canonical paths count */
	/* Dentries of the file in an overlay's layers; 0: none, or not counted. */
	__u64 layers[OVERLAY_DEPTH];
	__u64 shown_by;	       /* mount of one of its canonical paths; 0: it has none */
	__u32 place;	       /* enum place, or the mount namespace that the mount is in */
	__u32 first_canonical; /* class of a canonical path; NO_CLASS: there is none */
	/* Class of another one, if it differs; SUBJECT_CONFLICT: more than two differ. */
	__u32 other_canonical;
	__u32 names;		   /* number of its paths */
	__u32 states[NAME_STATES]; /* states of the first of them */
	struct classes classes;
	struct classes below; /* directories: classes of everything that can lie below */
	__u32 is_dir;
	__u32 several; /* it is a file with other names too */
	__u32 device;  /* it is a device node */
	__u32 outcome; /* enum find_outcome */
	/* Of a mount's root: the mount tree has another mount at the same mountpoint, which goes with this one. */
	__u32 has_twin;
	__u32 is_layer; /* file that the kernel opened in a layer: judged only if a rule names it */
	struct directory directory;
};

#define NO_CLASS (~0u)
/* Bytes of the text that stands for an object without a path, with the final 0. */
#define OBJECT_NAME 32

/* Index of a name in struct access. */
enum which_name { NAME, NEW_NAME, PROGRAM, OTHER_PROGRAM, NAMES };

/* An access, as an alert reports it. */
struct access {
	__u64 task;		  /* address of the task that accesses */
	__u64 other;		  /* address of the task that the access is about instead of a name; 0: none */
	char object[OBJECT_NAME]; /* text for an object that has no path; empty: none */
	union {
		struct {
			struct name name;
			struct name new_name; /* rename and link: the other name */
			struct name program;  /* program of the task */
			/* Of another task; ASK_MOUNTING: the first name, by the subjects automaton. */
			struct name other_program;
		};
		struct name names[NAMES];
	};
	__u32 generation;
	__u32 domain;
	__u32 alerts_per_second;
	__u32 hook;
	__u32 permission;
	__u32 decision;
	__u32 about_new; /* the decision is about new_name */
};

/* The question that a hook asks judge(). */
enum asked {
	ASK_SUBJECT,	 /* only the class of the task's program, for its label */
	ASK_NAME,	 /* an access to access.name */
	ASK_TWO_NAMES,	 /* access.new_name becomes a name of access.name's object */
	ASK_MOUNTING,	 /* a mount is made, moved or taken away at access.name */
	ASK_DEVICE,	 /* the block device with this number is mounted; no name of it is known */
	ASK_LOOK,	 /* tasks[0] looks into tasks[1] */
	ASK_TRACED_EXEC, /* tasks[0] traces a task that starts access.name */
	ASK_SOURCE,	 /* whether access.name may be a program with rights by fromSource */
	ASK_REPORT,	 /* no question: the decision in access is made, and has to be reported */
};

enum outcome {
	OUTCOME_UNRULED, /* the domain has lost its rules */
	OUTCOME_UNNAMED, /* it has no path that counts */
	OUTCOME_NAMED,	 /* access.name has classes */
};

/* The question of a hook's program about scratch->access, which judge() answers. */
struct question {
	__u32 asked; /* enum asked */
	__u32 permissions;
	__u32 old_permissions; /* ASK_TWO_NAMES: those asked for on the existing name */
	__u32 exchanges;       /* ASK_TWO_NAMES: the names change places */
	__u32 mounting;	       /* ASK_MOUNTING: enum mounting */
	__u32 device;	       /* ASK_DEVICE: dev_t */
	__u32 domain;	       /* that of the task that asks; its rules apply */
	__u32 generation;      /* ASK_NAME: generation of the cached facts about access.name */
	__u32 dated;	       /* renames and mounts are the epochs (struct epochs) at which the hook began */
	__u32 renames, mounts;
	__u32 known;		/* ASK_NAME: the classes are known */
	__u32 created;		/* ASK_NAME: the file was made by this open */
	__u32 truncates;	/* ASK_NAME: this open truncates the file, in another hook */
	__u32 undecided;	/* the kernel does not know yet whether the name exists */
	__u32 silent;		/* ASK_LOOK: the decision is not reported */
	__u64 inode;		/* ASK_NAME: address of the object's own inode */
	__u64 tasks[2];		/* addresses */
	struct label labels[2]; /* labels of these tasks */
	/* The answer, besides the verdict. */
	/* ASK_NAME: enum outcome, by the rules of access.generation and access.domain if any. */
	__u32 outcome;
	__u32 allowed;	/* ASK_NAME: allowed for every owner, and nothing is to be reported */
	__u32 subjects; /* ASK_NAME: classes of the task's program, as in struct label */
};

/* A name in access.names that judge_access() has to resolve before it can decide. */
struct find {
	__u64 task;	/* address of the task whose program it is; 0: the name is already set */
	__u32 which;	/* enum which_name */
	__u32 subjects; /* with the subjects automaton, not with that of objects */
};

#define FINDS 4

/* Bytes of a control group's name that are read: more than any runtime writes before a container's id. */
#define GROUP_NAME 128

struct scratch {
	/* A path ends at PATH_CAPACITY; the rest lets the verifier bound every copy. */
	char path[2 * PATH_CAPACITY];
	/* Position of a scan: its state or jump, the last page used, the next byte and the end. */
	__u32 scan_at, scan_page, scan_position, scan_end;
	struct find finds[FINDS];
	__u32 find_count;
	__u32 found; /* find_step(): there is something to resolve */
	__u32 decided[2];
	__u64 directory; /* check_file(): address of the directory's inode */
	__u32 slot;	 /* index of this scratch */
	struct question question;
	__u32 fence; /* written by load_fence() */
	/* find_names(): epochs at its start, the path it is at, and the start of that path's last part. */
	__u32 resolve_renames, resolve_mounts;
	__u32 resolve_subjects; /* it uses the subjects automaton */
	__u32 resolve_at, resolve_is_last, resolve_last;
	__u64 resolve_dentry; /* the object's own, or that in a layer below */
	__u32 resolve_layer;  /* number of layers below the object */
	__u32 resolve_layer_state;
	__u32 resolve_scans;	 /* a part of a path was written and is to be scanned */
	__u32 resolve_canonical; /* number of canonical paths found */
	__u32 resolve_done;
	/* find_shown(): the mount it is at, whether it returns to that mount, and what it searches for. */
	__u64 tree_at, tree_root;
	__u32 tree_returns, tree_done;
	__u64 tree_wanted; /* what it looks for, by enum tree_search */
	__u32 tree_search;
	struct shown shown;
	/* domain_of_container(): a group's name, the id in it, the reading position, the container found. */
	char group_name[GROUP_NAME];
	struct container_id container;
	__u32 container_digits, container_found;
	struct container_id outermost;
	struct access access;
	struct event event;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCH_SLOTS);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} claims SEC(".maps");

/* Always 0, which the verifier cannot know. */
volatile __u32 never;

/* Hides a constant from the verifier, which would otherwise go through the code behind it for each value. */
static __always_inline __u32 unknown(__u32 number)
{
	return number + never;
}

static __always_inline void count(enum counter which)
{
	__u32 key = which;
	__u64 *value = bpf_map_lookup_elem(&counters, &key);

	if (value)
		__sync_fetch_and_add(value, 1);
}

/* Returns the scratch at an index. Only the code that claimed it may use it. */
static __always_inline struct scratch *scratch_at(__u32 slot)
{
	return bpf_map_lookup_elem(&scratches, &slot);
}

/* Claims a scratch. Returns 0 if all are taken. */
static __always_inline struct scratch *claim_scratch(void)
{
	__u32 key = 0, *claimed = bpf_map_lookup_elem(&claims, &key), slot;
	struct scratch *scratch;

	if (!claimed)
		return 0;
#pragma unroll
	for (slot = 0; slot < SCRATCH_SLOTS; slot++) {
		__u32 bit = 1u << slot;

		if (!(__sync_fetch_and_or(claimed, bit) & bit))
			break;
	}
	/* Otherwise the verifier follows each index separately, to the end. */
	slot = unknown(slot);
	scratch = scratch_at(slot);
	if (scratch)
		scratch->slot = slot;
	return scratch;
}

static __always_inline void release_scratch(const struct scratch *scratch)
{
	__u32 key = 0, *claimed = bpf_map_lookup_elem(&claims, &key);

	if (claimed)
		__sync_fetch_and_and(claimed, ~(1u << (scratch->slot & 31)));
}

/*
 * Refuses and counts an access of which no alert can be made: tasks that preempt each other in one place left
 * no scratch, or its object has no name that could be found.
 */
static __always_inline int refuse_unreported(void)
{
	count(COUNT_UNRESOLVED);
	count(COUNT_BLOCKED);
	count(COUNT_DROPPED);
	return -EACCES;
}

#endif
