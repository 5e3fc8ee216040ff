/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Stacks as 64-bit ids. bpf_get_stackid drops or confuses stacks whose hashes collide, and the
 * contended ones are the first to go; here the id is a hash of the addresses themselves. A
 * direct-mapped table remembers which stacks were handed over: a collision there only sends one
 * again, and user space keeps the first.
 */
#ifndef SLTRACE_STACKS_BPF_H
#define SLTRACE_STACKS_BPF_H

#include "stack_id.h"

#define SEEN_STACKS     (1 << 16)
#define STACK_WINDOW_NS 10000000ULL

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

static __always_inline bool stack_allowed(struct cpu_state *c, u64 now)
{
	if (!CFG(stack_rate))
		return true;
	if (now - c->stack_window_ns >= STACK_WINDOW_NS) {
		c->stack_window_ns = now;
		c->stacks_taken = 0;
	}
	if (c->stacks_taken >= CFG(stack_rate)) {
		count(c, STACKS_CAPPED);
		return false;
	}
	c->stacks_taken++;
	return true;
}

static __always_inline struct stack_record *stack_buffer(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&stack_scratch, &zero);
}

/* Hands the stack in the scratch buffer over unless that was done before; returns its id. */
static __always_inline u64 stack_intern(struct cpu_state *c, struct stack_record *stack, u32 pid,
					s64 bytes)
{
	u64 hash = 0x9e3779b97f4a7c15ULL ^ pid;
	u32 depth, index, i;
	u64 *seen;

	if (bytes <= 0) {
		/* Kernel threads have no user stack; that is no failure. */
		if (bytes < 0 && !pid)
			count(c, STACKS_FAILED);
		return 0;
	}
	depth = bytes / sizeof(u64);
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
	if (bpf_ringbuf_output(&stack_ring, stack, sizeof(*stack), BPF_RB_NO_WAKEUP)) {
		count(c, STACK_RING_FULL);
		return 0;
	}
	*seen = hash;
	return hash;
}

/* The kernel stack of a task about to get the CPU: unchanged since it left it. */
static __always_inline u64 stack_kernel_of(struct task_struct *t, struct cpu_state *c, u64 now)
{
	struct stack_record *stack;

	if (!CFG(stack_kernel) || !stack_allowed(c, now))
		return 0;
	stack = stack_buffer();
	if (!stack)
		return 0;
	return stack_intern(c, stack, 0,
			    bpf_get_task_stack(t, stack->addresses, sizeof(stack->addresses), 0));
}

static __always_inline u64 stack_of_current(void *ctx, struct cpu_state *c, u64 now, u32 pid,
					    u64 flags)
{
	struct stack_record *stack;

	if (!stack_allowed(c, now))
		return 0;
	stack = stack_buffer();
	if (!stack)
		return 0;
	return stack_intern(c, stack, pid,
			    bpf_get_stack(ctx, stack->addresses, sizeof(stack->addresses), flags));
}

static __always_inline u64 stack_user_of_current(void *ctx, struct cpu_state *c, u64 now)
{
	return stack_of_current(ctx, c, now, bpf_get_current_pid_tgid() >> 32, BPF_F_USER_STACK);
}

/* The frames of the tracing itself are innermost; user space cuts them off by name. */
static __always_inline u64 stack_kernel_of_current(void *ctx, struct cpu_state *c, u64 now)
{
	return stack_of_current(ctx, c, now, 0, 0);
}

#endif
