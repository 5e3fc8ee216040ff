/* SPDX-License-Identifier: GPL-2.0 */
/* What the probes remember between two events: of a task, and of a CPU. */
#ifndef SLTRACE_WAIT_STATE_H
#define SLTRACE_WAIT_STATE_H

#include "wait_record.h"
#include "task_values.h"

/*
 * What a CPU remembers of who ran: its last SEGMENTS run segments one by one, and before those
 * blocks of BLOCK_SEGMENTS, of each the CANDIDATES that ran most. All powers of two.
 */
#define SEGMENTS       512
#define BLOCK_SEGMENTS 64
#define BLOCKS         64
#define CANDIDATES     4

/* How many of them a search looks at. The newest blocks cover what it has seen by segment. */
#ifndef SEARCH_SEGMENTS
#define SEARCH_SEGMENTS SEGMENTS
#define SEARCH_BLOCKS   (BLOCKS - SEGMENTS / BLOCK_SEGMENTS)
#endif

/* How many tasks are told apart while what they ran is added up. Powers of two. */
#ifndef TALLY_SETS
#define TALLY_SETS 32
#define TALLY_WAYS 4
#endif

#define CLOCK_HOLDS_NS 4000000 /* for so long a comparison of clocks is good to 2 us */

/*
 * Whether a task could run when it was switched out. What it waits from then on is not followed
 * where it was not asked for, but how long it was away bounds that if it is asked for by the end.
 */
enum runnable { NOT_RUNNABLE = 0, RUNNABLE = 1, RUNNABLE_UNASKED = 2 };

enum selection { UNDECIDED = 0, SELECTED = 1, REJECTED = 2 };

struct task_state {
	u32 tid; /* owner of the slot; 0: free */
	u8 selection;
	u8 out_runnable; /* enum runnable */
	u8 out_flags;
	u8 waker_context;
	u64 in_ns;
	u64 out_ns;
	u64 waking_ns;
	u64 wakeup_ns;
	u64 queued_ns;     /* since when on the present CPU's queue */
	u64 exec_ns;       /* CPU time used, when last seen to get or lose a CPU */
	u64 woken_exec_ns; /* the same at the last wakeup */
	u64 run_delay_ns;  /* task_run_delay_ns when last seen to lose a CPU */
	u64 throttle_mark; /* throttle_clock when it joined the present queue */
	u64 quota_of;      /* quota_group then */
	u64 throttled_ns;  /* collected on earlier queues of this wait */
	u32 waker_tid;
	u32 waker_pid;
	u16 out_cpu;
	u16 out_state;
	u32 slot;        /* the histogram slot of its last wait, if it is still this task's */
	u32 culprit_tid; /* the best candidate of earlier queues of this wait */
	u32 culprit_pid;
	u8 culprit_others;
	u8 culprit_known;
	u8 culprit_flags;
	u8 reserved;
	u64 culprit_ns;
	u64 culprit_cgroup;
	u64 decided_cgroup;  /* where it was when `selection` was decided */
	u64 decided_comm[2]; /* and what it was called */
	u64 stack_user;
	u64 waker_stack_kernel;
	u64 waker_stack_user;
};

struct segment {
	u64 start_ns;
	u64 cgroup;
	u32 tid;
	u32 pid;
};

struct candidate {
	u64 ns;
	u64 cgroup;
	u32 tid;
	u32 pid;
};

/* What each of many tasks ran. Its tid says in which set a task has a place. */
struct tally {
	u64 round; /* places of other rounds are free */
	u64 most_ns;
	u32 most;  /* whose place it is */
	u32 tasks; /* how many have a place; more, if some had none */
	struct tally_place {
		struct candidate ran;
		u64 round;
	} places[TALLY_SETS * TALLY_WAYS];
};

struct block {
	u64 start_ns;
	u64 others; /* whether more than CANDIDATES ran */
	struct candidate candidates[CANDIDATES];
};

/* A search for a culprit under way, kept here and not in registers: see FRESH. */
struct search {
	u64 from;
	u64 end;    /* all after it has been looked at */
	u64 unseen; /* of the time searched, what no task was found for */
	u64 others; /* whether some ran that the blocks do not name */
	struct tally tally;
};

/*
 * Each kind has its own part of the cap: user stacks and wakers' are taken before it is known
 * whether the wait is long enough, and would leave nothing for the others.
 */
enum stack_kind { OWN_KERNEL, OWN_USER, WAKER_KERNEL, WAKER_USER, STACK_KINDS };

struct cpu_state {
	u64 last_ns; /* of the last switch seen, and the kernel's number for it */
	u64 switch_no;
	u64 clock_ns;                    /* the queue's, when last compared with CLOCK_MONOTONIC */
	u64 clock_ahead_ns;              /* by how much that was ahead */
	u64 stacks_paid_ns[STACK_KINDS]; /* until when those so far are paid for */
	u32 head;                        /* segments written so far */
	u32 seen;
	u32 interrupts; /* enum interrupt: what this CPU is in */
	u32 concerned;  /* whether the switch under way is of a task that is asked for */
	u64 counters[N_COUNTERS];
	struct search search;
	struct segment segments[SEGMENTS];
	struct tally block; /* of the segments since the last of the blocks */
	struct block blocks[BLOCKS];
};

static __always_inline u64 at_least_zero(s64 ns)
{
	return ns > 0 ? ns : 0;
}

static __always_inline u64 latest(u64 a, u64 b)
{
	return a > b ? a : b;
}

static __always_inline u64 least(u64 a, u64 b)
{
	return a < b ? a : b;
}

static __always_inline void count(struct cpu_state *c, enum counter what)
{
	c->counters[what]++;
}

/*
 * Compiles to shifts and masks. With branches the verifier would follow 64 paths for each of the
 * three histogram updates of a switch.
 */
static __always_inline u32 floor_log2(u64 v)
{
	return 63 - __builtin_clzll(v);
}

/* Same function as sltrace.buckets.bucket_of. */
static __always_inline u32 bucket_of(u64 ns)
{
	u32 log, index;

	if (ns < (1 << LINEAR_BITS))
		return ns >> (LINEAR_BITS - SUB_BITS);
	log = floor_log2(ns);
	index = ((log - LINEAR_BITS + 1) << SUB_BITS) +
		((ns >> (log - SUB_BITS)) & ((1 << SUB_BITS) - 1));
	return index < N_BUCKETS ? index : N_BUCKETS - 1;
}

#endif
