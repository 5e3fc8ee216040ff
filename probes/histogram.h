/* SPDX-License-Identifier: GPL-2.0 */
/* Histograms of waits by cgroup, policy and CPU. Needs what wait_machine.h needs. */
#ifndef SLTRACE_HISTOGRAM_H
#define SLTRACE_HISTOGRAM_H

#include "wait_state.h"

SUBPROGRAM int histogram_add(u32 index, u32 kind, u64 queued_ns, u64 throttled_ns, u64 blocked_ns)
{
	struct histogram_slot *slot = slot_at(index);

	if (!slot)
		return 0;
	/* A wait that was all quota has no run-queue part. */
	if (queued_ns || !throttled_ns) {
		struct histogram *h = &slot->kinds[kind & (N_KINDS - 1)];

		h->count[bucket_of(queued_ns)]++;
		h->sum_ns += queued_ns;
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

/* A cgroup and policy finds its slot, or a free one, among so many of a CPU's. */
#define SLOT_PROBES 8

/* The first of a CPU's slots takes what finds no other, and is nobody's. */
static __always_inline u32 shared_slot(u32 cpu)
{
	return cpu * (CFG(slot_mask) + 1);
}

static __always_inline bool owns(const struct slot_owner *o, u64 cgroup, u32 policy)
{
	return o->use == SLOT_USED && o->cgroup == cgroup && o->policy == policy;
}

SUBPROGRAM u32 slot_find(u32 cpu, u64 cgroup, u32 policy)
{
	/* Fibonacci hashing: the numbers of cgroups follow each other. */
	u32 at = (cgroup + policy) * 0x9e3779b97f4a7c15ULL >> 32, taken = shared_slot(cpu), i;
	struct slot_owner *o;
	struct cpu_state *c;

	LONG_LOOP for (i = 0; i < SLOT_PROBES; i++)
	{
		u32 index = shared_slot(cpu) + ((at + i) & CFG(slot_mask));

		o = owner_at(index);
		if (!o)
			break;
		if (owns(o, cgroup, policy))
			return index;
		if (o->use == SLOT_FREE && taken == shared_slot(cpu))
			taken = index;
	}
	o = owner_at(taken);
	if (o && taken != shared_slot(cpu)) {
		o->cgroup = cgroup;
		o->policy = policy;
		o->use = SLOT_USED;
		return taken;
	}
	c = cpu_find(cpu);
	if (c)
		count(c, SLOTS_FULL);
	return taken;
}

/* The task's slot, looked up again only where the last was another's: see enum slot_use. */
static __always_inline u32 slot_of(struct task_state *s, u32 cpu, u32 policy, u64 cgroup)
{
	struct slot_owner *o = owner_at(s->slot);

	if (!o || (s->slot & ~CFG(slot_mask)) != shared_slot(cpu) || !owns(o, cgroup, policy))
		s->slot = slot_find(cpu, cgroup, policy);
	return s->slot;
}

#endif
