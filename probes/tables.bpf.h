/* SPDX-License-Identifier: GPL-2.0 */
/* Where the machine keeps its state, and how records leave the kernel. */
#ifndef SLTRACE_TABLES_BPF_H
#define SLTRACE_TABLES_BPF_H

#include "record_tail.h"
#include "task_tags.bpf.h"

/*
 * A slot per tid in one table: no allocation in the scheduler's path, no lock, nothing left when a
 * task exits. Task storage failed to allocate for 0.7 % of tasks under load (measured). A tid
 * whose own slot is taken probes PROBES others; user space keeps the table at most a quarter full.
 */
#define PROBES  16
#define NO_SLOT 0xffffffff

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct task_state);
} task_table SEC(".maps");

static __always_inline struct task_state *table_at(u32 index)
{
	return bpf_map_lookup_elem(&task_table, &index);
}

static __always_inline u32 probe(u32 tid, u32 i)
{
	return ((tid * 0x9e3779b1) + i * 0x85ebca6b) >> 4 & CFG(task_mask);
}

SUBPROGRAM u32 probe_find(u32 tid)
{
	u32 i, index;

	for (i = 0; i < PROBES; i++) {
		struct task_state *s = table_at(index = probe(tid, i));

		if (s && s->tid == tid)
			return index;
	}
	return NO_SLOT;
}

/* A slot is zero but for its owner when it is free: state_release saw to that. */
SUBPROGRAM u32 probe_claim(u32 tid)
{
	u32 i, index, owner;
	struct task_state *s;

	index = probe_find(tid);
	if (index != NO_SLOT)
		return index;
	index = tid & CFG(task_mask);
	for (i = 0; i <= PROBES; i++) {
		s = table_at(index);
		if (!s)
			return NO_SLOT;
		owner = __sync_val_compare_and_swap(&s->tid, 0, tid);
		if (!owner || owner == tid)
			return index;
		index = probe(tid, i);
	}
	return NO_SLOT;
}

static __always_inline struct task_state *state_find(u32 tid)
{
	struct task_state *s = table_at(tid & CFG(task_mask));

	if (s && s->tid != tid)
		s = table_at(probe_find(tid));
	return s;
}

static __always_inline struct task_state *state_claim(u32 tid)
{
	struct task_state *s = table_at(tid & CFG(task_mask));

	if (s && s->tid != tid)
		s = table_at(probe_claim(tid));
	return s;
}

static __always_inline void state_release(u32 tid)
{
	struct task_state *s = state_find(tid);

	if (!s)
		return;
	__builtin_memset((void *)s + sizeof(s->tid), 0, sizeof(*s) - sizeof(s->tid));
	s->tid = 0;
}

/* User space maps this: counters cost it no system call. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct cpu_state);
} cpu_table SEC(".maps");

static __always_inline struct cpu_state *cpu_find(u32 cpu)
{
	return bpf_map_lookup_elem(&cpu_table, &cpu);
}

/* Histograms by CPU (so that nobody else writes the page), cgroup and policy. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct histogram_slot);
} histograms SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct slot_owner);
} slot_owners SEC(".maps");

static __always_inline struct histogram_slot *slot_at(u32 index)
{
	return bpf_map_lookup_elem(&histograms, &index);
}

static __always_inline struct slot_owner *owner_at(u32 index)
{
	return bpf_map_lookup_elem(&slot_owners, &index);
}

/* When the recording begins is known when all else is ready. */
volatile u64 since_ns SEC(".data.since");

static __always_inline u64 counted_since(void)
{
	return since_ns;
}

/*
 * A ring of records per CPU: no CPU waits for another, and user space sees each in time order.
 * Plain arrays, as each has one writer, the switch, of which a CPU does one at a time. The kernel's
 * ring buffer takes a lock for every record: 50 of the 220 ns of a switch (measured, 6.18).
 */
struct ring_position {
	u64 written; /* records so far */
	u64 reserved[7];
	u64 read; /* by user space, on a cache line of its own */
	u64 reserved_2[7];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct ring_position);
} ring_positions SEC(".maps");

/* A record without a tail leaves the room for it as it is: zero, as none before it had one. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct wait_record);
} wait_records SEC(".maps");

/* User space says so when the first runtime is found, which may be late: a map of its own. */
volatile u32 tagged SEC(".data.tagged");

static __always_inline bool tags_on(void)
{
	return CFG(tags) && tagged;
}

static __always_inline struct ring_position *position_of(u32 cpu)
{
	return bpf_map_lookup_elem(&ring_positions, &cpu);
}

static __always_inline struct wait_record *record_reserve(u32 cpu, bool tail)
{
	struct ring_position *ring = position_of(cpu);
	u32 index;

	if (!ring || ring->written - ring->read > CFG(ring_mask))
		return NULL;
	index = cpu * (CFG(ring_mask) + 1) + (ring->written & CFG(ring_mask));
	return bpf_map_lookup_elem(&wait_records, &index);
}

/* User space looks on a timer; waking it for each record cost 2.6x instead of 1.2x (measured). */
static __always_inline void record_submit(struct wait_record *r, u32 cpu)
{
	struct ring_position *ring = position_of(cpu);

	if (!ring)
		return;
	/* The record must be seen before the position that covers it. */
#ifdef __TARGET_ARCH_x86
	/* Which never swaps two stores. */
	barrier();
	ring->written++;
#else
	/* An addition whose result nobody wants would order nothing. */
	__sync_lock_test_and_set(&ring->written, ring->written + 1);
#endif
}

static __always_inline void tag_take(struct task_struct *t, struct wait_record *r)
{
	u32 tid = t->pid;
	struct task_tag *tag = bpf_map_lookup_elem(&task_tags, &tid);

	if (tag)
		r->tag = *tag;
	else
		__builtin_memset(&r->tag, 0, sizeof(r->tag));
}

#endif
