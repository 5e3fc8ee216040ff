/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a thread was working on when it last left a CPU: written at switch-out by the programs
 * that look into a runtime, copied at the next switch-in to the record of the wait. Included by
 * every object; they share the one map, which user space makes.
 */
#ifndef SLTRACE_TASK_TAG_H
#define SLTRACE_TASK_TAG_H

/* sltrace.model.IdSource */
enum id_source {
	ID_NONE = 0,
	ID_PPROF_LABELS = 1,
	ID_OTEL_SDK = 2,
	ID_CONTEXTVARS = 3,
	ID_THREAD_CONTEXT = 4,
	ID_OBI = 5,
};

/* sltrace.model.Reason: what a thread that blocked was waiting for, where a runtime knows. */
enum wait_reason {
	REASON_NONE = 0,
	REASON_GIL = 1,     /* Python's global interpreter lock */
	REASON_LOCK = 2,    /* a futex */
	REASON_SLEEP = 3,   /* a time */
	REASON_POLL = 4,    /* one of many files, or a time */
	REASON_IO = 5,      /* one file, pipe or socket */
	REASON_PROCESS = 6, /* the end of a child */
	REASON_FAULT = 7,   /* a page of memory */
	REASON_SIGNAL = 8,  /* a signal, or a time */
	REASON_MEMORY = 9,  /* the address space, which other threads change, too */
};

struct task_tag {
	u8 trace_id[16];
	u8 span_id[8];
	u64 goid;          /* 0: none */
	u64 stack_runtime; /* id of its Go or Python stack; 0: none */
	u8 id_source;
	u8 reason;     /* enum wait_reason; of the blocked part of the wait only */
	u16 task_name; /* number of the name someone gave its asyncio task; 0: none */
	u16 held_p;    /* number of the Go P it held, plus 1; 0: none */
	u16 queued;    /* goroutines queued behind that P */
};

#endif
