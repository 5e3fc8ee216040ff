// SPDX-License-Identifier: GPL-2.0
/*
 * Scheduling waits: the CO-RE object that libbpf loads. Each program only fetches its arguments;
 * what they mean is in wait_machine.h.
 */
#include "kernel_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "wait_state.h"

char LICENSE[] SEC("license") = "GPL";

/* Read-only settings, so that the verifier drops the code they switch off. */
const volatile struct config cfg = {};
#define CFG(field) (cfg.field)
#define SUBPROGRAM __attribute__((noinline))
#define LONG_LOOP
#define now_ns() bpf_ktime_get_ns()

#include "tasks.bpf.h"
#include "switch_state.h"
#include "tables.bpf.h"
#include "filters.bpf.h"
#include "stacks.bpf.h"
#include "context.bpf.h"
#include "wait_machine.h"
#include "names.bpf.h"

/* Named only so that the object's BTF describes them. */
const struct task_event *task_event_layout;
const struct cgroup_event *cgroup_event_layout;
const struct wait_record *wait_record_layout;
const enum counter *counter_layout;
const enum slot_use *slot_use_layout;

SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch, bool preempt, struct task_struct *prev, struct task_struct *next,
	     unsigned int prev_state)
{
	on_switch(ctx, bpf_get_smp_processor_id(), preempt, prev, next,
		  state_at_switch(prev, prev_state));
	return 0;
}

/* Before 5.18 (fa2c3254d7cf) the event does not carry the state; user space loads one of the two.
 */
SEC("?tp_btf/sched_switch")
int BPF_PROG(sched_switch_before_5_18, bool preempt, struct task_struct *prev,
	     struct task_struct *next)
{
	on_switch(ctx, bpf_get_smp_processor_id(), preempt, prev, next, task_state_now(prev));
	return 0;
}

SEC("tp_btf/sched_waking")
int BPF_PROG(sched_waking, struct task_struct *t)
{
	struct task_state *s = state_if_selected(t);
	struct cpu_state *c;
	u64 current;

	if (!s)
		return 0;
	c = cpu_find(bpf_get_smp_processor_id());
	current = bpf_get_current_pid_tgid();
	if (c)
		on_waking(ctx, c, s, (u32)current, current >> 32, waker_context(c));
	return 0;
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(sched_wakeup, struct task_struct *t)
{
	on_wakeup(t);
	return 0;
}

SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(sched_wakeup_new, struct task_struct *t)
{
	u64 current = bpf_get_current_pid_tgid();

	on_new_task(t, (u32)current, current >> 32);
	return 0;
}

SEC("tp_btf/sched_migrate_task")
int BPF_PROG(sched_migrate_task, struct task_struct *t, int to_cpu)
{
	on_migrate(t, bpf_get_smp_processor_id(), to_cpu);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(sched_process_fork, struct task_struct *parent, struct task_struct *child)
{
	follow_fork(parent, child);
	tell_task(child, TASK_FORK, child->comm);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(sched_process_exec, struct task_struct *t, int tid_before)
{
	give_up_number(t, tid_before);
	tell_task(t, task_matches(t) ? TASK_EXEC_RECORDED : TASK_EXEC, t->comm);
	return 0;
}

SEC("tp_btf/task_rename")
int BPF_PROG(task_rename, struct task_struct *t, const char *comm)
{
	tell_task(t, TASK_RENAME, comm);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(sched_process_exit, struct task_struct *t)
{
	bool last = !UNTRUSTED(t)->signal->live.counter;

	if (last)
		unfollow(t->tgid);
	tell_task(t, last ? TASK_EXIT_LAST : TASK_EXIT, t->comm);
	return 0;
}

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(cgroup_mkdir, struct cgroup *made, const char *path)
{
	struct cgroup *g = UNTRUSTED(made);

	if (g->root->hierarchy_id == CFG(hierarchy_id) && g->self.parent)
		follow_mkdir(g->self.parent->cgroup->kn->id, g->kn->id);
	tell_cgroup(g, CGROUP_MKDIR, path);
	return 0;
}

SEC("tp_btf/cgroup_rmdir")
int BPF_PROG(cgroup_rmdir, struct cgroup *removed, const char *path)
{
	struct cgroup *g = UNTRUSTED(removed);

	if (g->root->hierarchy_id == CFG(hierarchy_id))
		unfollow_cgroup(g->kn->id);
	tell_cgroup(g, CGROUP_RMDIR, path);
	return 0;
}

SEC("tp_btf/cgroup_rename")
int BPF_PROG(cgroup_rename, struct cgroup *g, const char *path)
{
	tell_cgroup(UNTRUSTED(g), CGROUP_RENAME, path);
	return 0;
}

/* Run once, after the others are attached: which tasks there are, and which are queued. */
SEC("iter/task")
int tasks_at_start(struct bpf_iter__task *ctx)
{
	struct task_struct *t = ctx->task;

	if (!t || !t->pid)
		return 0;
	tell_task(t, TASK_SEEN, t->comm);
	if (t->on_rq == 1 && !t->on_cpu && !sleeps_on_queue(t))
		on_queued_at_start(t);
	return 0;
}
