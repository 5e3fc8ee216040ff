/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What does not fit the 512 bytes of BPF's own stack. Programs in user code can be preempted by
 * others on the same CPU, and interrupted by timers, so each claims a slot that nobody has: a map
 * of SCRATCH_SLOTS elements per CPU, whose values begin with a struct scratch_slot.
 */
#ifndef SLTRACE_SCRATCH_BPF_H
#define SLTRACE_SCRATCH_BPF_H

#define SCRATCH_SLOTS 4

struct scratch_slot {
	u64 taken;
};

/* NULL if all are taken. */
static __always_inline void *scratch_claim(void *slots)
{
	u32 i;

	for (i = 0; i < SCRATCH_SLOTS; i++) {
		u32 number = i;
		struct scratch_slot *slot = bpf_map_lookup_elem(slots, &number);

		if (slot && !__sync_val_compare_and_swap(&slot->taken, 0, 1))
			return slot;
	}
	return NULL;
}

static __always_inline void scratch_release(void *slot)
{
	__sync_lock_test_and_set(&((struct scratch_slot *)slot)->taken, 0);
}

#endif
