/* SPDX-License-Identifier: GPL-2.0 */
/* Stacks of goroutines: each handed over once, and known by its id from then on. */
#ifndef SLTRACE_GO_STACK_BPF_H
#define SLTRACE_GO_STACK_BPF_H

#include "stack_id.h"

#define G_SCHED_PC  64
#define SEEN_STACKS (1 << 15)

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} go_stack_ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SEEN_STACKS);
	__type(key, u32);
	__type(value, u64);
} go_seen_stacks SEC(".maps");

/* Hands the stack in the scratch buffer over unless that was done before; returns its id. */
static __always_inline u64 stack_intern(struct go_stack *stack, u32 pid, u32 depth)
{
	u64 hash = 0x2545f4914f6cdd1dULL ^ pid, *seen;
	u32 i, index;

	for (i = 0; i < GO_STACK_DEPTH; i++) {
		if (i >= depth)
			break;
		hash = stack_id_add(hash, stack->addresses[i]);
	}
	hash = stack_id_end(hash);
	index = hash & (SEEN_STACKS - 1);
	seen = bpf_map_lookup_elem(&go_seen_stacks, &index);
	if (!seen || *seen == hash)
		return hash;
	stack->id = hash;
	stack->pid = pid;
	stack->depth = depth;
	if (bpf_ringbuf_output(&go_stack_ring, stack, sizeof(*stack), BPF_RB_NO_WAKEUP)) {
		count(GO_STACK_RING_FULL);
		return 0;
	}
	*seen = hash;
	return hash;
}

/*
 * The stack of a goroutine that is off its thread, by frame pointers. One that has not run yet
 * has none, and its address is that of its function, where others are behind a call.
 */
static __noinline u64 stack_of(struct go_stack *stack, u64 g, u32 pid, u32 sched_bp)
{
	u64 frame = word_at(g + sched_bp), next[2];
	u32 depth = 1, i;

	stack->addresses[0] = word_at(g + G_SCHED_PC) + !frame;
	for (i = 1; i < GO_STACK_DEPTH; i++) {
		if (!frame || bpf_probe_read_user(next, sizeof(next), (void *)frame) || !next[1])
			break;
		stack->addresses[i] = next[1];
		depth = i + 1;
		/* Stacks grow down: anything else is no frame. */
		if (next[0] <= frame)
			break;
		frame = next[0];
	}
	return stack_intern(stack, pid, depth);
}

#endif
