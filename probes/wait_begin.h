/* SPDX-License-Identifier: GPL-2.0 */
/* First waits: of tasks that come, and of those that are there when a recording begins. */
#ifndef SLTRACE_WAIT_BEGIN_H
#define SLTRACE_WAIT_BEGIN_H

#include "wait_state.h"
#include "wait_task.h"

/* A new task's first wakeup: forget whoever had this tid before. */
static __always_inline void on_new_task(struct task_struct *t, u32 parent_tid, u32 parent_pid)
{
	struct task_state *s;
	u64 now = now_ns();

	state_release(task_tid(t));
	s = state_claim(task_tid(t));
	if (!s || !selected(s, t))
		return;
	s->out_flags = FIRST_RUN;
	s->waking_ns = now;
	s->waker_tid = parent_tid;
	s->waker_pid = parent_pid;
	s->waker_context = WAKER_TASK;
	s->wakeup_ns = now;
	s->woken_exec_ns = task_exec_ns(t);
	start_queueing(s, t, now);
}

/* Queued, not running, when the recording started: its wait is longer than what will be seen. */
static __always_inline void on_queued_at_start(struct task_struct *t)
{
	struct task_state *s = state_claim(task_tid(t));
	u64 now = now_ns();

	if (!s || s->in_ns || s->out_ns || s->wakeup_ns || !selected(s, t))
		return;
	s->out_ns = now;
	s->exec_ns = task_exec_ns(t);
	s->out_cpu = task_cpu(t);
	s->out_runnable = RUNNABLE;
	s->out_flags = CENSORED;
	start_queueing(s, t, now);
}

#endif
