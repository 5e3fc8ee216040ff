/* SPDX-License-Identifier: GPL-2.0 */
/* What the state of a task says of it. Needs what wait_machine.h needs. */
#ifndef SLTRACE_WAIT_TASK_H
#define SLTRACE_WAIT_TASK_H

#include "wait_state.h"

/* On a queue since it was switched out runnable. */
static __always_inline bool stays_queued(const struct task_state *s)
{
	return s->out_ns > s->in_ns && s->out_runnable;
}

/* Waiting for a CPU since then, and asked for all along. */
static __always_inline bool waits_preempted(const struct task_state *s)
{
	return s->out_ns > s->in_ns && s->out_runnable == RUNNABLE;
}

/* Waiting for a CPU since it was woken. */
static __always_inline bool waits_woken(const struct task_state *s)
{
	return s->wakeup_ns > latest(s->in_ns, s->out_ns);
}

static __always_inline void mark_throttle(struct task_state *s, struct task_struct *t, u64 clock)
{
	s->throttle_mark = clock;
	s->quota_of = quota_group(t);
}

/*
 * How long the quota was used up since then. A task that waits may be moved to another cgroup, or
 * cease to be real-time: the clock is then another one, and says nothing of this wait.
 */
static __always_inline u64 throttled_since_mark(const struct task_state *s, struct task_struct *t,
						u64 now)
{
	if (s->quota_of != quota_group(t))
		return 0;
	/* The mark of a queue that it was moved to may be of that clock's last tick. */
	return least(at_least_zero(throttle_clock(t) - s->throttle_mark),
		     at_least_zero(now - s->queued_ns));
}

static __always_inline void start_queueing(struct task_state *s, struct task_struct *t, u64 now)
{
	s->queued_ns = now;
	mark_throttle(s, t, throttle_clock(t));
	s->throttled_ns = 0;
	s->culprit_known = 0;
	s->culprit_flags = 0;
}

static __always_inline bool filters_tasks(void)
{
	return CFG(filter_pids) || CFG(filter_cgroups) || CFG(filter_comms);
}

/* Whether a task may be asked for at the end of a wait, and was not at its begin. */
static __always_inline bool may_be_moved_in(void)
{
	return CFG(filter_cgroups) || CFG(filter_comms);
}

static __always_inline bool policy_matches(u32 policy)
{
	return !CFG(policies) || CFG(policies) & (1u << (policy & 31));
}

/* Whether waits that end on a CPU are asked for. */
static __always_inline bool wanted_on(u32 cpu)
{
	return !CFG(filter_cpus) || cpu_matches(cpu);
}

/* Whether what it was decided on still holds. */
static __always_inline bool decided(const struct task_state *s, struct task_struct *t)
{
	if (s->selection == UNDECIDED)
		return false;
	if (CFG(filter_cgroups) && s->decided_cgroup != task_cgroup(t))
		return false;
	return !CFG(filter_comms) || (s->decided_comm[0] == task_comm_half(t, 0) &&
				      s->decided_comm[1] == task_comm_half(t, 1));
}

static __always_inline bool selected(struct task_state *s, struct task_struct *t)
{
	if (!filters_tasks())
		return true;
	if (!decided(s, t)) {
		/* Noted before it is looked at: where it changes in between, it is decided anew. */
		s->decided_cgroup = task_cgroup(t);
		if (CFG(filter_comms)) {
			s->decided_comm[0] = task_comm_half(t, 0);
			s->decided_comm[1] = task_comm_half(t, 1);
		}
		s->selection = task_matches(t) ? SELECTED : REJECTED;
	}
	return s->selection == SELECTED;
}

/* The state of a task that is asked for; NULL for any other. */
static __always_inline struct task_state *state_if_selected(struct task_struct *t)
{
	struct task_state *s = state_claim(task_tid(t));

	return s && selected(s, t) ? s : NULL;
}

#endif
