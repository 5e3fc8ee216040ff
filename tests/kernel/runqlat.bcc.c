// SPDX-License-Identifier: GPL-2.0
/*
 * The textbook's run-queue latency, as a witness: stamp a task when it is woken or switched out
 * still runnable, take the difference when it is switched in, count powers of two. It knows
 * nothing of lost switches, quotas or wakes of running tasks.
 */
#include <linux/types.h>

#define MAP(fd) ((void *)bpf_pseudo_fd(1, fd))
#define FIELD(task, field)                                                                         \
	({                                                                                         \
		int value = 0;                                                                     \
		bpf_probe_read_kernel(&value, sizeof(value), (void *)(task) + OFFSET_##field);     \
		value;                                                                             \
	})

struct window {
	u64 start_ns;
	u64 end_ns;
	u64 pid;
};

static __always_inline struct window *asked_for(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(MAP(FD_WINDOW), &zero);
}

static __always_inline void stamp(u64 task)
{
	struct window *w = asked_for();
	u32 tid = FIELD(task, task_struct_pid);
	u64 now = bpf_ktime_get_ns();

	if (w && tid && FIELD(task, task_struct_tgid) == w->pid)
		bpf_map_update_elem(MAP(FD_START), &tid, &now, BPF_ANY);
}

int sched_wakeup(struct bpf_raw_tracepoint_args *ctx)
{
	stamp(ctx->args[0]);
	return 0;
}

int sched_wakeup_new(struct bpf_raw_tracepoint_args *ctx)
{
	stamp(ctx->args[0]);
	return 0;
}

int sched_switch(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tid = FIELD(ctx->args[2], task_struct_pid), bucket = 0;
	u64 now = bpf_ktime_get_ns(), waited, *start, *count;
	struct window *w = asked_for();

	if (ctx->args[0] || !ctx->args[3])
		stamp(ctx->args[1]);
	start = bpf_map_lookup_elem(MAP(FD_START), &tid);
	if (!start)
		return 0;
	waited = now - *start;
	bpf_map_delete_elem(MAP(FD_START), &tid);
	if (!w || now < w->start_ns || now >= w->end_ns)
		return 0;
	while (waited > 1 && bucket < 63) {
		waited >>= 1;
		bucket++;
	}
	count = bpf_map_lookup_elem(MAP(FD_BUCKETS), &bucket);
	if (count)
		__sync_fetch_and_add(count, 1);
	return 0;
}
