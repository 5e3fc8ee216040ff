/* SPDX-License-Identifier: GPL-2.0 */
/* A native stack, kernel's or user's, as every object hands it over. */
#ifndef SLTRACE_STACK_RECORD_H
#define SLTRACE_STACK_RECORD_H

#define STACK_DEPTH 127

struct stack_record {
	u64 id;  /* hash of the addresses and the pid; never 0 */
	u32 pid; /* 0 for a kernel stack */
	u32 depth;
	u64 addresses[STACK_DEPTH];
};

#endif
