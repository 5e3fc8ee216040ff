/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the Python probes are told and hand over; user space takes these layouts from the object's
 * BTF. Times are nanoseconds of CLOCK_MONOTONIC.
 */
#ifndef SLTRACE_PYTHON_H
#define SLTRACE_PYTHON_H

#include "stack_record.h"
#include "task_tag.h"

/* One process with CPython in it: addresses in it, and offsets in bytes. */
struct python_process {
	u64 since_ns;     /* its fork or exec, as the event has it, or when it was first told of */
	u64 interpreters; /* address of the pointer to the first interpreter */
	u64 gil;          /* address of the GIL, of the main interpreter's from 3.12 on */
	u64 otel_var;     /* ContextVar of OpenTelemetry's context; 0: not known */
	u64 otel_key;     /* key of the span in such a context */
	u64 span_context; /* type of what holds the ids */
	u64 bitmap_node;  /* types of the nodes of a context's variables */
	u64 array_node;
	u64 record_var;    /* ContextVar of sltrace.otel; 0: not used */
	u64 current_tasks; /* dict of asyncio's running tasks by loop; 0: none */
	u64 text_type;     /* type str */
	s64 tls_offset;    /* of otel_thread_ctx_v1: from the thread pointer, or in its module */
	u32 tls_module;    /* 0: static */
	u32 otel_hash;
	u32 record_hash;
	u16 own_gil; /* of an interpreter: the pointer to its GIL; 0: they share one */
	u16 interpreter_next;
	u16 threads;
	u16 thread_next;
	u16 thread_id;
	u16 native_id; /* of a thread state: its thread in its own pid namespace; 0: before 3.11 */
	u16 context;
	u16 frame;
	u16 cframe_current;
	u16 frame_code;
	u16 back;
	u16 instr;
	u16 owner;
	u16 frame_bytes;
	u16 generator;    /* of a frame: pointer to its generator, or in that, to its frame */
	u16 running_task; /* of a thread state, from 3.14 on; 0: see current_tasks */
	u16 task_coro;    /* of an asyncio task; 0: not known */
	u16 task_name;
	u8 cframe;
	u8 skip_from;
	u8 instr_is_index;
	u8 tagged;
	u8 minor;
	u8 ready; /* the rest is filled in */
	u8 has_tls;
	u8 loops_behind; /* the record of a thread that runs an event loop may be another task's */
	u8 reserved[4];
};

#define PYTHON_MAYBE (1 << 15)

/* By the low bits of a pid: whether it may be of a process that is looked into, and how often user
 * space found other code where it knew some. */
struct python_maybe {
	u8 pid[PYTHON_MAYBE];
	u32 epoch[PYTHON_MAYBE];
};

#define PYTHON_DEPTH 128

struct python_frame {
	u64 code;
	u64 instr; /* address, or index of a code unit before 3.11 */
};

struct python_stack {
	u64 id; /* hash of the frames and the pid; never 0 */
	u32 pid;
	u32 depth;
	struct python_frame frames[PYTHON_DEPTH]; /* innermost first */
};

/* Numbers of sltrace.model.Kind */
enum python_wait_kind {
	PYTHON_STW = 5,
	PYTHON_GIL = 6,
	PYTHON_LOOP = 7,
};

struct python_wait {
	u64 end_ns;
	u64 wait_ns;
	u64 runq_ns; /* of it, runnable and without a CPU */
	u64 gil_ns;  /* of a loop's iteration or a collection, waiting for the GIL */
	u64 cgroup;
	u64 culprit_ns;
	u64 culprit_stack;
	u32 tid;
	u32 pid;
	u32 culprit_tid;
	u16 cpu;
	u8 kind;
	u8 culprit_others;
	u8 exact; /* of a loop: its system calls were seen */
	u8 reserved[7];
	struct task_tag tag;
};

struct python_sample {
	u64 ns;
	u64 stack_user; /* id of a struct stack_record; 0: none */
	u64 stack_kernel;
	u32 tid;
	u32 pid;
	struct task_tag tag;
};

enum python_event_kind {
	PYTHON_FORK = 1,
	PYTHON_EXEC = 2,
	PYTHON_EXIT = 3,
};

#define PYTHON_NAME_BYTES 48

/* A name that someone gave an asyncio task, handed over once. */
struct python_name {
	u32 id;
	u32 reserved;
	char text[PYTHON_NAME_BYTES]; /* ASCII, ends with a 0 */
};

struct python_event {
	u64 ns;
	u32 pid;
	u32 parent;
	u32 kind;
	u32 reserved;
};

/* One per CPU and name; docs/python.md says what each means. */
enum python_counter {
	PYTHON_SWITCHES,       /* switch-outs of Python processes */
	PYTHON_NS,             /* time spent in these probes for them */
	PYTHON_STACKS,         /* stacks taken */
	PYTHON_STACKS_CAPPED,  /* stacks not taken: over the rate */
	PYTHON_STACKS_CUT,     /* stacks deeper than the limit: the outermost frames are missing */
	PYTHON_STACKS_FAILED,  /* stacks that could not be read to their end */
	PYTHON_STACKS_LOST,    /* stacks that found no room in the ring, or to be put together */
	PYTHON_WAITS_LOST,     /* GIL waits and the like that found no room in the ring */
	PYTHON_SAMPLES_LOST,   /* CPU samples that found no room in the ring */
	PYTHON_NATIVE_LOST,    /* native stacks of CPU samples that found no room in the ring */
	PYTHON_NAMES_LOST,     /* stacks of tasks whose name is beyond the table */
	PYTHON_THREADS_LOST,   /* threads beyond the table */
	PYTHON_PROCESSES_LOST, /* child processes beyond the table */
	N_PYTHON_COUNTERS,
};

struct python_cpu {
	u64 counters[16];
	u64 paid_ns; /* until when the stacks so far are paid for */
	u64 reserved[15];
};

struct python_config {
	u32 stack_ns; /* between two stacks of a CPU, on average, at least; 0: no cap */
	u8 cgroup_v1;
	u8 loops;         /* the system calls of event loops are seen */
	u8 sample_kernel; /* CPU samples have kernel stacks, too */
	u8 reserved;
};

#endif
