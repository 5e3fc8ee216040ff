/* SPDX-License-Identifier: GPL-2.0 */
/* The id of a stack: a hash of its addresses, begun with a seed by kind of stack and the pid. */
#ifndef SLTRACE_STACK_ID_H
#define SLTRACE_STACK_ID_H

static __always_inline u64 stack_id_add(u64 hash, u64 address)
{
	hash = (hash ^ address) * 0xff51afd7ed558ccdULL;
	return hash ^ hash >> 32;
}

/* 63 bits, so that it fits the signed column; 0 means no stack. */
static __always_inline u64 stack_id_end(u64 hash)
{
	return hash >> 1 ? hash >> 1 : 1;
}

#endif
