/* SPDX-License-Identifier: GPL-2.0 */
/*
 * From scheduler events to waits: what a record means, written once. It is included by
 * sched.bpf.c (CO-RE), sched.bcc.c (BCC) and the host test, each of which includes wait_state.h
 * and then supplies:
 *
 *  - struct task_struct: only ever handled by pointer
 *  - CFG(field): a setting of struct config
 *  - SUBPROGRAM: how to declare a function that is not inlined
 *  - LONG_LOOP: stands before a loop that must not be unrolled
 *  - now_ns(): CLOCK_MONOTONIC
 *  - task_tid(t), task_pid(t), task_policy(t), task_prio(t), task_static_prio(t), task_cgroup(t)
 *  - task_comm_half(t, i): eight bytes of its name, which another CPU may be changing
 *  - task_exec_ns(t): CPU time used so far (se.sum_exec_runtime)
 *  - task_cpu(t): the CPU whose queue it is on
 *  - switches_of_queue(t): switches of its CPU so far, this one included (rq.nr_switches)
 *  - kernel_wait_ns(t): how long the scheduler says it has been on its present queue, or
 *    UNKNOWN_WAIT
 *  - task_run_delay_ns(t): how long it says it was on queues before, in total; 0: unknown
 *  - queue_clock(t): the clock of its CPU's queue, read when this switch began; 0: unknown
 *  - runs_now(t): whether it is on a CPU
 *  - moves_queued(t): whether a task that migrates is on a queue, not just woken
 *  - quota_group(t): whose CPU quota it runs on, as a number; 0 for none: it is real-time,
 *    or of sched_ext (not known while it is moved)
 *  - throttle_clock(t): how long its queue's CPU quota has been used up, in total
 *  - throttle_clock_at(t, cpu): the same for its cgroup's queue on another CPU
 *  - state_find(tid), state_claim(tid), state_release(tid): struct task_state of a live task
 *  - cpu_find(cpu): struct cpu_state
 *  - slot_at(index), owner_at(index): a histogram slot, and whose it is
 *  - counted_since(): what ended before is in no histogram
 *  - record_reserve(cpu, tail), record_submit(r, cpu): NULL where the ring is full
 *  - task_matches(t): passes the pid, cgroup and comm filters
 *  - cpu_matches(cpu): passes the CPU filter
 *  - tags_on(): whether a runtime is looked into by now
 *  - tag_take(t, r): what its probes noted of a task, into the record
 *  - stack_kernel_of(t, c, now): id of a task's kernel stack, 0 for none
 *  - stack_user_of_current(ctx, c, kind, now), stack_kernel_of_current(ctx, c, kind, now)
 *
 * Stamps are compared, never cleared: an event counts only if it is later than the event it must
 * follow. A waker on another CPU writes its stamp while this CPU switches the task out, and
 * clearing would lose one of the two (1.4 % of wakes land before the switch-out, measured).
 */
#ifndef SLTRACE_WAIT_MACHINE_H
#define SLTRACE_WAIT_MACHINE_H

#include "wait_state.h"
#include "wait_task.h"
#include "wait_missed.h"
#include "wait_begin.h"
#include "record_tail.h"
#include "culprit.h"
#include "histogram.h"

/* ---- wakeups ---------------------------------------------------------------------------- */

static __always_inline void on_waking(void *ctx, struct cpu_state *c, struct task_state *s,
				      u32 waker_tid, u32 waker_pid, u8 context)
{
	u64 now = now_ns();

	s->waking_ns = now;
	s->waker_tid = waker_tid;
	s->waker_pid = waker_pid;
	s->waker_context = context;
	if (CFG(stack_waker)) {
		s->waker_stack_kernel = stack_kernel_of_current(ctx, c, WAKER_KERNEL, now);
		s->waker_stack_user =
		    context == WAKER_TASK ? stack_user_of_current(ctx, c, WAKER_USER, now) : 0;
	}
}

/*
 * Whether it is on its queue since before now, as the scheduler says. Where that says nothing, a
 * task that has not been seen yet is taken to have been woken: nearly every one of them sleeps.
 */
static __always_inline bool stamped_before(const struct task_state *s, struct task_struct *t)
{
	u64 ns = kernel_wait_ns(t);

	return ns == UNKNOWN_WAIT ? latest(s->in_ns, s->out_ns) : ns;
}

static __always_inline void on_wakeup(struct task_struct *t)
{
	struct task_state *s = state_if_selected(t);
	u64 now;

	/* A task that is woken while it runs had not gone to sleep yet: it stays where it is. */
	if (!s || runs_now(t))
		return;
	/*
	 * Preempted between setting its state and scheduling: it never left the queue. If it ran
	 * since, unseen, only the scheduler's own stamp tells: a real wakeup has just set it.
	 */
	if (s->exec_ns != task_exec_ns(t) ? stamped_before(s, t) : stays_queued(s))
		return;
	/*
	 * Woken twice since it left the CPU, so it ran in between, unseen: the first wake is where
	 * the gap began.
	 */
	if (s->out_ns >= s->in_ns && s->wakeup_ns > s->out_ns) {
		s->in_ns = s->wakeup_ns;
		s->exec_ns = s->woken_exec_ns;
	}
	now = now_ns();
	s->wakeup_ns = now;
	s->woken_exec_ns = task_exec_ns(t);
	start_queueing(s, t, now);
}

/*
 * While the quota was used up nobody on the CPU was to blame: look only after that. Most waits that
 * it holds begin with it: who was running when it was used up, or was woken later.
 */
static __always_inline void blame_unless_held(struct task_state *s, struct cpu_state *here,
					      u32 here_cpu, u32 cpu, u64 held, u64 now)
{
	u64 from = s->queued_ns + held;

	if (from < now)
		blame(s, here, here_cpu, cpu, from, now);
}

static __always_inline void on_migrate(struct task_struct *t, u32 cpu, u32 to_cpu)
{
	struct task_state *s = state_find(task_tid(t));
	struct cpu_state *here = cpu_find(cpu);
	u64 now, held;

	if (!s)
		return;
	if (!waits_preempted(s) && !waits_woken(s)) {
		/* Not on its way to being woken: it sleeps on the queue, or was woken unseen. */
		if (s->out_ns > latest(s->in_ns, s->waking_ns) && moves_queued(t))
			s->out_flags |= MOVED_ASLEEP;
		return;
	}
	now = now_ns();
	held = throttled_since_mark(s, t, now);
	if (here && !CFG(histogram_only))
		blame_unless_held(s, here, cpu, task_cpu(t), held, now);
	s->culprit_flags |= MIGRATED_QUEUED;
	s->throttled_ns += held;
	if (s->quota_of)
		mark_throttle(s, t, throttle_clock_at(t, to_cpu));
	s->queued_ns = now;
}

/* ---- switches --------------------------------------------------------------------------- */

static __always_inline void switch_out(void *ctx, struct cpu_state *c, struct task_struct *prev,
				       u32 cpu, bool preempt, u32 prev_state, u64 now)
{
	u32 tid = task_tid(prev);
	struct task_state *s;
	bool asked;

	if (prev_state & TASK_STATE_DEAD) {
		state_release(tid);
		return;
	}
	s = state_claim(tid);
	if (!s) {
		count(c, STATE_LOST);
		return;
	}
	asked = selected(s, prev);
	if (!asked && !may_be_moved_in())
		return;
	s->out_ns = now;
	s->exec_ns = task_exec_ns(prev);
	s->run_delay_ns = task_run_delay_ns(prev);
	s->out_cpu = cpu;
	/* prev_state says sleeping for a task preempted on its way to sleep: preempt decides. */
	s->out_state = preempt ? 0 : prev_state;
	s->out_runnable =
	    preempt || !prev_state ? (asked ? RUNNABLE : RUNNABLE_UNASKED) : NOT_RUNNABLE;
	s->out_flags = s->out_runnable && !preempt ? YIELDED : 0;
	if (!asked) {
		s->stack_user = 0;
		return;
	}
	if (s->out_runnable)
		start_queueing(s, prev, now);
	if (CFG(stack_user))
		s->stack_user = stack_user_of_current(ctx, c, OWN_USER, now);
}

static __always_inline bool long_enough(u64 runq_ns, u64 blocked_ns)
{
	return runq_ns >= CFG(min_latency_ns) || (blocked_ns && blocked_ns >= CFG(min_latency_ns));
}

static __always_inline void switch_in(struct cpu_state *c, struct task_struct *next, u32 cpu,
				      u64 now, u64 cgroup)
{
	struct task_state *s = state_claim(task_tid(next));
	u64 start, runq_ns, held, throttled_ns, blocked_ns = 0, wake_ns = 0;
	u64 exec_ns = task_exec_ns(next), since = counted_since(), last;
	u32 policy = task_policy(next);
	u8 kind, flags = 0;
	struct wait_record *r;
	bool out_seen, tagged, tail;

	if (!s) {
		count(c, STATE_LOST);
		return;
	}
	if (!selected(s, next))
		return;
	last = latest(s->in_ns, s->out_ns);
	/* It has not run since it was seen to leave the CPU, so nothing was missed in between. */
	out_seen = s->out_ns > s->in_ns && s->exec_ns == exec_ns;
	if (out_seen && s->out_runnable == RUNNABLE) {
		kind = RUNQ_PREEMPT;
		start = s->out_ns;
		flags = s->out_flags;
	} else if (waits_woken(s) && s->woken_exec_ns == exec_ns) {
		kind = RUNQ_WAKEUP;
		start = s->wakeup_ns;
		if (out_seen && CFG(blocked))
			blocked_ns = s->wakeup_ns - s->out_ns;
		if (out_seen || !last)
			flags = s->out_flags;
		else
			/* It got or lost a CPU unseen before it was woken. */
			missed(c, next, cpu, MISSED_UNSTAMPED, 0,
			       at_least_zero(s->wakeup_ns - last_seen(s) - (exec_ns - s->exec_ns)),
			       now);
		if (s->waking_ns > s->in_ns)
			wake_ns = now - latest(s->waking_ns, out_seen ? s->out_ns : 0);
		else
			flags |= FOREIGN_WAKE;
	} else {
		missed_unstamped(c, s, next, cpu, now);
		s->in_ns = now;
		s->exec_ns = exec_ns;
		return;
	}
	s->in_ns = now;
	s->exec_ns = exec_ns;
	if ((s64)(now - start) < 0) {
		count(c, CLOCK_BACKWARDS);
		return;
	}
	if (!policy_matches(policy) || !wanted_on(cpu))
		return;

	runq_ns = now - start;
	held = throttled_since_mark(s, next, now);
	throttled_ns = s->throttled_ns + held;
	if (throttled_ns > runq_ns)
		throttled_ns = runq_ns;
	/* Blocked, then without quota, then in a queue: each ended at its own time. */
	if (now >= since)
		histogram_add(slot_of(s, cpu, policy, cgroup), kind, runq_ns - throttled_ns,
			      start + throttled_ns >= since ? throttled_ns : 0,
			      start >= since ? blocked_ns : 0);
	if (CFG(histogram_only))
		return;
	if (!long_enough(runq_ns, blocked_ns)) {
		count(c, BELOW_MIN);
		return;
	}

	blame_unless_held(s, c, cpu, cpu, held, now);

	tagged = tags_on();
	tail = with_tail(tagged);
	r = record_reserve(cpu, tail);
	if (!r) {
		count(c, RING_FULL);
		return;
	}
	r->end_ns = now;
	r->blocked_ns = blocked_ns;
	r->runq_ns = runq_ns;
	r->throttled_ns = throttled_ns;
	r->wake_ns = wake_ns;
	r->cgroup = cgroup;
	r->culprit_cgroup = s->culprit_cgroup;
	r->culprit_ns = s->culprit_ns;
	r->tid = task_tid(next);
	r->pid = task_pid(next);
	r->waker_tid = kind == RUNQ_WAKEUP ? s->waker_tid : 0;
	r->waker_pid = kind == RUNQ_WAKEUP ? s->waker_pid : 0;
	r->culprit_tid = s->culprit_tid;
	r->culprit_pid = s->culprit_pid;
	r->cpu = cpu;
	r->prev_cpu = out_seen ? s->out_cpu : cpu;
	r->prio = task_prio(next);
	r->nice = task_static_prio(next) - 120;
	r->policy = policy;
	r->state = out_seen ? s->out_state : 0;
	r->kind = kind;
	r->waker_context = kind == RUNQ_WAKEUP && wake_ns ? s->waker_context : WAKER_NONE;
	r->culprit_others = s->culprit_others;
	r->culprit_known = s->culprit_known;
	r->flags = flags | s->culprit_flags;
	r->reserved = 0;
	if (tail) {
		bool taken = runq_ns >= CFG(stack_min_ns) || blocked_ns >= CFG(stack_min_ns);

		r->stack_kernel = taken ? stack_kernel_of(next, c, now) : 0;
		r->stack_user = taken && out_seen ? s->stack_user : 0;
		r->waker_stack_kernel = taken && wake_ns ? s->waker_stack_kernel : 0;
		r->waker_stack_user = taken && wake_ns ? s->waker_stack_user : 0;
	}
	if (tagged)
		tag_take(next, r);
	else if (tail)
		__builtin_memset(&r->tag, 0, sizeof(r->tag));
	record_submit(r, cpu);
	count(c, RECORDS);
}

/*
 * Whether a task's switch matters for itself, not only as the end or beginning of what others
 * waited for. It may, of a task that there is no room to remember.
 */
static __always_inline bool concerns(struct task_struct *t)
{
	struct task_state *s;

	if (!filters_tasks())
		return true;
	if (!task_tid(t))
		return false;
	s = state_claim(task_tid(t));
	return !s || selected(s, t);
}

/*
 * The time of a switch between two tasks nobody asked for, as near as blame needs it. Reading the
 * clock is 40 of the 120 ns of such a switch; the queue's clock, which the kernel has read by then,
 * is 0.4 to 17 us behind (measured, docs/measured.md) and drifts by up to 500 ppm (clock slewing).
 */
static __always_inline u64 about_now(struct cpu_state *c, struct task_struct *next)
{
	u64 clock = queue_clock(next);

	if (!clock || clock - c->clock_ns > CLOCK_HOLDS_NS) {
		c->clock_ns = clock;
		c->clock_ahead_ns = now_ns() - clock;
	}
	return latest(c->last_ns, clock + c->clock_ahead_ns);
}

static __always_inline void on_switch(void *ctx, u32 cpu, bool preempt, struct task_struct *prev,
				      struct task_struct *next, u32 prev_state)
{
	u64 now, cgroup = task_tid(next) ? task_cgroup(next) : 0;
	u64 switch_no = switches_of_queue(next);
	struct cpu_state *c = cpu_find(cpu);
	struct task_state *s;

	if (!c)
		return;
	c->concerned = concerns(prev) || concerns(next);
	now = c->concerned ? now_ns() : about_now(c, next);
	count(c, SWITCHES);
	/*
	 * Nothing is switched within an interrupt but a softirq on PREEMPT_RT, which others then
	 * run beside. So what was noted of one whose end was not seen, or that stands still, is
	 * over.
	 */
	c->interrupts = 0;
	if (!c->seen) {
		/* It runs, but was last seen waiting: it got the CPU before this first switch. */
		s = state_find(task_tid(prev));
		if (s && (waits_preempted(s) || waits_woken(s)))
			on_hole(c, cpu, prev, now);
	} else if (switch_no != c->switch_no + 1) {
		c->counters[SWITCHES_LOST] += switch_no - c->switch_no - 1;
		on_hole(c, cpu, prev, now);
	}
	if (task_tid(prev) && (c->concerned || may_be_moved_in() || prev_state & TASK_STATE_DEAD))
		switch_out(ctx, c, prev, cpu, preempt, prev_state, now);
	if (task_tid(next) && c->concerned)
		switch_in(c, next, cpu, now, cgroup);
	c->last_ns = now;
	/* FRESH: bcc's verifier looked at 737,000 instructions with `now` itself, 453,000 so. */
	if (!CFG(histogram_only))
		push_segment(c, cpu, task_tid(next), task_pid(next), cgroup, FRESH(c->last_ns));
	c->switch_no = switch_no;
	c->seen = 1;
}

#endif
