/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where the machine keeps its state under BCC: tables.bpf.h with what BCC's compiler can do.
 * It makes code for the first BPF instruction set, whose atomics return nothing, so slots
 * cannot be claimed with compare-and-swap: tasks live in a preallocated hash map. User space makes
 * the maps and says their numbers.
 */
#ifndef SLTRACE_TABLES_BCC_H
#define SLTRACE_TABLES_BCC_H

#include "record_tail.h"

/* The maps the shared headers declare and name: `&name` is only ever seen as text. */
#define __uint(name, value) int (*name)[value]
#define __type(name, value) value *name
#define SEC(name)
#define IS_MAP(map, name) (!__builtin_strcmp(map, "&" #name))
#define NAMED_MAP(map)                                                                             \
	MAP(IS_MAP(map, wanted_pids)      ? FD_WANTED_PIDS                                         \
	    : IS_MAP(map, wanted_cgroups) ? FD_WANTED_CGROUPS                                      \
	    : IS_MAP(map, wanted_comms)   ? FD_WANTED_COMMS                                        \
	    : IS_MAP(map, wanted_cpus)    ? FD_WANTED_CPUS                                         \
	    : IS_MAP(map, seen_stacks)    ? FD_SEEN_STACKS                                         \
	    : IS_MAP(map, stack_scratch)  ? FD_STACK_SCRATCH                                       \
	    : IS_MAP(map, stack_ring)     ? FD_STACK_RING                                          \
	    : IS_MAP(map, task_ring)      ? FD_TASK_RING                                           \
	    : IS_MAP(map, cgroup_ring)    ? FD_CGROUP_RING                                         \
					  : -1)
#define bpf_map_lookup_elem(map, key) (bpf_map_lookup_elem)(NAMED_MAP(#map), key)
#define bpf_map_update_elem(map, key, value, flags)                                                \
	(bpf_map_update_elem)(NAMED_MAP(#map), key, value, flags)
#define bpf_map_delete_elem(map, key)         (bpf_map_delete_elem)(NAMED_MAP(#map), key)
#define bpf_ringbuf_reserve(map, size, flags) (bpf_ringbuf_reserve)(NAMED_MAP(#map), size, flags)
#define bpf_ringbuf_output(map, data, size, flags)                                                 \
	(bpf_ringbuf_output)(NAMED_MAP(#map), data, size, flags)

struct task_entry {
	struct task_state state;
	/*
	 * Where it left the CPU. No other task's stack can be walked from a raw tracepoint, and
	 * this one does not change until the task is back.
	 */
	u64 stack_kernel;
};

static __always_inline struct task_entry *entry_find(u32 tid)
{
	return (bpf_map_lookup_elem)(MAP(FD_TASKS), &tid);
}

static __always_inline struct task_state *state_find(u32 tid)
{
	struct task_entry *e = entry_find(tid);

	return e ? &e->state : NULL;
}

static __always_inline struct task_state *state_claim(u32 tid)
{
	struct task_entry *e = entry_find(tid);
	u32 zero = 0;

	if (e)
		return &e->state;
	/* All zeros, from a map because it is too large for the stack. */
	e = (bpf_map_lookup_elem)(MAP(FD_NEW_TASK), &zero);
	if (!e)
		return NULL;
	/* Whoever comes second finds what the first made. */
	(bpf_map_update_elem)(MAP(FD_TASKS), &tid, e, BPF_NOEXIST);
	return state_find(tid);
}

static __always_inline void state_release(u32 tid)
{
	(bpf_map_delete_elem)(MAP(FD_TASKS), &tid);
}

static __always_inline struct cpu_state *cpu_find(u32 cpu)
{
	return (bpf_map_lookup_elem)(MAP(FD_CPU_TABLE), &cpu);
}

static __always_inline struct histogram_slot *slot_at(u32 index)
{
	return (bpf_map_lookup_elem)(MAP(FD_HISTOGRAMS), &index);
}

static __always_inline struct slot_owner *owner_at(u32 index)
{
	return (bpf_map_lookup_elem)(MAP(FD_SLOT_OWNERS), &index);
}

static __always_inline u64 counted_since(void)
{
	u32 zero = 0;
	u64 *since = (bpf_map_lookup_elem)(MAP(FD_SINCE_NS), &zero);

	return since ? *since : 0;
}

/* Runtimes are looked into with the libbpf loader only. */
#define tags_on() false
#define tag_take(t, r)

static __always_inline struct wait_record *record_reserve(u32 cpu, bool tail)
{
	void *ring = (bpf_map_lookup_elem)(MAP(FD_WAIT_RINGS), &cpu);

	if (!ring)
		return NULL;
	if (tail)
		return (bpf_ringbuf_reserve)(ring, sizeof(struct wait_record), 0);
	return (bpf_ringbuf_reserve)(ring, SHORT_RECORD, 0);
}

static __always_inline void record_submit(struct wait_record *r, u32 cpu)
{
	bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
}

#endif
