// SPDX-License-Identifier: GPL-2.0
/*
 * What Python threads do when they leave a CPU, and at a timer: stack, trace id, and whether they
 * wait for the GIL. Nothing is put into the process; its memory is read while it is current.
 */
#include "kernel_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "allowance.h"
#include "python.h"
#include "task_values.h"

char LICENSE[] SEC("license") = "GPL";

const volatile struct python_config cfg = {};
#define CFG(field) (cfg.field)

#include "scratch.bpf.h"
#include "native_stack.bpf.h"
#include "task_tags.bpf.h"
#include "tasks.bpf.h"
#include "switch_state.h"
#include "python_state.bpf.h"
#include "python_trace.bpf.h"
#include "python_task.bpf.h"
#include "python_stack.bpf.h"
#include "python_calls.bpf.h"
#include "python_waits.bpf.h"

/* Only so that the object's BTF describes them. */
const struct python_wait *python_wait_layout;
const struct python_sample *python_sample_layout;
const struct python_name *python_name_layout;
const struct python_event *python_event_layout;
const enum python_counter *python_counter_layout;

/*
 * TASK_STOPPED, TASK_TRACED, TASK_FROZEN (include/linux/sched.h): by a signal, a debugger or a
 * cgroup's freezer. Whatever call it was in, it does not wait for that.
 */
#define TASK_STATES_STOPPED (0x4 | 0x8 | 0x8000)

/* Less of the stack than a call of the collector by what it frees has below it; more than lies
 * between two marked places within it. */
#define GC_CALL_BYTES 512

static __always_inline struct python_process *process_of(u32 pid)
{
	struct python_process *p = bpf_map_lookup_elem(&python_processes, &pid);

	return p && p->ready ? p : NULL;
}

static __always_inline bool maybe(struct python_maybe *m, u32 pid)
{
	return m->pid[pid & (PYTHON_MAYBE - 1)];
}

static __noinline struct python_thread *thread_of(u32 tid)
{
	struct python_thread *th = bpf_map_lookup_elem(&python_threads, &tid);
	u32 zero = 0;
	struct python_thread *fresh;

	if (th)
		return th;
	fresh = bpf_map_lookup_elem(&python_blank, &zero);
	if (!fresh)
		return NULL;
	bpf_map_update_elem(&python_threads, &tid, fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&python_threads, &tid);
}

static __always_inline bool leave_tag(u32 tid, struct task_tag *tag)
{
	struct task_tag *there = bpf_map_lookup_elem(&task_tags, &tid);

	if (!there)
		return !bpf_map_update_elem(&task_tags, &tid, tag, BPF_ANY);
	*there = *tag;
	return true;
}

static __always_inline void forget_thread(u32 pid, u32 tid)
{
	struct python_thread *th = bpf_map_lookup_elem(&python_threads, &tid);

	if (th)
		disown(th, pid, tid);
	bpf_map_delete_elem(&python_threads, &tid);
	bpf_map_delete_elem(&task_tags, &tid);
}

static __noinline int switched_out(struct task_struct *t, struct python_process *p, bool preempt,
				   u32 state)
{
	u32 tid = t->pid;
	u64 now = bpf_ktime_get_ns(), found;
	struct python_cpu *c = this_cpu();
	struct python_thread *th;
	struct task_tag tag = {};
	bool blocked = !preempt && state, waits = blocked && !(state & TASK_STATES_STOPPED);
	struct call call = {.number = -1};

	if (!p || !c)
		return 0;
	/* It runs no Python any more: what is left after python_exit would be another's. */
	if (t->flags & PF_NOT_IN_PROGRAM) {
		bpf_map_delete_elem(&task_tags, &tid);
		return 0;
	}
	count(c, PYTHON_SWITCHES);
	th = thread_of(tid);
	if (!th) {
		count(c, PYTHON_THREADS_LOST);
		return 0;
	}
	if (waits) {
		call_of(t, &call);
		follow_restart(th, &call);
	}
	found = thread_state(p, th, now);
	tag.reason = waits ? reason_of(&call, th) : REASON_NONE;
	th->depth = 0;
	if (stack_allowed(c, now)) {
		tag_stack(p, th, &tag);
		trace_ids(p, th, found, &tag);
	}
	if (!leave_tag(tid, &tag))
		count(c, PYTHON_THREADS_LOST);
	th->now_ns = now;
	th->call_argument = call.argument;
	th->preempted = !blocked;
	gil_out(p, th, &tag, found);
	loop_out(th, &tag, now, waits && th->frame && is_event_poll(call.number));
	th->out_ns = now;
	th->out_delay_ns = task_run_delay_ns(t);
	c->counters[PYTHON_NS] += bpf_ktime_get_ns() - now;
	return 0;
}

static __always_inline void on_switch(bool preempt, struct task_struct *prev,
				      struct task_struct *next, u32 state)
{
	u32 zero = 0, pid = prev->tgid, next_pid = next->tgid;
	struct python_maybe *m = bpf_map_lookup_elem(&python_maybe, &zero);

	if (!m)
		return;
	if (maybe(m, pid))
		switched_out(prev, process_of(pid), preempt, state);
	if (maybe(m, next_pid) && process_of(next_pid))
		switched_in(next);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(python_switch, bool preempt, struct task_struct *prev, struct task_struct *next,
	     unsigned int prev_state)
{
	on_switch(preempt, prev, next, state_at_switch(prev, prev_state));
	return 0;
}

SEC("?tp_btf/sched_switch")
int BPF_PROG(python_switch_before_5_18, bool preempt, struct task_struct *prev,
	     struct task_struct *next)
{
	on_switch(preempt, prev, next, task_state_now(prev));
	return 0;
}

/* Native stack of what the timer interrupted; kernel's for pid 0. Only samples use the buffer. */
static __noinline u64 sampled_stack(void *ctx, struct python_cpu *c, u32 pid)
{
	struct stack_record *stack = stack_buffer();
	s64 bytes;
	u64 id;

	if (!ctx || !c || !stack)
		return 0;
	bytes = bpf_get_stack(ctx, stack->addresses, sizeof(stack->addresses),
			      pid ? BPF_F_USER_STACK : 0);
	if (bytes <= 0)
		return 0;
	id = native_stack_intern(stack, pid, bytes / sizeof(u64));
	if (!id)
		count(c, PYTHON_NATIVE_LOST);
	return id;
}

SEC("perf_event")
int python_sample(void *ctx)
{
	u64 both = bpf_get_current_pid_tgid(), now = bpf_ktime_get_ns(), found, user, kernel = 0;
	u32 pid = both >> 32, tid = both;
	struct python_process *p = process_of(pid);
	struct python_cpu *c = this_cpu();
	struct python_sample *s;
	struct python_thread *th;
	struct task_tag tag = {};

	/* What is made of a thread after python_exit is never deleted. */
	if (!p || !c || bpf_get_current_task_btf()->flags & PF_NOT_IN_PROGRAM)
		return 0;
	th = thread_of(tid);
	if (!th)
		return 0;
	found = thread_state(p, th, now);
	tag_stack(p, th, &tag);
	trace_ids(p, th, found, &tag);
	if (th->loop_start_ns)
		th->loop_tag = tag;
	user = sampled_stack(ctx, c, pid);
	if (CFG(sample_kernel))
		kernel = sampled_stack(ctx, c, 0);
	s = bpf_ringbuf_reserve(&python_sample_ring, sizeof(*s), 0);
	if (!s) {
		count(c, PYTHON_SAMPLES_LOST);
		return 0;
	}
	s->ns = now;
	s->stack_user = user;
	s->stack_kernel = kernel;
	s->tid = tid;
	s->pid = pid;
	s->tag = tag;
	bpf_ringbuf_submit(s, BPF_RB_NO_WAKEUP);
	return 0;
}

/* Exact iterations of event loops, on request: these run at every system call of the machine. */
SEC("?tp_btf/sys_enter")
int BPF_PROG(python_sys_enter, struct pt_regs *regs, long id)
{
	u64 both = bpf_get_current_pid_tgid();
	u32 tid = both;
	struct python_thread *th;

	if (!is_event_poll(id) || !process_of(both >> 32))
		return 0;
	th = thread_of(tid);
	if (th)
		loop_end(th, bpf_ktime_get_ns());
	return 0;
}

SEC("?tp_btf/sys_exit")
int BPF_PROG(python_sys_exit, struct pt_regs *regs, long result)
{
	u64 both = bpf_get_current_pid_tgid();
	u32 tid = both;
	struct python_process *p = process_of(both >> 32);
	struct python_thread *th;

	if (!p || !is_event_poll(BPF_CORE_READ((struct pt_regs___x86 *)regs, orig_ax)))
		return 0;
	th = thread_of(tid);
	if (th && in_python(p, th))
		loop_begin(th, bpf_ktime_get_ns());
	return 0;
}

/*
 * The collector of the interpreter, where its file names it. What it frees may call it again, which
 * does nothing: that is deeper on the stack, by all that a call of Python takes.
 */
static __always_inline bool within_collection(struct python_thread *th, u64 stack)
{
	return th->gc_start_ns && stack + GC_CALL_BYTES < th->gc_stack;
}

SEC("uprobe")
int python_gc_begin(struct pt_regs___x86 *ctx)
{
	u64 both = bpf_get_current_pid_tgid();
	struct python_thread *th = process_of(both >> 32) ? thread_of((u32)both) : NULL;

	if (!th || within_collection(th, ctx->sp))
		return 0;
	th->gc_start_ns = bpf_ktime_get_ns();
	th->gc_stack = ctx->sp;
	th->gc_runq_ns = 0;
	th->gc_gil_ns = 0;
	return 0;
}

SEC("uretprobe")
int python_gc_end(struct pt_regs___x86 *ctx)
{
	u64 both = bpf_get_current_pid_tgid(), now = bpf_ktime_get_ns(), found;
	struct python_process *p = process_of(both >> 32);
	struct python_thread *th = p ? thread_of((u32)both) : NULL;
	struct task_tag tag = {};

	if (!th || !th->gc_start_ns || within_collection(th, ctx->sp))
		return 0;
	found = thread_state(p, th, now);
	tag_stack(p, th, &tag);
	trace_ids(p, th, found, &tag);
	tell_gc(th, &tag, now);
	th->gc_start_ns = 0;
	return 0;
}

static __always_inline void tell_event(u64 ns, u32 pid, u32 parent, u32 kind)
{
	struct python_event *e = bpf_ringbuf_reserve(&python_event_ring, sizeof(*e), 0);
	struct python_cpu *c = this_cpu();

	if (!e) {
		if (c)
			count(c, PYTHON_PROCESSES_LOST);
		return;
	}
	e->ns = ns;
	e->pid = pid;
	e->parent = parent;
	e->kind = kind;
	e->reserved = 0;
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

/* A child has its parent's memory, so what is known of that holds for it. */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(python_fork, struct task_struct *parent, struct task_struct *child)
{
	u32 parent_pid = parent->tgid, pid = child->tgid;
	u32 zero = 0;
	u64 now = bpf_ktime_get_ns();
	struct python_maybe *m = bpf_map_lookup_elem(&python_maybe, &zero);
	struct python_process *p;
	struct python_cpu *c = this_cpu();

	if (parent_pid == pid)
		return 0;
	p = bpf_map_lookup_elem(&python_processes, &parent_pid);
	if (!p || !m)
		return 0;
	m->pid[pid & (PYTHON_MAYBE - 1)] = 1;
	if (bpf_map_update_elem(&python_processes, &pid, p, BPF_ANY)) {
		if (c)
			count(c, PYTHON_PROCESSES_LOST);
		return 0;
	}
	p = bpf_map_lookup_elem(&python_processes, &pid);
	if (p)
		p->since_ns = now;
	tell_event(now, pid, parent_pid, PYTHON_FORK);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(python_exec, struct task_struct *t, int old_pid)
{
	u32 pid = t->tgid, old = old_pid;
	u64 now = bpf_ktime_get_ns();
	struct python_process *p = bpf_map_lookup_elem(&python_processes, &pid);

	if (!p)
		return 0;
	p->since_ns = now;
	p->ready = 0;
	forget_thread(pid, pid);
	forget_thread(pid, old);
	tell_event(now, pid, 0, PYTHON_EXEC);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(python_exit, struct task_struct *t)
{
	u32 pid = t->tgid, tid = t->pid;
	struct python_process *p = bpf_map_lookup_elem(&python_processes, &pid);
	struct python_thread *th = bpf_map_lookup_elem(&python_threads, &tid);

	if (th)
		gil_end(p, th);
	/* The first thread also ends when another becomes a new program: that is no end. */
	if (p && !UNTRUSTED(t)->signal->live.counter) {
		bpf_map_delete_elem(&python_processes, &pid);
		tell_event(bpf_ktime_get_ns(), pid, 0, PYTHON_EXIT);
	}
	/* Of two that end at once each may see the other gone; the first forgets the process. */
	if (th || p)
		forget_thread(pid, tid);
	return 0;
}
