/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Defines how the program for system calls reads the paths that calls name. */
#ifndef ARMOR_SYSCALL_TYPES_H
#define ARMOR_SYSCALL_TYPES_H

#include <linux/types.h>

/* A path in scratch->path, from `start` on, while it becomes normal from its end to its beginning. */
struct path_fold {
	__u32 start;
	__u32 at;	 /* one behind the next byte */
	__u32 to;	 /* where what is kept begins */
	__u32 component; /* where the last whole component that is kept begins */
	__u32 climbs;	 /* number of components that a `..` takes away */
};

#endif
