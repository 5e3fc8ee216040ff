/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Stacks as 64-bit ids. bpf_get_stackid drops or confuses stacks whose hashes collide, and the
 * contended ones are the first to go; here the id is a hash of the addresses themselves. A
 * direct-mapped table remembers which stacks were handed over: a collision there only sends one
 * again, and user space keeps the first.
 */
#ifndef SLTRACE_NATIVE_STACK_BPF_H
#define SLTRACE_NATIVE_STACK_BPF_H

#include "stack_id.h"
#include "stack_record.h"

#define SEEN_STACKS (1 << 16)

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} stack_ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SEEN_STACKS);
	__type(key, u32);
	__type(value, u64);
} seen_stacks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct stack_record);
} stack_scratch SEC(".maps");

/*
 * One for each CPU is enough, as no user of it interrupts another: sched_switch has interrupts off,
 * sched_waking too but where a task is woken while it runs, and a program is not run within itself
 * (05b24ff9b2cf, 6.1).
 */
static __always_inline struct stack_record *stack_buffer(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&stack_scratch, &zero);
}

/* Hands a stack over unless that was done before; its id, 0 if the ring has no room. */
static __always_inline u64 native_stack_intern(struct stack_record *stack, u32 pid, u32 depth)
{
	u64 hash = 0x9e3779b97f4a7c15ULL ^ pid;
	u32 index, i;
	u64 *seen;

	for (i = 0; i < STACK_DEPTH; i++) {
		if (i >= depth)
			break;
		hash = stack_id_add(hash, stack->addresses[i]);
	}
	hash = stack_id_end(hash);
	index = hash & (SEEN_STACKS - 1);
	seen = bpf_map_lookup_elem(&seen_stacks, &index);
	if (!seen || *seen == hash)
		return hash;
	stack->id = hash;
	stack->pid = pid;
	stack->depth = depth;
	if (bpf_ringbuf_output(&stack_ring, stack, sizeof(*stack), BPF_RB_NO_WAKEUP))
		return 0;
	*seen = hash;
	return hash;
}

#endif
