/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Reads fields of kernel structures. Which way:
 *
 *   the verifier knows the pointer's type (a hook's argument, a trusted field)   pointer->field
 *   it does not: an address that went through memory or a plain number           FIELD, and ADDRESS for a pointer
 *   several pointers in a row, off the hot path                                  BPF_CORE_READ
 *   a pointer whose type the verifier shall forget                               PLAIN
 *   bytes whose length is known at run time alone                                bpf_probe_read_kernel
 */
#ifndef ARMOR_READ_H
#define ARMOR_READ_H

#include "core/constants.h"
#include "core/kernel.h"

/* Since 6.2. It costs nothing, and tells the verifier the type that an address is read as. */
extern void *bpf_rdonly_cast(const void *address, __u32 type) __ksym __weak;

/*
 * Reads a field of a kernel structure at an address that the verifier knows nothing of; 0 if it cannot be
 * read. It is a plain load if the kernel has bpf_rdonly_cast, otherwise a call that takes ten times as long.
 * An address whose type the verifier knows needs neither.
 */
#define FIELD(structure, address, field)                                                                               \
	({                                                                                                             \
		const struct structure *at_ = (const void *)(address);                                                 \
		typeof(((struct structure *)0)->field) value_ = 0;                                                     \
                                                                                                                       \
		if (bpf_ksym_exists(bpf_rdonly_cast))                                                                  \
			value_ = ((struct structure *)bpf_rdonly_cast(at_, bpf_core_type_id_kernel(struct structure))) \
					 ->field;                                                                      \
		else                                                                                                   \
			bpf_core_read(&value_, sizeof(value_), &at_->field);                                           \
		value_;                                                                                                \
	})

/*
 * Makes a pointer a plain number, so that the verifier need not distinguish where it came from. Negating it
 * twice makes the verifier forget its type. ADDRESS() does so with a field that is itself an address.
 */
#define PLAIN(pointer)                                              \
	({                                                          \
		typeof(pointer) number_ = (pointer);                \
                                                                    \
		asm volatile("%0 = -%0\n%0 = -%0" : "+r"(number_)); \
		number_;                                            \
	})
#define ADDRESS(structure, address, field) PLAIN(FIELD(structure, address, field))

/* Characters in memory order, as one number. */
#define FOUR(a, b, c, d) ((__u32)(a) | (b) << 8 | (c) << 16 | (d) << 24)
#define EIGHT(a, b, c, d, e, f, g, h) (FOUR(a, b, c, d) | (__u64)FOUR(e, f, g, h) << 32)

#endif
