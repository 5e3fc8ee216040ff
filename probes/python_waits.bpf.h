/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Waits that only the runtime knows of: for the GIL, for an iteration of an event loop, for the
 * garbage collector. A thread waits for the GIL when it sleeps in futex(2) on an address within
 * the GIL's structure; it looks again every 5 ms, so a wait is several sleeps.
 */
#ifndef SLTRACE_PYTHON_WAITS_BPF_H
#define SLTRACE_PYTHON_WAITS_BPF_H

/* A thread that has run this long since it was woken is not asking for the GIL any more. */
#define GIL_TAKEN_NS 100000ULL

/* A busy period that is longer is told in pieces. */
#define BUSY_MAX_NS 1000000000ULL

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct python_thread);
} python_blank SEC(".maps");

/* A server in C that waits for requests outside of all Python is no event loop of its. */
static __always_inline bool in_python(struct python_process *p, struct python_thread *th)
{
	return th->state && innermost_frame(p, th->state);
}

/* Of the current task. */
static __always_inline struct python_wait *wait_reserve(u8 kind, u64 start, u64 end)
{
	struct task_struct *t = bpf_get_current_task_btf();
	struct python_wait *w = bpf_ringbuf_reserve(&python_wait_ring, sizeof(*w), 0);
	struct python_cpu *c = this_cpu();

	if (!w) {
		if (c)
			count(c, PYTHON_WAITS_LOST);
		return NULL;
	}
	__builtin_memset(w, 0, sizeof(*w));
	w->end_ns = end;
	w->wait_ns = end - start;
	w->kind = kind;
	w->tid = t->pid;
	w->pid = t->tgid;
	w->cpu = bpf_get_smp_processor_id();
	w->cgroup = task_cgroup(t);
	return w;
}

/* Tells the wait for the GIL that ended when the thread last got a CPU. */
__noinline int gil_end(struct python_process *p, struct python_thread *th)
{
	struct python_wait *w;
	u64 best = 0, owner = 0;
	u32 i, holders = 0;

	if (!th || !th->gil_start_ns)
		return 0;
	if (th->gil_in_ns <= th->gil_start_ns)
		goto out;
	w = wait_reserve(PYTHON_GIL, th->gil_start_ns, th->gil_in_ns);
	if (!w)
		goto out;
	w->runq_ns = th->gil_runq_ns;
	w->tag = th->gil_tag;
	for (i = 0; i < HOLDERS; i++) {
		struct holder *h = &th->holders[i];

		if (!h->owner)
			continue;
		holders++;
		if (owner && h->ns <= best)
			continue;
		best = h->ns;
		owner = h->owner;
		w->culprit_tid = h->tid;
		w->culprit_stack = h->stack;
	}
	if (owner) {
		if (!w->culprit_tid)
			w->culprit_tid = thread_that_is(p, owner);
		w->culprit_ns = best;
		w->culprit_others = holders - 1 < MAX_OTHERS ? holders - 1 : MAX_OTHERS;
	}
	bpf_ringbuf_submit(w, BPF_RB_NO_WAKEUP);
out:
	th->gil_start_ns = 0;
	th->out_gil = 0;
	return 0;
}

/* Where a holder of the GIL is noted, or can be: the one seen to hold it least makes room. */
__noinline u32 holder_at(struct python_thread *th, u64 owner)
{
	u32 i, at = HOLDERS;
	u64 least = ~0ULL;

	if (!th)
		return HOLDERS;
	for (i = 0; i < HOLDERS; i++) {
		if (th->holders[i].owner == owner)
			return i;
		if (th->holders[i].ns < least) {
			least = th->holders[i].ns;
			at = i;
		}
	}
	return at;
}

/* Notes who holds the GIL now; the thread state of somebody not noted before, else 0. */
__noinline u64 gil_look(struct python_process *p, struct python_thread *th, u64 state)
{
	u64 gil[2] = {}, owner;
	struct holder *h;
	u32 at;

	if (!p || !th)
		return 0;
	th->holder = HOLDERS;
	if (bpf_probe_read_user(gil, sizeof(gil), (void *)(th->gil + GIL_HOLDER)))
		return 0;
	if ((u32)gil[1] != 1 || !gil[0] || gil[0] == state)
		return 0;
	owner = owner_of(p, gil[0]);
	at = owner ? holder_at(th, owner) : HOLDERS;
	if (at >= HOLDERS)
		return 0;
	th->holder = at;
	h = &th->holders[at];
	if (h->owner == owner)
		return 0;
	h->owner = owner;
	h->ns = 0;
	h->stack = 0;
	/* Now: it may have ended when the wait has. */
	h->tid = thread_that_is(p, owner);
	return gil[0];
}

/* What the holder is doing; its memory is that of who waits, so it can be looked at. */
__noinline int holder_stack(struct python_process *p, struct python_thread *th, u64 state)
{
	struct python_cpu *c = this_cpu();
	struct walked walked = {};
	struct holder *h;

	if (!p || !th || !c || !stack_allowed(c, bpf_ktime_get_ns()))
		return 0;
	h = &th->holders[th->holder & (HOLDERS - 1)];
	h->stack = python_stack_of(p, innermost_frame(p, state), &walked);
	return 0;
}

/* Follows a thread's wait for the GIL through its switch-outs. */
__noinline int gil_out(struct python_process *p, struct python_thread *th, struct task_tag *tag,
		       u64 state)
{
	u64 gil, now, place;
	bool had;

	if (!p || !th || !tag)
		return 0;
	now = th->now_ns;
	place = tag->reason == REASON_GIL ? th->call_argument - th->gil : 0;
	if (!place && !th->gil_start_ns)
		return 0;
	gil = read_u64(th->gil + GIL_HOLDER);
	/* The state of a thread that ends is in no list any more when it lets go of the GIL. */
	had = gil == state || (th->owner && th->owner == owner_of(p, gil));
	/* A thread that waits only wakes to look: one that ran has had the GIL. */
	if (th->gil_start_ns && (had || now - th->gil_in_ns > GIL_TAKEN_NS))
		gil_end(p, th);
	/*
	 * drop_gil() uses the same locks: while nobody has had the GIL since this thread, or where
	 * it waits until someone else has taken it.
	 */
	if (place && (had || place < GIL_COND || (place >= GIL_SWITCH && !th->gil_start_ns)))
		return 0;
	if (place >= GIL_SWITCH && place < GIL_SWITCH_MUTEX)
		return gil_end(p, th);
	if (!place) {
		/* Preempted on its way to the GIL, or blocked elsewhere because it has had it. */
		if (!th->gil_start_ns || !th->preempted)
			return gil_end(p, th);
	} else if (!th->gil_start_ns) {
		__builtin_memset(th->holders, 0, sizeof(th->holders));
		th->gil_runq_ns = 0;
		th->gil_in_ns = now;
		th->gil_start_ns = now;
		th->gil_tag = *tag;
	}
	th->out_gil = 1;
	state = gil_look(p, th, state);
	if (state)
		holder_stack(p, th, state);
	return 0;
}

static __always_inline void loop_begin(struct python_thread *th, u64 now)
{
	th->loop_start_ns = now;
	th->loop_runq_ns = 0;
	th->loop_gil_ns = 0;
	__builtin_memset(&th->loop_tag, 0, sizeof(th->loop_tag));
}

__noinline int loop_end(struct python_thread *th, u64 now)
{
	struct python_wait *w;

	if (!th || !th->loop_start_ns)
		return 0;
	w = wait_reserve(PYTHON_LOOP, th->loop_start_ns, now);
	if (w) {
		w->runq_ns = th->loop_runq_ns;
		w->gil_ns = th->loop_gil_ns;
		w->tag = th->loop_tag;
		w->exact = CFG(loops);
		bpf_ringbuf_submit(w, BPF_RB_NO_WAKEUP);
	}
	th->loop_start_ns = 0;
	return 0;
}

/*
 * Whether a thread sleeps outside of the function that called epoll's, so that its loop is over:
 * those of a pool ask epoll of one connection and go back to wait for work. Where it is switched
 * out for other reasons, it may be on its way from one iteration to the next.
 */
static __always_inline bool has_left_loop(struct python_thread *th, u8 reason)
{
	bool calls = reason != REASON_NONE && reason != REASON_GIL && reason != REASON_FAULT &&
		     reason != REASON_MEMORY;

	return calls && th->depth && th->depth + 1 < th->poll_depth;
}

/* Without system calls an iteration begins and ends where the loop sleeps: an upper bound. */
static __always_inline void loop_out(struct python_thread *th, struct task_tag *tag, u64 now,
				     bool polls)
{
	th->out_poll = polls;
	if (!polls) {
		if (has_left_loop(th, tag->reason)) {
			th->loop_start_ns = 0;
			return;
		}
		if (th->loop_start_ns && tag->stack_runtime)
			th->loop_tag = *tag;
		/* A loop that always has something to do never sleeps. */
		if (!CFG(loops) && th->loop_start_ns && now - th->loop_start_ns > BUSY_MAX_NS) {
			loop_end(th, now);
			loop_begin(th, now);
		}
		return;
	}
	th->poll_depth = th->depth;
	if (!CFG(loops))
		loop_end(th, now);
}

/* Since its switch-out, in ns: on the queue that it is taken from now, and on those before. */
static __always_inline u64 queued_ns(struct task_struct *t, struct python_thread *th, u64 off)
{
	u64 last = kernel_wait_ns(t), queued;

	if (last >= UNKNOWN_WAIT)
		return 0;
	queued = last + task_run_delay_ns(t) - th->out_delay_ns;
	return queued < off ? queued : off;
}

static __noinline int switched_in(struct task_struct *t)
{
	u32 tid = t->pid;
	struct python_thread *th = bpf_map_lookup_elem(&python_threads, &tid);
	u64 now, off, queued;

	if (!th || !th->out_ns)
		return 0;
	now = bpf_ktime_get_ns();
	if (th->gil_start_ns || th->loop_start_ns || th->gc_start_ns) {
		off = now - th->out_ns;
		queued = queued_ns(t, th, off);
		if (th->out_gil && th->gil_start_ns) {
			th->gil_in_ns = now;
			th->gil_runq_ns += queued;
			th->loop_gil_ns += off - queued;
			th->gc_gil_ns += off - queued;
			if (th->holder < HOLDERS)
				th->holders[th->holder].ns += off - queued;
		}
		th->loop_runq_ns += queued;
		th->gc_runq_ns += queued;
	}
	th->out_gil = 0;
	th->out_ns = 0;
	if (th->out_poll && !CFG(loops))
		loop_begin(th, now);
	return 0;
}

static __always_inline void tell_gc(struct python_thread *th, struct task_tag *tag, u64 now)
{
	struct python_wait *w = wait_reserve(PYTHON_STW, th->gc_start_ns, now);

	if (!w)
		return;
	w->runq_ns = th->gc_runq_ns;
	w->gil_ns = th->gc_gil_ns;
	w->tag = *tag;
	bpf_ringbuf_submit(w, BPF_RB_NO_WAKEUP);
}

#endif
