/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What every probe of a Go process works with: its target, whether the target is looked at now,
 * counters, scratch memory, and reads of the process's memory.
 */
#ifndef SLTRACE_GO_STATE_BPF_H
#define SLTRACE_GO_STATE_BPF_H

#define G_M             48
#define GOROUTINE_BYTES 400
#define LEVEL_TRACKED   2
#define LEVEL_EVERY     3   /* what the runtime notes itself is one wait in 8 of those */
#define STACK_WORDS     128 /* of a stack, what is read at once */

const volatile struct go_config cfg = {};
#define CFG(field) (cfg.field)

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GO_SLOTS);
	__type(key, u32);
	__type(value, struct go_target);
} go_targets SEC(".maps");

/* By slot, since when the probes of a process are on; 0 while they are not. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, GO_SLOTS);
	__type(key, u32);
	__type(value, u64);
} go_since SEC(".maps");

/* By slot: what a process pays for. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, GO_SLOTS);
	__type(key, u32);
	__type(value, struct go_runs);
} go_runs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, GO_COUNTERS);
	__type(key, u32);
	__type(value, u64);
} go_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} go_ring SEC(".maps");

/* The beginning of a goroutine: one read of 400 bytes costs what one of 8 does. */
struct go_goroutine {
	u8 bytes[GOROUTINE_BYTES];
};

#include "go_labels.bpf.h"

struct go_scratch {
	struct scratch_slot slot;
	struct go_goroutine goroutine;
	struct go_bucket bucket;
	struct go_stack stack;
	u64 words[STACK_WORDS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCH_SLOTS);
	__type(key, u32);
	__type(value, struct go_scratch);
} go_scratch_slots SEC(".maps");

static __always_inline void count(u32 what)
{
	u64 *value = bpf_map_lookup_elem(&go_counters, &what);

	if (value)
		(*value)++;
}

/* The first part is known when this is loaded: what is above is then not even verified. */
static __always_inline bool at_level(const struct go_target *t, u32 level)
{
	return CFG(level) >= level && t->level >= level;
}

static __always_inline struct go_target *target_of(u32 pid)
{
	return bpf_map_lookup_elem(&go_targets, &pid);
}

static __always_inline void count_run(const struct go_target *t, u32 program)
{
	u32 slot = t->slot;
	struct go_runs *runs = bpf_map_lookup_elem(&go_runs, &slot);

	if (runs)
		runs->of[program]++;
}

/* What was seen before this is no more than a part: 0 is never. */
static __always_inline u64 on_since(const struct go_target *t)
{
	u32 slot = t->slot;
	u64 *since = bpf_map_lookup_elem(&go_since, &slot);

	return since ? *since : 0;
}

/* The process that hit a probe, if its probes are on. */
static __always_inline struct go_target *target_at(u32 pid, u32 program)
{
	struct go_target *t = target_of(pid);

	if (!t)
		return NULL;
	count_run(t, program);
	return on_since(t) ? t : NULL;
}

/* 0 where it cannot be read: nothing here is at address 0. */
static __always_inline u64 word_at(u64 address)
{
	u64 value = 0;

	if (bpf_probe_read_user(&value, sizeof(value), (void *)address))
		count(GO_UNREADABLE);
	return value;
}

static __always_inline struct go_scratch *scratch_take(void)
{
	struct go_scratch *s = scratch_claim(&go_scratch_slots);

	if (!s)
		count(GO_SCRATCH_FULL);
	return s;
}

/* A word of it: offsets are multiples of 8 below its size. */
static __always_inline u64 field_of(const struct go_goroutine *g, u32 offset)
{
	return offset <= GOROUTINE_BYTES - 8 ? *(u64 *)(g->bytes + (offset & 0x1f8)) : 0;
}

static __always_inline void field_set(struct go_goroutine *g, u32 offset, u64 value)
{
	if (offset <= GOROUTINE_BYTES - 8)
		*(u64 *)(g->bytes + (offset & 0x1f8)) = value;
}

#endif
