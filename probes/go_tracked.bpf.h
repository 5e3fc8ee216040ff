/* SPDX-License-Identifier: GPL-2.0 */
/* Goroutines on their way from being parked to running, from level 2 on. */
#ifndef SLTRACE_GO_TRACKED_BPF_H
#define SLTRACE_GO_TRACKED_BPF_H

#define MAX_TRACKED 65536

struct tracked_key {
	u64 g;
	u64 target;
};

struct tracked {
	u64 blocked_at;
	u64 ready_at;
	u64 waker_goid;
	u64 waker_stack;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_TRACKED);
	__type(key, struct tracked_key);
	__type(value, struct tracked);
} go_tracked SEC(".maps");

/* What level 2 has seen of a goroutine that got a P. */
static __always_inline void take_tracked(const struct go_target *t, struct go_record *r, u64 g)
{
	struct tracked_key key = {.g = g, .target = t->number};
	struct tracked *seen = bpf_map_lookup_elem(&go_tracked, &key);
	u64 since = on_since(t);

	if (!seen)
		return;
	if (seen->ready_at && seen->ready_at < since) {
		count(GO_UNSTAMPED);
	} else if (seen->ready_at && since) {
		if (seen->blocked_at && seen->blocked_at < since)
			count(GO_UNSTAMPED);
		else if (seen->blocked_at && seen->ready_at > seen->blocked_at)
			r->blocked_ns = seen->ready_at - seen->blocked_at;
		r->waker_goid = seen->waker_goid;
		r->waker_stack = seen->waker_stack;
	}
	bpf_map_delete_elem(&go_tracked, &key);
}

/*
 * A goroutine that was parked can go on: since now, and because of whom. `entered`: whether
 * runtime.casgstatus has its frame.
 */
static __always_inline void take_ready(const struct go_target *t, u64 g, u32 pid,
				       struct tracked *seen, const struct pt_regs *ctx,
				       const bool entered)
{
	struct go_scratch *s;
	u64 waker;

	seen->ready_at = bpf_ktime_get_ns();
	/* On the scheduler's own stack mostly; no goroutine when a timer or the network woke it. */
	waker = word_at(word_at(ctx->r14 + G_M) + t->m_curg);
	if (!waker || waker == g)
		return;
	s = scratch_take();
	if (!s)
		return;
	if (bpf_probe_read_user(&s->goroutine, sizeof(s->goroutine), (void *)waker)) {
		count(GO_UNREADABLE);
	} else {
		seen->waker_goid = field_of(&s->goroutine, t->g_goid);
		/* On its own stack nothing is saved of where it is: it is what called. */
		if (waker == ctx->r14) {
			field_set(&s->goroutine, G_SCHED_PC,
				  word_at(entered ? ctx->bp + sizeof(u64) : ctx->sp));
			field_set(&s->goroutine, t->g_sched_bp,
				  entered ? word_at(ctx->bp) : ctx->bp);
		}
		seen->waker_stack = stack_of(t, s, pid);
	}
	scratch_release(s);
}

#endif
