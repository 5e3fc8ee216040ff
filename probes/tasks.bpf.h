/* SPDX-License-Identifier: GPL-2.0 */
/* What the machine needs to know of a task, read through CO-RE. */
#ifndef SLTRACE_TASKS_BPF_H
#define SLTRACE_TASKS_BPF_H

#include "task_cgroup.bpf.h"
#include "untrusted.bpf.h"

#define MAX_RT_PRIO     100
#define SCX_TASK_QUEUED 1 /* 6.12 to 7.2 */

static __always_inline u32 task_tid(struct task_struct *t)
{
	return t->pid;
}

static __always_inline u32 task_pid(struct task_struct *t)
{
	return t->tgid;
}

static __always_inline u32 task_ppid(struct task_struct *t)
{
	return UNTRUSTED(t)->real_parent->tgid;
}

static __always_inline u32 task_policy(struct task_struct *t)
{
	return t->policy;
}

static __always_inline int task_prio(struct task_struct *t)
{
	return t->prio;
}

static __always_inline int task_static_prio(struct task_struct *t)
{
	return t->static_prio;
}

static __always_inline u64 task_comm_half(struct task_struct *t, u32 i)
{
	return ((u64 *)t->comm)[i];
}

static __always_inline u64 task_exec_ns(struct task_struct *t)
{
	return t->se.sum_exec_runtime;
}

/* The kernel counts before it tells, so two switches in a row differ by one unless one was lost. */
static __always_inline u64 switches_of_queue(struct task_struct *t)
{
	return UNTRUSTED(t)->se.cfs_rq->rq->nr_switches;
}

static __always_inline u64 queue_clock(struct task_struct *t)
{
	return UNTRUSTED(t)->se.cfs_rq->rq->clock;
}

/* From the scheduler's own accounting (CONFIG_SCHED_INFO), on the run queue's clock. */
static __always_inline u64 kernel_wait_ns(struct task_struct *t)
{
	u64 queued;

	if (!bpf_core_field_exists(t->sched_info.last_queued))
		return UNKNOWN_WAIT;
	queued = t->sched_info.last_queued;
	return queued ? queue_clock(t) - queued : UNKNOWN_WAIT;
}

static __always_inline u64 task_run_delay_ns(struct task_struct *t)
{
	return bpf_core_field_exists(t->sched_info.run_delay) ? t->sched_info.run_delay : 0;
}

static __always_inline bool runs_now(struct task_struct *t)
{
	return t->on_cpu;
}

#define TASK_ON_RQ_MIGRATING 2

static __always_inline bool moves_queued(struct task_struct *t)
{
	return t->on_rq == TASK_ON_RQ_MIGRATING;
}

struct task_struct___before_5_16 {
	u32 cpu;
} __attribute__((preserve_access_index));

/* 5.16 moved the CPU into thread_info (bcf9033e5449). */
static __always_inline u32 task_cpu(struct task_struct *t)
{
	if (bpf_core_field_exists(t->thread_info.cpu))
		return t->thread_info.cpu;
	return BPF_CORE_READ((struct task_struct___before_5_16 *)t, cpu);
}

struct task_struct___before_5_14 {
	long state;
} __attribute__((preserve_access_index));

/* Read back, so it can be wrong by a racing wakeup; 5.14 renamed it (2f064a59a11f). */
static __always_inline u32 task_state_now(struct task_struct *t)
{
	if (bpf_core_field_exists(t->__state))
		return t->__state;
	return BPF_CORE_READ((struct task_struct___before_5_14 *)t, state);
}

/* 6.12 leaves tasks that sleep on the queue for a while (152e11f6df29): they do not wait. */
static __always_inline bool sleeps_on_queue(struct task_struct *t)
{
	return task_state_now(t) != 0;
}

/*
 * How long, in total, the CPU quota of a queue's cgroup or of one above it has been used up.
 * Since 6.6 the kernel keeps this on the run queue's own clock (throttled_clock_self_time);
 * before, only on the PELT clock, which runs slower on a CPU below its full capacity.
 */
static __always_inline u64 queue_throttle_clock(struct cfs_rq *cfs)
{
	u64 since, total;

	if (bpf_core_field_exists(cfs->throttled_clock_self_time)) {
		since = BPF_CORE_READ(cfs, throttled_clock_self);
		total = BPF_CORE_READ(cfs, throttled_clock_self_time);
		return since ? total + BPF_CORE_READ(cfs, rq, clock) - since : total;
	}
	if (!bpf_core_field_exists(cfs->throttled_clock_pelt_time))
		return 0;
	total = BPF_CORE_READ(cfs, throttled_clock_pelt_time);
	if (BPF_CORE_READ(cfs, throttle_count))
		total += BPF_CORE_READ(cfs, rq, clock_pelt) -
			 BPF_CORE_READ(cfs, rq, lost_idle_time) -
			 BPF_CORE_READ(cfs, throttled_clock_pelt);
	return total;
}

/*
 * The quota is the fair class's: tasks of sched_ext are in the same groups, and not held by it.
 * That a task is of sched_ext is not seen while it is moved.
 */
static __always_inline bool quota_holds(struct task_struct *t)
{
	if (t->prio < MAX_RT_PRIO)
		return false;
	return !bpf_core_field_exists(t->scx.flags) || !(t->scx.flags & SCX_TASK_QUEUED);
}

static __always_inline u64 quota_group(struct task_struct *t)
{
	return quota_holds(t) ? (u64)UNTRUSTED(t)->sched_task_group : 0;
}

static __always_inline u64 throttle_clock(struct task_struct *t)
{
	struct cfs_rq *cfs = UNTRUSTED(t)->se.cfs_rq;
	u64 since;

	if (!quota_holds(t))
		return 0;
	if (!bpf_core_field_exists(cfs->throttled_clock_self_time))
		return queue_throttle_clock(cfs);
	since = cfs->throttled_clock_self;
	if (!since)
		return cfs->throttled_clock_self_time;
	return cfs->throttled_clock_self_time + cfs->rq->clock - since;
}

static __always_inline u64 throttle_clock_at(struct task_struct *t, u32 cpu)
{
	struct cfs_rq *cfs = NULL;

	if (!quota_holds(t))
		return 0;
	bpf_core_read(&cfs, sizeof(cfs), UNTRUSTED(t)->sched_task_group->cfs_rq + cpu);
	return cfs ? queue_throttle_clock(cfs) : 0;
}

#endif
