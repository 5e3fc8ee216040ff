/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the probes hand over and are told. The only definition: user space takes these layouts
 * from the built object's BTF. Times are nanoseconds of CLOCK_MONOTONIC.
 */
#ifndef SLTRACE_WAIT_RECORD_H
#define SLTRACE_WAIT_RECORD_H

#include "stack_record.h"
#include "task_tag.h"

/* Numbers of sltrace.model.Kind; the two MISSED are for the `missed` table. */
enum kind {
	RUNQ_WAKEUP = 0,
	RUNQ_PREEMPT = 1,
	THROTTLED = 2,
	BLOCKED = 3,
	N_KINDS = 4,
	MISSED_HOLE = 16,
	MISSED_UNSTAMPED = 17,
};

/* sltrace.model.Flag */
enum wait_flag {
	CENSORED = 1,
	FIRST_RUN = 2,
	MIGRATED_QUEUED = 4,
	CULPRIT_PARTIAL = 8,
	YIELDED = 16,
	FOREIGN_WAKE = 32,
	MOVED_ASLEEP = 64,
};

/* sltrace.model.WakerContext */
enum waker_context {
	WAKER_NONE = 0,
	WAKER_TASK = 1,
	WAKER_SOFTIRQ = 2,
	WAKER_HARDIRQ = 3,
};

/*
 * One switch-in: the task's whole time off the CPU, cut into the parts that become rows of the
 * waits table. For MISSED_*: runq_ns is the lower and wake_ns the upper bound of the wait.
 */
struct wait_record {
	u64 end_ns;
	u64 blocked_ns;   /* switch-out to wakeup; 0 where there was none */
	u64 runq_ns;      /* runnable to running, throttled_ns within */
	u64 throttled_ns; /* the cgroup's quota was used up */
	u64 wake_ns;      /* waker's call to running; 0 where not seen */
	u64 cgroup;
	u64 culprit_cgroup;
	u64 culprit_ns;
	u32 tid;
	u32 pid;
	u32 waker_tid;
	u32 waker_pid;
	u32 culprit_tid;
	u32 culprit_pid;
	u16 cpu;
	u16 prev_cpu;
	s16 prio;
	s8 nice;
	u8 policy;
	u16 state;
	u8 kind;
	u8 waker_context;
	u8 culprit_others;
	u8 culprit_known;
	u8 flags;
	u8 reserved;
	/* Zero when no stacks are asked for, and not handed over. */
	u64 stack_kernel;
	u64 stack_user;
	u64 waker_stack_kernel;
	u64 waker_stack_user;
	/* Zero until a runtime is looked into. */
	struct task_tag tag;
};

enum task_event_kind {
	TASK_FORK = 1,
	TASK_EXEC = 2,
	TASK_RENAME = 3,
	TASK_EXIT = 4,          /* others of its process go on, or one of them execs */
	TASK_SEEN = 5,          /* was there when the recording started */
	TASK_EXEC_RECORDED = 6, /* exec of a task that passes the filters */
	TASK_EXIT_LAST = 7,     /* its process ends with it */
};

struct task_event {
	u64 ns;
	u32 tid;
	u32 pid;
	u32 ppid;
	u32 kind;
	char comm[16];
};

enum cgroup_event_kind {
	CGROUP_MKDIR = 1,
	CGROUP_RMDIR = 2,
	CGROUP_RENAME = 3,
};

struct cgroup_event {
	u64 ns;
	u64 id;
	u64 parent;
	u32 kind;
	u32 reserved;
	char path[512];
};

/* One per CPU and name; docs/measured.md says what each means. */
enum counter {
	SWITCHES,         /* context switches seen */
	RECORDS,          /* switch-ins handed over */
	BELOW_MIN,        /* switch-ins under the minimum latency */
	RING_FULL,        /* records lost: the ring had no room */
	HOLES,            /* gaps in the switches of a CPU */
	SWITCHES_LOST,    /* switches within them that were not seen */
	UNSTAMPED,        /* a switch-in whose wait had no start */
	STATE_LOST,       /* no room to remember a task */
	CLOCK_BACKWARDS,  /* a wait that ended before it began */
	SLOTS_FULL,       /* waits that no histogram slot of their own was free for */
	STACKS_CAPPED,    /* stacks not taken: over the rate */
	STACKS_FAILED,    /* stacks the kernel could not walk */
	STACK_RING_FULL,  /* stacks lost: the ring had no room */
	TASK_RING_FULL,   /* task names lost: the ring had no room */
	CGROUP_RING_FULL, /* cgroup names lost: the ring had no room */
	NOT_FOLLOWED,     /* children and new cgroups that the filters have no room for */
	N_COUNTERS,
};

/*
 * Log-linear: 16 ns steps below 128 ns, then 8 steps per power of two; the last takes the rest.
 * User space maps the slots and diffs them. Counts wrap at 2^32.
 */
#define N_BUCKETS   252
#define LINEAR_BITS 7
#define SUB_BITS    3

struct histogram {
	u64 sum_ns;
	u32 count[N_BUCKETS];
};

struct histogram_slot {
	struct histogram kinds[N_KINDS];
};

/*
 * A CPU takes a free slot; user space retires one that is not counted in any more, reads it once
 * again when whoever was counting has long ended, and frees it.
 */
enum slot_use { SLOT_FREE = 0, SLOT_USED = 1, SLOT_RETIRED = 2 };

/* Whose waits a slot counts, of the CPU that it belongs to. */
struct slot_owner {
	u64 cgroup;
	u32 policy;
	u32 use; /* enum slot_use */
};

/* What user space tells the probes before they are loaded. */
struct config {
	u64 start_ns; /* when the recording began */
	u64 min_latency_ns;
	u64 stack_min_ns;
	u32 stack_ns;  /* between two stacks of a CPU, on average, at least; 0: no cap */
	u32 task_mask; /* slots of the task table - 1 */
	u32 slot_mask; /* histogram slots of a CPU - 1 */
	u32 ring_mask; /* records of a CPU's ring - 1 */
	u32 policies;  /* bit per SCHED_*; 0: all */
	u8 filter_pids;
	u8 filter_cgroups;
	u8 filter_comms;
	u8 filter_cpus;
	u8 histogram_only;
	u8 stack_kernel;
	u8 stack_user;
	u8 stack_waker;
	u8 blocked; /* blocked time is wanted */
	u8 cgroup_v1;
	u8 tags; /* a runtime may be looked into */
	u8 reserved;
	u32 hierarchy_id; /* of the cgroup tree that ids are from */
};

#endif
