/* SPDX-License-Identifier: GPL-2.0 */
/* The native stacks of waiting tasks and their wakers, at most so many. */
#ifndef SLTRACE_STACKS_BPF_H
#define SLTRACE_STACKS_BPF_H

#include "allowance.h"
#include "native_stack.bpf.h"

static __always_inline bool stack_allowed(struct cpu_state *c, enum stack_kind kind, u64 now)
{
	if (allowance_take(&c->stacks_paid_ns[kind], CFG(stack_ns), now))
		return true;
	count(c, STACKS_CAPPED);
	return false;
}

/* Id of the stack in the scratch buffer; 0 if there is none, or no room for it. */
static __always_inline u64 stack_intern(struct cpu_state *c, struct stack_record *stack, u32 pid,
					s64 bytes)
{
	u64 id;

	if (bytes <= 0) {
		/* Kernel threads have no user stack; that is no failure. */
		if (bytes < 0 && !pid)
			count(c, STACKS_FAILED);
		return 0;
	}
	id = native_stack_intern(stack, pid, bytes / sizeof(u64));
	if (!id)
		count(c, STACK_RING_FULL);
	return id;
}

/* The kernel stack of a task about to get the CPU: unchanged since it left it. */
static __always_inline u64 stack_kernel_of(struct task_struct *t, struct cpu_state *c, u64 now)
{
	struct stack_record *stack;

	if (!CFG(stack_kernel) || !stack_allowed(c, OWN_KERNEL, now))
		return 0;
	stack = stack_buffer();
	if (!stack)
		return 0;
	return stack_intern(c, stack, 0,
			    bpf_get_task_stack(t, stack->addresses, sizeof(stack->addresses), 0));
}

static __always_inline u64 stack_of_current(void *ctx, struct cpu_state *c, enum stack_kind kind,
					    u64 now, u32 pid, u64 flags)
{
	struct stack_record *stack;

	if (!stack_allowed(c, kind, now))
		return 0;
	stack = stack_buffer();
	if (!stack)
		return 0;
	return stack_intern(c, stack, pid,
			    bpf_get_stack(ctx, stack->addresses, sizeof(stack->addresses), flags));
}

static __always_inline u64 stack_user_of_current(void *ctx, struct cpu_state *c,
						 enum stack_kind kind, u64 now)
{
	return stack_of_current(ctx, c, kind, now, bpf_get_current_pid_tgid() >> 32,
				BPF_F_USER_STACK);
}

/* The frames of the tracing itself are innermost; user space cuts them off by name. */
static __always_inline u64 stack_kernel_of_current(void *ctx, struct cpu_state *c,
						   enum stack_kind kind, u64 now)
{
	return stack_of_current(ctx, c, kind, now, 0, 0);
}

#endif
