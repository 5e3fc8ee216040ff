/* SPDX-License-Identifier: GPL-2.0 */
/* What the machine needs to know of a task, read at the running kernel's offsets: tasks.bpf.h. */
#ifndef SLTRACE_TASKS_BCC_H
#define SLTRACE_TASKS_BCC_H

#define MAX_RT_PRIO     100
#define SCX_TASK_QUEUED 1
#define MAP(number)     ((void *)bpf_pseudo_fd(1, number))

/* Makes `t` a copy of the task a tracepoint handed over. */
static __always_inline void task_copy_ids(struct task_struct *t, u64 argument)
{
	t->kernel = (const void *)argument;
	t->pid = READ_FIELD(int, t->kernel, task_struct_pid);
	t->tgid = READ_FIELD(int, t->kernel, task_struct_tgid);
	t->real_parent = NULL;
}

static __always_inline void task_copy_comm(struct task_struct *t)
{
	bpf_probe_read_kernel(t->comm, sizeof(t->comm), t->kernel + OFFSET_task_struct_comm);
}

/* Enough for everything the machine asks. */
static __always_inline void task_copy_of(struct task_struct *t, u64 argument)
{
	task_copy_ids(t, argument);
	if (CFG(filter_comms))
		task_copy_comm(t);
}

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
	return t->real_parent->tgid;
}

static __always_inline u32 task_policy(struct task_struct *t)
{
	return READ_FIELD(u32, t->kernel, task_struct_policy);
}

static __always_inline int task_prio(struct task_struct *t)
{
	return READ_FIELD(int, t->kernel, task_struct_prio);
}

static __always_inline int task_static_prio(struct task_struct *t)
{
	return READ_FIELD(int, t->kernel, task_struct_static_prio);
}

static __always_inline u64 task_comm_half(struct task_struct *t, u32 i)
{
	return ((u64 *)t->comm)[i];
}

static __always_inline u64 task_exec_ns(struct task_struct *t)
{
	return READ_FIELD(u64, t->kernel, task_struct_se_sum_exec_runtime);
}

#if defined(OFFSET_rq_nr_switches) && defined(OFFSET_cfs_rq_rq) &&                                 \
    defined(OFFSET_task_struct_se_cfs_rq)
static __always_inline void count_switch(struct task_struct *prev, struct task_struct *next,
					 u32 cpu)
{
}

static __always_inline u64 switches_of_queue(struct task_struct *t)
{
	const void *cfs = FOLLOW(t->kernel, task_struct_se_cfs_rq);

	return READ_FIELD(u64, FOLLOW(cfs, cfs_rq_rq), rq_nr_switches);
}
#else
/*
 * struct rq is in no header: without BTF, or groups of the fair class, a lost switch shows only in
 * that somebody else than the task last switched in is switched out.
 */
struct switch_count {
	u64 number;
	u64 tid;
};

static __always_inline struct switch_count *switch_count_of(u32 cpu)
{
	return bpf_map_lookup_elem(MAP(FD_SWITCH_COUNTS), &cpu);
}

static __always_inline void count_switch(struct task_struct *prev, struct task_struct *next,
					 u32 cpu)
{
	struct switch_count *n = switch_count_of(cpu);

	if (!n)
		return;
	n->number += n->tid == prev->pid ? 1 : 2;
	n->tid = next->pid;
}

static __always_inline u64 switches_of_queue(struct task_struct *t)
{
	struct switch_count *n = switch_count_of(bpf_get_smp_processor_id());

	return n ? n->number : 0;
}
#endif

static __always_inline u32 task_cpu(struct task_struct *t)
{
#ifdef OFFSET_task_struct_thread_info_cpu
	return READ_FIELD(u32, t->kernel, task_struct_thread_info_cpu);
#else
	return READ_FIELD(u32, t->kernel, task_struct_cpu);
#endif
}

static __always_inline u32 task_state_now(struct task_struct *t)
{
#ifdef OFFSET_task_struct___state
	return READ_FIELD(u32, t->kernel, task_struct___state);
#else
	return READ_FIELD(u64, t->kernel, task_struct_state);
#endif
}

static __always_inline u64 cgroup_id_at(const void *kernel)
{
	return READ_FIELD(u64, FOLLOW(kernel, cgroup_kn), kernfs_node_id);
}

static __always_inline u64 task_cgroup(struct task_struct *t)
{
	const void *at;
	u64 id;

	if (CFG(cgroup_v1))
		at = FOLLOW(FOLLOW(t->kernel, task_struct_sched_task_group), task_group_css_cgroup);
	else
		at = FOLLOW(FOLLOW(t->kernel, task_struct_cgroups), css_set_dfl_cgrp);
	id = cgroup_id_at(at);
	return id ? id : 1;
}

/* struct cfs_rq is in no header: without BTF nothing is known of quotas. */
static __always_inline u64 queue_throttle_clock(const void *cfs)
{
#if defined(OFFSET_cfs_rq_throttled_clock_self_time)
	u64 since = READ_FIELD(u64, cfs, cfs_rq_throttled_clock_self);
	u64 total = READ_FIELD(u64, cfs, cfs_rq_throttled_clock_self_time);

	return since ? total + READ_FIELD(u64, FOLLOW(cfs, cfs_rq_rq), rq_clock) - since : total;
#elif defined(OFFSET_cfs_rq_throttled_clock_pelt_time)
	u64 total = READ_FIELD(u64, cfs, cfs_rq_throttled_clock_pelt_time);
	const void *rq = FOLLOW(cfs, cfs_rq_rq);

	if (READ_FIELD(int, cfs, cfs_rq_throttle_count))
		total += READ_FIELD(u64, rq, rq_clock_pelt) -
			 READ_FIELD(u64, rq, rq_lost_idle_time) -
			 READ_FIELD(u64, cfs, cfs_rq_throttled_clock_pelt);
	return total;
#else
	return 0;
#endif
}

static __always_inline bool quota_holds(struct task_struct *t)
{
#ifdef OFFSET_task_struct_scx_flags
	if (READ_FIELD(u32, t->kernel, task_struct_scx_flags) & SCX_TASK_QUEUED)
		return false;
#endif
	return task_prio(t) >= MAX_RT_PRIO;
}

static __always_inline u64 quota_group(struct task_struct *t)
{
#ifdef OFFSET_cfs_rq_rq
	if (quota_holds(t))
		return READ_FIELD(u64, t->kernel, task_struct_sched_task_group);
#endif
	return 0;
}

static __always_inline u64 throttle_clock(struct task_struct *t)
{
#ifdef OFFSET_cfs_rq_rq
	if (quota_holds(t))
		return queue_throttle_clock(FOLLOW(t->kernel, task_struct_se_cfs_rq));
#endif
	return 0;
}

static __always_inline u64 throttle_clock_at(struct task_struct *t, u32 cpu)
{
#ifdef OFFSET_cfs_rq_rq
	const void *queues;

	if (quota_holds(t)) {
		queues = FOLLOW(FOLLOW(t->kernel, task_struct_sched_task_group), task_group_cfs_rq);
		return queue_throttle_clock(READ(const void *, queues, cpu * sizeof(queues)));
	}
#endif
	return 0;
}

#define queue_clock(t) 0ULL

static __always_inline u64 kernel_wait_ns(struct task_struct *t)
{
	return UNKNOWN_WAIT;
}

static __always_inline u64 task_run_delay_ns(struct task_struct *t)
{
	return 0;
}

/* False where the kernel does not say: then a hole may be bounded too closely. */
static __always_inline bool runs_now(struct task_struct *t)
{
#ifdef OFFSET_task_struct_on_cpu
	/* An int, of which newer kernels (7.2) keep the first byte. */
	return READ_FIELD(u8, t->kernel, task_struct_on_cpu);
#else
	return false;
#endif
}

/* Likewise; then a move on the way to being woken counts too where that was not seen. */
static __always_inline bool moves_queued(struct task_struct *t)
{
	return true;
}

#endif
