/* SPDX-License-Identifier: GPL-2.0 */
/* Histograms of waits by cgroup, policy and CPU. Needs what wait_machine.h needs. */
#ifndef SLTRACE_HISTOGRAM_H
#define SLTRACE_HISTOGRAM_H

#include "wait_state.h"

SUBPROGRAM int histogram_add(u32 index, u32 kind, u64 runq_ns, u64 throttled_ns, u64 blocked_ns)
{
	struct histogram_slot *slot = slot_at(index);

	if (!slot)
		return 0;
	/* A wait that was all quota has no run-queue part. */
	if (runq_ns > throttled_ns || !throttled_ns) {
		struct histogram *h = &slot->kinds[kind & (N_KINDS - 1)];

		h->count[bucket_of(runq_ns - throttled_ns)]++;
		h->sum_ns += runq_ns - throttled_ns;
	}
	if (throttled_ns) {
		slot->kinds[THROTTLED].count[bucket_of(throttled_ns)]++;
		slot->kinds[THROTTLED].sum_ns += throttled_ns;
	}
	if (blocked_ns) {
		slot->kinds[BLOCKED].count[bucket_of(blocked_ns)]++;
		slot->kinds[BLOCKED].sum_ns += blocked_ns;
	}
	return 0;
}

/* The task's histogram slot, looked up again only when it changed cgroup, CPU or policy. */
static __always_inline u32 slot_of(struct task_state *s, u32 cpu, u32 policy, u64 cgroup)
{
	if (!s->slot || s->slot_cgroup != cgroup || s->slot_cpu != cpu ||
	    s->slot_policy != policy) {
		s->slot = slot_find(cgroup, cpu, policy) + 1;
		s->slot_cgroup = cgroup;
		s->slot_cpu = cpu;
		s->slot_policy = policy;
	}
	return s->slot - 1;
}

#endif
