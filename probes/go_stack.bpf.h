/* SPDX-License-Identifier: GPL-2.0 */
/* Stacks of goroutines: each handed over once, and known by its id from then on. */
#ifndef SLTRACE_GO_STACK_BPF_H
#define SLTRACE_GO_STACK_BPF_H

#include "stack_id.h"

#define G_STACK_HI  8
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
static __always_inline u64 stack_intern(const struct go_target *t, struct go_stack *stack, u32 pid,
					u32 depth)
{
	u64 hash = 0x2545f4914f6cdd1dULL ^ pid ^ (u64)t->program << 32, *seen;
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
	stack->target = t->number;
	stack->program = t->program;
	if (bpf_ringbuf_output(&go_stack_ring, stack, sizeof(*stack), BPF_RB_NO_WAKEUP)) {
		count(GO_STACK_RING_FULL);
		return 0;
	}
	*seen = hash;
	return hash;
}

/* On the way from frame to frame. Frames lie close together: one read has several. */
struct go_walk {
	struct go_scratch *s;
	u64 top; /* of the stack: a call from C has the caller's frames beyond */
	u64 frame;
	u64 base; /* where the words were read, and how many of them could be */
	u64 known;
	u64 depth;
};

static long walk_frame(u64 i, struct go_walk *w)
{
	struct go_scratch *s = w->s;
	u64 at = (w->frame - w->base) / sizeof(u64), next, back;

	if (!w->frame || w->frame & 7 || w->frame >= w->top)
		return 1;
	if (at + 2 > w->known) {
		w->base = w->frame;
		w->known = STACK_WORDS;
		at = 0;
		/* What is behind the stack's end need not be there. */
		if (bpf_probe_read_user(s->words, sizeof(s->words), (void *)w->frame)) {
			w->known = 2;
			if (bpf_probe_read_user(s->words, 2 * sizeof(u64), (void *)w->frame))
				return 1;
		}
	}
	next = s->words[at & (STACK_WORDS - 1)];
	back = s->words[(at + 1) & (STACK_WORDS - 1)];
	if (!back)
		return 1;
	s->stack.addresses[(i + 1) & (GO_STACK_DEPTH - 1)] = back;
	w->depth = i + 2;
	/* Stacks grow down: anything else is no frame. */
	if (next <= w->frame)
		return 1;
	w->frame = next;
	return 0;
}

/*
 * The stack of the goroutine in the scratch buffer, which is off its thread, by frame pointers,
 * from where it goes on. One that has not run yet has none, and its address is that of its
 * function, where others are behind a call.
 */
static __noinline u64 stack_of(const struct go_target *t, struct go_scratch *s, u32 pid)
{
	u64 pc = field_of(&s->goroutine, G_SCHED_PC),
	    frame = field_of(&s->goroutine, t->g_sched_bp);
	u64 top = field_of(&s->goroutine, G_STACK_HI);
	struct go_walk walk = {.s = s, .top = top, .frame = frame, .depth = 1};

	s->stack.addresses[0] = pc + !frame;
	bpf_loop(GO_STACK_DEPTH - 1, walk_frame, &walk, 0);
	return stack_intern(t, &s->stack, pid, walk.depth);
}

#endif
