// SPDX-License-Identifier: GPL-2.0
/*
 * Scheduling waits through BCC, for kernels without BTF, and as a second opinion: raw
 * tracepoints. Each program only fetches its arguments; what they mean is in wait_machine.h.
 */
#include <linux/types.h>
#include "kernel_types.bcc.h"

/* LLVM 14 and older crash over clz for BPF; this has no branches either. */
static __always_inline u32 leading_zeros(u64 v)
{
	v |= v >> 1;
	v |= v >> 2;
	v |= v >> 4;
	v |= v >> 8;
	v |= v >> 16;
	v |= v >> 32;
	v -= v >> 1 & 0x5555555555555555ULL;
	v = (v & 0x3333333333333333ULL) + (v >> 2 & 0x3333333333333333ULL);
	v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
	return 64 - (u32)(v * 0x0101010101010101ULL >> 56);
}

#define __builtin_clzll(v) leading_zeros(v)
/* All is inlined here, and more would be too complex for the verifier. */
#define SEARCH_SEGMENTS 128
#define SEARCH_BLOCKS   2
#define TALLY_SETS      64
#define TALLY_WAYS      2
#include "wait_state.h"

#define CFG(field) CFG_##field
#define SUBPROGRAM static __always_inline
/* BCC optimizes for no target and unrolls by four: the verifier then loses the loop's bound. */
#define LONG_LOOP _Pragma("clang loop unroll(disable)")
#define now_ns()  bpf_ktime_get_ns()

#include "tasks.bcc.h"
#include "switch_state.h"
#include "tables.bcc.h"
#include "filters.bpf.h"

/* Another task's stack is out of reach: ours is below. */
#define stack_kernel_of                        stack_kernel_of_unused
#define bpf_get_task_stack(t, to, size, flags) (-1)
#define for LONG_LOOP for
#include "stacks.bpf.h"
#undef for
#undef stack_kernel_of

static __always_inline u64 stack_kernel_of(struct task_struct *t, struct cpu_state *c, u64 now)
{
	struct task_entry *e = CFG(stack_kernel) ? entry_find(task_tid(t)) : NULL;

	return e ? e->stack_kernel : 0;
}

/* Its programs are for libbpf; those below call the same functions. */
#undef BPF_PROG
#define BPF_PROG(name, ...) libbpf_##name(void)
#include "context.bpf.h"
#include "wait_machine.h"
#include "names.bpf.h"

#define PROGRAM(name) int name(struct bpf_raw_tracepoint_args *ctx)

/* Taken when it leaves, as only the current task's stack can be walked here. */
static __always_inline void keep_kernel_stack(void *ctx, struct cpu_state *c,
					      struct task_struct *prev)
{
	struct task_state *s;
	struct task_entry *e;

	if (!CFG(stack_kernel) || !task_tid(prev))
		return;
	s = state_claim(task_tid(prev));
	e = entry_find(task_tid(prev));
	if (s && e)
		e->stack_kernel =
		    selected(s, prev) ? stack_kernel_of_current(ctx, c, OWN_KERNEL, now_ns()) : 0;
}

PROGRAM(sched_switch)
{
	u32 cpu = bpf_get_smp_processor_id(), state;
	struct cpu_state *c = cpu_find(cpu);
	struct task_struct prev, next;

	task_copy_of(&prev, ctx->args[1]);
	task_copy_of(&next, ctx->args[2]);
#ifdef SWITCH_CARRIES_STATE
	state = state_at_switch(&prev, ctx->args[3]);
#else
	state = task_state_now(&prev);
#endif
	count_switch(&prev, &next, cpu);
	if (c)
		keep_kernel_stack(ctx, c, &prev);
	on_switch(ctx, cpu, ctx->args[0], &prev, &next, state);
	return 0;
}

PROGRAM(sched_waking)
{
	struct cpu_state *c = cpu_find(bpf_get_smp_processor_id());
	u64 current_ids = bpf_get_current_pid_tgid();
	struct task_struct t;
	struct task_state *s;

	task_copy_of(&t, ctx->args[0]);
	s = state_if_selected(&t);
	if (c && s)
		on_waking(ctx, c, s, (u32)current_ids, current_ids >> 32, waker_context(c));
	return 0;
}

PROGRAM(sched_wakeup)
{
	struct task_struct t;

	task_copy_of(&t, ctx->args[0]);
	on_wakeup(&t);
	return 0;
}

PROGRAM(sched_wakeup_new)
{
	u64 current_ids = bpf_get_current_pid_tgid();
	struct task_struct t;

	task_copy_of(&t, ctx->args[0]);
	on_new_task(&t, (u32)current_ids, current_ids >> 32);
	return 0;
}

PROGRAM(sched_migrate_task)
{
	struct task_struct t;

	task_copy_of(&t, ctx->args[0]);
	on_migrate(&t, bpf_get_smp_processor_id(), ctx->args[1]);
	return 0;
}

static __always_inline void task_tell(u64 argument, u32 kind, const char *comm)
{
	struct task_struct t, parent;

	task_copy_ids(&t, argument);
	task_copy_ids(&parent, READ_FIELD(u64, t.kernel, task_struct_real_parent));
	t.real_parent = &parent;
	if (!comm) {
		task_copy_comm(&t);
		comm = t.comm;
	}
	tell_task(&t, kind, comm);
}

PROGRAM(sched_process_fork)
{
	struct task_struct parent, child;

	task_copy_ids(&parent, ctx->args[0]);
	task_copy_ids(&child, ctx->args[1]);
	follow_fork(&parent, &child);
	task_tell(ctx->args[1], TASK_FORK, NULL);
	return 0;
}

PROGRAM(sched_process_exec)
{
	struct task_struct t;

	task_copy_ids(&t, ctx->args[0]);
	t.real_parent = &t;
	task_copy_comm(&t);
	give_up_number(&t, ctx->args[1]);
	task_tell(ctx->args[0], TASK_EXEC, NULL);
	return 0;
}

PROGRAM(task_rename)
{
	task_tell(ctx->args[0], TASK_RENAME, (const char *)ctx->args[1]);
	return 0;
}

PROGRAM(sched_process_exit)
{
	const void *t = (const void *)ctx->args[0];
	bool last = !READ_FIELD(int, FOLLOW(t, task_struct_signal), signal_struct_live);

	if (last)
		unfollow(READ_FIELD(int, t, task_struct_tgid));
	task_tell(ctx->args[0], last ? TASK_EXIT_LAST : TASK_EXIT, NULL);
	return 0;
}

static __always_inline void cgroup_tell(u64 argument, u32 kind, u64 path)
{
	const void *at = (const void *)argument, *parent_css = FOLLOW(at, cgroup_self_parent);
	struct cgroup_root root = {
	    READ_FIELD(int, FOLLOW(at, cgroup_root), cgroup_root_hierarchy_id)};
	struct kernfs_node kn = {cgroup_id_at(at)}, parent_kn = {};
	struct cgroup parent = {.kn = &parent_kn};
	struct cgroup_subsys_state parent_state = {.cgroup = &parent};
	struct cgroup g = {.kn = &kn, .root = &root};

	if (parent_css) {
		parent_kn.id = cgroup_id_at(FOLLOW(parent_css, cgroup_subsys_state_cgroup));
		g.self.parent = &parent_state;
		if (kind == CGROUP_MKDIR && root.hierarchy_id == CFG(hierarchy_id))
			follow_mkdir(parent_kn.id, kn.id);
	}
	if (kind == CGROUP_RMDIR && root.hierarchy_id == CFG(hierarchy_id))
		unfollow_cgroup(kn.id);
	tell_cgroup(&g, kind, (const char *)path);
}

PROGRAM(cgroup_mkdir)
{
	cgroup_tell(ctx->args[0], CGROUP_MKDIR, ctx->args[1]);
	return 0;
}

PROGRAM(cgroup_rmdir)
{
	cgroup_tell(ctx->args[0], CGROUP_RMDIR, ctx->args[1]);
	return 0;
}

PROGRAM(cgroup_rename)
{
	cgroup_tell(ctx->args[0], CGROUP_RENAME, ctx->args[1]);
	return 0;
}

PROGRAM(irq_handler_entry)
{
	return enter(IN_HARDIRQ);
}

PROGRAM(irq_handler_exit)
{
	return leave(IN_HARDIRQ);
}

PROGRAM(softirq_entry)
{
	return enter(IN_SOFTIRQ);
}

PROGRAM(softirq_exit)
{
	return leave(IN_SOFTIRQ);
}

PROGRAM(hrtimer_expire_entry)
{
	return enter(IN_TIMER);
}

PROGRAM(hrtimer_expire_exit)
{
	return leave(IN_TIMER);
}
