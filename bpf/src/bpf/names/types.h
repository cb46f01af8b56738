/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Describes how objects and programs are named: the paths of one, their classes, and the search for them. */
#ifndef ARMOR_NAMES_TYPES_H
#define ARMOR_NAMES_TYPES_H

#include "core/contract.h"

/* Mounts of one filesystem kept for one mount namespace. With more, no path on that filesystem is certain. */
#define SHOWN_MOUNTS 64

/* The mounts by which a mount namespace shows a filesystem. */
struct shown {
	__u32 count; /* SHOWN_MOUNTS + 1: there are more than fit */
	__u32 reserved;
	__u64 of[SHOWN_MOUNTS]; /* addresses of struct mount */
};

/* The canonical paths that all objects in a directory have besides their mount path. */
enum other_names {
	OTHERS_NONE, /* none: the mount path is canonical, or the domain's own mount tree is not known */
	OTHERS_ONE,
	OTHERS_FOREIGN, /* none: the domain's own mount tree does not show the object */
	OTHERS_MANY,	/* several, or not the same for all objects in the directory */
};

/* The states of the automaton behind the path of a directory, from which the names in it are scanned. */
struct directory {
	__u32 renames, mounts, removals; /* epochs at which the states were found */
	__u32 others;			 /* enum other_names */
	__u32 mount_state;
	__u32 canonical_state; /* OTHERS_ONE: state of the canonical path */
	__u32 known;	       /* it comes from the cache */
};

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
	__u32 has_unknown_layer; /* it is in a layer that could not be found */
	__u64 shown_by;		 /* mount of one of its canonical paths; 0: it has none */
	__u32 place;		 /* enum place, or the mount namespace that the mount is in */
	__u32 first_canonical;	 /* class of a canonical path; NO_CLASS: there is none */
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
/* Returned by scan_path() if there is no path, or the image does not hold the automaton. */
#define NO_STATE (~0u)

/* A name that judge_access() has to resolve before it can decide. */
struct find {
	__u64 task;	/* address of the task whose program it is; 0: the name is already set */
	__u32 which;	/* enum which_name */
	__u32 subjects; /* with the subjects automaton, not with that of objects */
};

#define FINDS 4

/* A scan of the path in scratch. */
struct scan_position {
	__u32 at;	/* state or jump */
	__u32 page;	/* last page used */
	__u32 position; /* next byte */
	__u32 end;
};

/* The paths of one name, while they are resolved. */
struct resolve_state {
	__u32 renames, mounts; /* epochs at its start */
	__u32 subjects;	       /* it uses the subjects automaton */
	/* The path it is at, and the start of that path's last part. */
	__u32 at, is_last, last;
	__u64 dentry; /* the object's own, or that in a layer below */
	__u32 layer;  /* number of layers below the object */
	__u32 layer_state;
	__u32 scans;	 /* a part of a path was written and is to be scanned */
	__u32 canonical; /* number of canonical paths found */
	__u32 done;
};

/* A walk over a mount tree. */
struct tree_walk {
	__u64 at, root;	     /* the mount it is at, and the first one */
	__u32 returns, done; /* whether it returns to the mount it is at */
	__u64 wanted;	     /* what it looks for, by enum tree_search */
	__u32 search;
	struct shown shown;
};

#endif
