/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Describes an access, and the question about it that a hook asks judge_access(). */
#ifndef ARMOR_QUESTION_H
#define ARMOR_QUESTION_H

#include "names/types.h"

/* Bytes of the text that stands for an object without a path, with the final 0. */
#define OBJECT_NAME 32

/* Index of a name in struct access. */
enum which_name { NAME, NEW_NAME, PROGRAM, OTHER_PROGRAM, NAMES };

/* An access, as an alert reports it. */
struct access {
	__u64 task;		  /* address of the task that accesses */
	__u64 other;		  /* address of the task that the access is about instead of a name; 0: none */
	char object[OBJECT_NAME]; /* text for an object that has no path; empty: none */
	__u32 kind;		  /* enum event_kind */
	union event_tail tail;	  /* what the event says of its object, if that has no path */
	__u64 arguments;	  /* address in the task's memory of a started program's arguments */
	__u32 arguments_length;	  /* 0: the event does not say them */
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

/* How far the arguments of a start are read. */
struct argument_reading {
	__u64 at;    /* address of the next string */
	__u64 first; /* address of the one behind the program's name; 0: not known yet */
	__u32 index; /* number of the next string */
	__u32 count; /* number of all of them */
	__u32 is_long;
	__u32 unread; /* what is left cannot be read */
	__u32 class;
	__u32 decision;
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
	ASK_ARGUMENTS,	 /* which lists decide on the arguments of access.name, noted in pending_lists */
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
	__u32 arguments;	/* ASK_ARGUMENTS: their number */
	__u64 inode;		/* ASK_NAME: address of the object's own inode */
	__u64 tasks[2];		/* addresses */
	struct label labels[2]; /* labels of these tasks */
	/* The answer, besides the verdict. */
	/* ASK_NAME: enum outcome, by the rules of access.generation and access.domain if any. */
	__u32 outcome;
	__u32 allowed;	/* ASK_NAME: allowed for every owner, and nothing is to be reported */
	__u32 subjects; /* ASK_NAME: classes of the task's program, as in struct label */
};

#endif
