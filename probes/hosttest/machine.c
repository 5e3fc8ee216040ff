// SPDX-License-Identifier: GPL-2.0
/* wait_machine.h as a shared library: a test plays the kernel and reads the records back. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t u8;
typedef int8_t s8;
typedef uint16_t u16;
typedef int16_t s16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t s64;

#undef __always_inline
#define __always_inline inline __attribute__((unused))
#define SUBPROGRAM      static __attribute__((unused))
#define LONG_LOOP
#define CFG(field) (config.field)

#include "../wait_state.h"

#define MAX_TASKS   1024
#define MAX_CPUS    8
#define MAX_SLOTS   (32 * MAX_CPUS)
#define MAX_RECORDS 65536

struct task_struct {
	u32 tid;
	u32 pid;
	u32 policy;
	int prio;
	u32 static_prio;
	u32 cpu;
	u64 cgroup;
	u64 comm[2];
	u64 exec_ns;
	u64 switches; /* of its CPU, for the switch under way */
	u64 kernel_wait_ns;
	u64 run_delay_ns;
	u64 quota_group;
	u64 throttle_clock[MAX_CPUS];
	u32 matches;
	u32 moves_while_matched; /* to the cgroup with the next number, and out of the filter */
	u32 moves_queued;
	u32 on_cpu;
};

static struct config config;
static struct task_state states[MAX_TASKS];
static struct cpu_state cpus[MAX_CPUS];
static struct histogram_slot slots[MAX_SLOTS];
static struct slot_owner owners[MAX_SLOTS];
static struct wait_record records[MAX_RECORDS];
static u32 n_records, room;
static u32 tids_end; /* no state can be had for a task with a tid from this on */
static u64 clock_ns, queue_lag_ns, since_ns;

static u64 now_ns(void)
{
	return clock_ns;
}

#define TASK_FIELD(name, type, field)                                                              \
	static type task_##name(struct task_struct *t)                                             \
	{                                                                                          \
		return t->field;                                                                   \
	}

TASK_FIELD(tid, u32, tid)
TASK_FIELD(pid, u32, pid)
TASK_FIELD(policy, u32, policy)
TASK_FIELD(prio, int, prio)
TASK_FIELD(static_prio, int, static_prio)
TASK_FIELD(cgroup, u64, cgroup)
TASK_FIELD(exec_ns, u64, exec_ns)
TASK_FIELD(run_delay_ns, u64, run_delay_ns)
TASK_FIELD(cpu, u32, cpu)

static bool task_matches(struct task_struct *t)
{
	bool matches = t->matches;

	if (t->moves_while_matched) {
		t->moves_while_matched = t->matches = 0;
		t->cgroup++;
	}
	return matches;
}

static u64 task_comm_half(struct task_struct *t, u32 i)
{
	return t->comm[i];
}

static bool runs_now(struct task_struct *t)
{
	return t->on_cpu;
}

static bool moves_queued(struct task_struct *t)
{
	return t->moves_queued;
}

static u64 switches_of_queue(struct task_struct *t)
{
	return t->switches;
}

/* It began elsewhere. */
static u64 queue_clock(struct task_struct *t)
{
	(void)t;
	return clock_ns + (1ULL << 40) - queue_lag_ns;
}

static u64 kernel_wait_ns(struct task_struct *t)
{
	return t->kernel_wait_ns;
}

static u64 quota_group(struct task_struct *t)
{
	return t->prio < 100 ? 0 : t->quota_group;
}

static u64 throttle_clock(struct task_struct *t)
{
	return quota_group(t) ? t->throttle_clock[t->cpu] : 0;
}

static u64 throttle_clock_at(struct task_struct *t, u32 cpu)
{
	return quota_group(t) ? t->throttle_clock[cpu] : 0;
}

static bool cpu_matches(u32 cpu)
{
	return cpu == 0;
}

static struct task_state *state_find(u32 tid)
{
	return states[tid].tid == tid ? &states[tid] : NULL;
}

static struct task_state *state_claim(u32 tid)
{
	if (tid >= tids_end)
		return NULL;
	states[tid].tid = tid;
	return &states[tid];
}

static void state_release(u32 tid)
{
	memset(&states[tid], 0, sizeof(states[tid]));
}

static struct cpu_state *cpu_find(u32 cpu)
{
	return &cpus[cpu];
}

static struct histogram_slot *slot_at(u32 index)
{
	return index < MAX_SLOTS ? &slots[index] : NULL;
}

static struct slot_owner *owner_at(u32 index)
{
	return index < MAX_SLOTS ? &owners[index] : NULL;
}

static u64 counted_since(void)
{
	return since_ns;
}

static struct wait_record *record_reserve(u32 cpu, bool tail)
{
	(void)cpu;
	(void)tail;
	return n_records < room ? &records[n_records++] : NULL;
}

static void record_submit(struct wait_record *r, u32 cpu)
{
	(void)r;
	(void)cpu;
}

static bool tags_on(void)
{
	return true;
}

static void tag_take(struct task_struct *t, struct wait_record *r)
{
	(void)t;
	memset(&r->tag, 0, sizeof(r->tag));
}

/* Every event is at a time of its own: the number of a stack says of which event it is, and whose.
 */
static u64 stack_number(enum stack_kind kind, u64 now)
{
	return now * STACK_KINDS + kind;
}

static u64 stack_kernel_of(struct task_struct *t, struct cpu_state *c, u64 now)
{
	(void)t;
	(void)c;
	return CFG(stack_kernel) ? stack_number(OWN_KERNEL, now) : 0;
}

#define STACK_OF_CURRENT(name)                                                                     \
	static u64 name(void *ctx, struct cpu_state *c, enum stack_kind kind, u64 now)             \
	{                                                                                          \
		(void)ctx;                                                                         \
		(void)c;                                                                           \
		return stack_number(kind, now);                                                    \
	}

STACK_OF_CURRENT(stack_kernel_of_current)
STACK_OF_CURRENT(stack_user_of_current)

#include "../wait_machine.h"

/* ---- what the test calls ----------------------------------------------------------------- */

void host_reset(const struct config *wanted, u32 ring_room)
{
	config = *wanted;
	room = ring_room < MAX_RECORDS ? ring_room : MAX_RECORDS;
	n_records = queue_lag_ns = since_ns = 0;
	tids_end = MAX_TASKS;
	memset(states, 0, sizeof(states));
	memset(cpus, 0, sizeof(cpus));
	memset(slots, 0, sizeof(slots));
	memset(owners, 0, sizeof(owners));
}

void host_queue_lag(u64 ns)
{
	queue_lag_ns = ns;
}

void host_count_since(u64 ns)
{
	since_ns = ns;
}

void host_tids_end(u32 end)
{
	tids_end = end;
}

void host_switch(u64 now, u32 cpu, u32 preempt, struct task_struct *prev, struct task_struct *next,
		 u32 prev_state)
{
	clock_ns = now;
	on_switch(NULL, cpu, preempt, prev, next, prev_state);
}

void host_waking(u64 now, u32 cpu, struct task_struct *t, u32 waker_tid, u32 context)
{
	struct task_state *s = state_if_selected(t);

	clock_ns = now;
	if (s)
		on_waking(NULL, &cpus[cpu], s, waker_tid, waker_tid, context);
}

void host_wakeup(u64 now, struct task_struct *t)
{
	clock_ns = now;
	on_wakeup(t);
}

void host_new(u64 now, struct task_struct *t, u32 parent_tid)
{
	clock_ns = now;
	on_new_task(t, parent_tid, parent_tid);
}

void host_migrate(u64 now, u32 cpu, struct task_struct *t, u32 to_cpu)
{
	clock_ns = now;
	on_migrate(t, cpu, to_cpu);
}

void host_queued_at_start(u64 now, struct task_struct *t)
{
	clock_ns = now;
	on_queued_at_start(t);
}

u32 host_records(struct wait_record *out)
{
	memcpy(out, records, n_records * sizeof(*out));
	return n_records;
}

u64 host_counter(u32 cpu, u32 which)
{
	return cpus[cpu].counters[which];
}

u32 *host_interrupts(u32 cpu)
{
	return &cpus[cpu].interrupts;
}

/* The kernel's own tables, as user space maps them. */
struct histogram_slot *host_slots(void)
{
	return slots;
}

struct slot_owner *host_owners(void)
{
	return owners;
}

u32 host_states_used(void)
{
	u32 i, used = 0;

	for (i = 0; i < MAX_TASKS; i++)
		used += states[i].tid != 0;
	return used;
}

u32 host_bucket_of(u64 ns)
{
	return bucket_of(ns);
}
