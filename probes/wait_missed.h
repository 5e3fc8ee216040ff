/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Waits that were not seen whole: that there was one, and what bounds it. Needs what
 * wait_machine.h needs.
 */
#ifndef SLTRACE_WAIT_MISSED_H
#define SLTRACE_WAIT_MISSED_H

#include "wait_task.h"
#include "record_tail.h"
#include "culprit.h"

static __always_inline void missed(struct cpu_state *c, struct task_struct *t, u32 cpu, u8 kind,
				   u64 low, u64 high, u64 now)
{
	bool asked = policy_matches(task_policy(t)) && (kind != MISSED_HOLE || wanted_on(cpu));
	bool tail = with_tail(tags_on());
	struct wait_record *r;

	/* Whoever else got the CPU within a hole may be asked for. */
	if (kind == MISSED_HOLE)
		count(c, HOLES);
	else if (asked)
		count(c, UNSTAMPED);
	if (!asked)
		return;
	r = record_reserve(cpu, tail);
	if (!r) {
		count(c, RING_FULL);
		return;
	}
	record_clear(r, tail);
	r->kind = kind;
	r->end_ns = now;
	r->runq_ns = low;
	r->wake_ns = high;
	r->tid = task_tid(t);
	r->pid = task_pid(t);
	r->cpu = cpu;
	record_submit(r, cpu);
}

/* When this task was last seen to get or lose a CPU, and no earlier than the recording. */
static __always_inline u64 last_seen(const struct task_state *s)
{
	return latest(latest(s->in_ns, s->out_ns), CFG(start_ns));
}

/*
 * Whether all that the scheduler has added to its account since `run_delay_ns` is of waits that
 * were not seen. If it was moved asleep, its sleep from there on is in the account too.
 */
static __always_inline bool accounted(const struct task_state *s)
{
	return s->out_ns > s->in_ns && !(s->out_flags & (MOVED_ASLEEP | CENSORED));
}

/*
 * Switches on this CPU were not seen, the last of them to `prev`, which is now switched out. It
 * has run for the CPU time it used since it was last seen; the rest is the most it can have
 * waited. It was asleep before a wakeup, if it had not run between being seen to block and that.
 */
static __always_inline void on_hole(struct cpu_state *c, u32 cpu, struct task_struct *prev, u64 now)
{
	struct task_state *s;
	u64 ran, start, low, high;

	s = task_tid(prev) ? state_claim(task_tid(prev)) : NULL;
	if (!s || !selected(s, prev)) {
		count(c, HOLES);
		push_segment(c, cpu, task_tid(prev), task_pid(prev),
			     task_tid(prev) ? task_cgroup(prev) : 0, c->last_ns);
		return;
	}
	start = last_seen(s);
	ran = at_least_zero(task_exec_ns(prev) - s->exec_ns);
	if (waits_woken(s) && s->out_ns >= s->in_ns && !s->out_runnable &&
	    (s->woken_exec_ns == s->exec_ns || !s->out_ns)) {
		start = s->wakeup_ns;
		ran = at_least_zero(task_exec_ns(prev) - s->woken_exec_ns);
	}
	high = at_least_zero(now - start - ran);
	low = accounted(s) ? task_run_delay_ns(prev) - s->run_delay_ns : 0;
	missed(c, prev, cpu, MISSED_HOLE, least(low, high), high, now);
	push_segment(c, cpu, task_tid(prev), task_pid(prev), task_cgroup(prev),
		     latest(c->last_ns, now - ran));
	s->in_ns = now - 1;
}

/*
 * A task gets a CPU and was seen neither woken nor preempted. If only the wakeup was lost, the
 * scheduler's own account has the wait. Its clock was read after the last switch on this CPU, which
 * bounds its lag.
 */
static __always_inline void missed_unstamped(struct cpu_state *c, struct task_state *s,
					     struct task_struct *next, u32 cpu, u64 now)
{
	u64 ran = latest(s->in_ns, s->out_ns) ? task_exec_ns(next) - s->exec_ns : 0;
	u64 low = 0, high = at_least_zero(now - last_seen(s) - ran);
	u64 queued = kernel_wait_ns(next);

	/* Had it run unseen, it may have waited anywhere. */
	if (!ran && !wanted_on(cpu))
		return;
	if (!ran && queued != UNKNOWN_WAIT && accounted(s)) {
		queued += task_run_delay_ns(next) - s->run_delay_ns;
		low = least(high, queued);
		high = least(high, queued + at_least_zero(now - c->last_ns));
	}
	missed(c, next, cpu, MISSED_UNSTAMPED, low, high, now);
}

#endif
