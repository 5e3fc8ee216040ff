/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Kernel structs for BCC. A raw tracepoint may not follow kernel pointers, so these are copies of
 * the few fields the shared headers name, which each program makes of its arguments. Anything else
 * is read where it is wanted, at the running kernel's offsets: user space defines
 * OFFSET_STRUCT_FIELD, from BTF or else from kernel headers (kernel_offsets.bcc.c).
 */
#ifndef SLTRACE_KERNEL_TYPES_BCC_H
#define SLTRACE_KERNEL_TYPES_BCC_H

struct task_struct {
	const void *kernel;
	int pid;
	int tgid;
	char comm[16];                   /* only where somebody asks for it */
	struct task_struct *real_parent; /* likewise */
};

#include "kernel_cgroup.h"

/* Zero where the kernel has nothing there. */
#define READ(type, base, offset)                                                                   \
	({                                                                                         \
		type read_value = 0;                                                               \
		bpf_probe_read_kernel(&read_value, sizeof(read_value), (base) + (offset));         \
		read_value;                                                                        \
	})
#define READ_FIELD(type, base, field) READ(type, base, OFFSET_##field)
#define FOLLOW(base, field)           READ(const void *, base, OFFSET_##field)

#endif
