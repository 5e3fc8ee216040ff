/* SPDX-License-Identifier: GPL-2.0 */
/* What the Go probes and their reader share. Offsets are in bytes, within the runtime's structs. */
#ifndef SLTRACE_GO_H
#define SLTRACE_GO_H

#include "task_tag.h"

#define GO_STW_HISTOGRAMS 4
#define GO_STW_TOTAL_GC   2 /* of these */
#define GO_STACK_DEPTH    64
#define GO_LABEL_BYTES    24
#define GO_LABEL_KEYS     4
#define GO_SLOTS          256 /* processes */

/* Where things are in one process. */
struct go_target {
	u64 time_to_run; /* address of the histogram of waits */
	u64 stw;         /* of the first of those of stopped worlds; 0: this version has none */
	u64 gc_pauses;   /* of the one that older versions have of the collector's; or 0 */
	s32 tls;         /* the current goroutine, from the thread pointer */
	u16 g_sched_bp;
	u16 g_status;
	u16 g_goid;
	u16 g_waitreason;
	u16 g_startpc;
	u16 g_lockedm;
	u16 g_labels;
	u16 m_curg;
	u16 m_p;
	u16 p_runqhead;
	u16 p_runnext;
	u16 span_context_at; /* in a span of the SDK; 0 until it was learned */
	u8 labels_are_map;
	u8 level;
	u8 switch_stacks;
	u32 slot;    /* of the tables by process, below GO_SLOTS */
	u32 number;  /* of all targets there were: what a process becomes by exec is another */
	u32 program; /* whose code is where its addresses say: what they mean */
};

/* Programs that run for a process. */
enum go_program {
	GO_AT_RECORD, /* on the runtime's histograms */
	GO_AT_TRACKED,
	GO_AT_EVERY,
	GO_AT_SPAN_BEGIN,
	GO_AT_SPAN_END,
	GO_AT_SWITCH, /* of one of its threads */
	GO_PROGRAMS,
};

/* How often each has run. */
struct go_runs {
	u64 of[GO_PROGRAMS];
};

struct go_label_key {
	char text[GO_LABEL_BYTES]; /* padded with zeros */
	u64 length;
};

struct go_config {
	struct go_label_key trace_keys[GO_LABEL_KEYS];
	struct go_label_key span_keys[GO_LABEL_KEYS];
	u8 cgroup_v1;
	u8 level; /* the highest of any process */
};

enum go_kind {
	GO_RUN = 1,       /* a goroutine got a P */
	GO_STW = 2,       /* the world was stopped; reason is the histogram's number */
	GO_RUN_EVERY = 3, /* a goroutine got a P, and each time one does is a record */
};

struct go_record {
	u64 end_ns;
	u64 wait_ns;
	u64 blocked_ns; /* before it, where level 2 saw it whole */
	u64 goid;
	u64 waker_goid;
	u64 pc; /* where the goroutine will go on: tells why it had stopped */
	u64 stack;
	u64 waker_stack;
	u64 cgroup;
	u32 pid;
	u32 tid;
	u32 target;
	u16 cpu;
	s16 prio;
	u8 policy;
	u8 kind;
	u8 reason;
	u8 locked; /* to its thread */
	struct task_tag tag;
};

struct go_stack {
	u64 id; /* hash of the addresses, the pid and the program; never 0 */
	u32 pid;
	u32 depth;
	u32 target;
	u32 program;
	u64 addresses[GO_STACK_DEPTH];
};

enum go_counter {
	GO_RECORDS,
	GO_ZEROS,      /* waits of 0 ns: the goroutine was never runnable */
	GO_UNSTAMPED,  /* waits of goroutines that had begun while nobody looked */
	GO_STRANGE,    /* histograms that are none of those known */
	GO_SPANS_FULL, /* spans that were not followed, as too many had not ended */
	GO_RING_FULL,
	GO_STACK_RING_FULL,
	GO_UNREADABLE, /* memory that was not in core */
	GO_TAGS_FULL,
	GO_SCRATCH_FULL, /* more probes at once on one CPU than there is room for */
	GO_COUNTERS,
};

#endif
