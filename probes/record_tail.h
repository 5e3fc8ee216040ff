/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The optional end of a wait record, there in one piece or not at all: from the first record on
 * where stacks are asked for, else from when a runtime is looked into. Needs CFG.
 */
#ifndef SLTRACE_RECORD_TAIL_H
#define SLTRACE_RECORD_TAIL_H

#include "wait_record.h"

#define SHORT_RECORD offsetof(struct wait_record, stack_kernel)

static __always_inline bool with_tail(bool tagged)
{
	return CFG(stack_kernel) || CFG(stack_user) || CFG(stack_waker) || tagged;
}

static __always_inline void record_clear(struct wait_record *r, bool tail)
{
	__builtin_memset(r, 0, SHORT_RECORD);
	if (tail)
		__builtin_memset((void *)r + SHORT_RECORD, 0, sizeof(*r) - SHORT_RECORD);
}

#endif
