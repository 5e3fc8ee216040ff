// SPDX-License-Identifier: GPL-2.0
/*
 * What goroutines wait for: probes within the Go runtime, and the goroutine of each thread that
 * loses its CPU. Go's own calling convention: arguments in RAX, RBX, RCX; the running goroutine
 * in R14, which within the scheduler is the thread's own, g0.
 */
#include "kernel_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "go.h"
#include "task_values.h"
#include "scratch.bpf.h"
#include "task_tags.bpf.h"

char LICENSE[] SEC("license") = "GPL";

#define G_RUNNABLE      1
#define G_RUNNING       2
#define G_SYSCALL       3
#define G_WAITING       4
#define HISTOGRAM_BYTES 1296

/* User space's registers as a uprobe sees them: uapi/asm/ptrace.h. */
struct pt_regs {
	u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs,
	    flags, sp, ss;
};

struct thread_struct {
	u64 fsbase;
} __attribute__((preserve_access_index));

struct task_struct___thread {
	struct thread_struct thread;
} __attribute__((preserve_access_index));

#include "go_state.bpf.h"
#include "task_cgroup.bpf.h"
#include "go_stack.bpf.h"
#include "go_tracked.bpf.h"
#include "go_spans.bpf.h"

/* Only so that the object's BTF describes them. */
const struct go_record *go_record_layout;
const struct go_stack *go_stack_layout;
const enum go_counter *go_counter_layout;
const enum go_program *go_program_layout;

static __always_inline struct go_record *record_reserve(const struct go_target *target, u64 wait_ns,
							u8 kind)
{
	struct task_struct *t = (void *)bpf_get_current_task_btf();
	u64 id = bpf_get_current_pid_tgid();
	struct go_record *r = bpf_ringbuf_reserve(&go_ring, sizeof(*r), 0);

	if (!r) {
		count(GO_RING_FULL);
		return NULL;
	}
	__builtin_memset(r, 0, sizeof(*r));
	r->end_ns = bpf_ktime_get_ns();
	r->wait_ns = wait_ns;
	r->kind = kind;
	r->pid = id >> 32;
	r->tid = id;
	r->target = target->number;
	r->cpu = bpf_get_smp_processor_id();
	r->cgroup = task_cgroup(t);
	r->prio = t->prio;
	r->policy = t->policy;
	count(GO_RECORDS);
	return r;
}

static __always_inline void record_fill(const struct go_target *t, struct go_scratch *s, u64 g,
					struct go_record *r)
{
	struct go_goroutine *read = &s->goroutine;

	r->goid = field_of(read, t->g_goid);
	r->pc = field_of(read, G_SCHED_PC);
	r->locked = field_of(read, t->g_lockedm) != 0;
	r->reason = field_of(read, t->g_waitreason);
	labels_take(t, field_of(read, t->g_labels), &s->bucket, &r->tag);
	span_take(t, r->goid, &r->tag);
	if (at_level(t, LEVEL_TRACKED)) {
		r->stack = stack_of(t, s, r->pid);
		take_tracked(t, r, g);
	} else {
		/* Only its function, which begins there: other addresses are behind a call. */
		s->stack.addresses[0] = field_of(read, t->g_startpc) + 1;
		r->stack = stack_intern(t, &s->stack, r->pid, 1);
	}
}

static __always_inline void record_run(const struct go_target *t, u64 g, u64 wait_ns, u8 kind)
{
	struct go_scratch *s = g ? scratch_take() : NULL;
	struct go_record *r;

	if (!s)
		return;
	if (bpf_probe_read_user(&s->goroutine, sizeof(s->goroutine), (void *)g)) {
		count(GO_UNREADABLE);
	} else if ((r = record_reserve(t, wait_ns, kind))) {
		record_fill(t, s, g, r);
		bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
	}
	scratch_release(s);
}

/* runtime.(*timeHistogram).record: a wait of a goroutine, or a stopped world. */
SEC("uprobe")
int go_record_hit(struct pt_regs *ctx)
{
	struct go_target *t = target_at(bpf_get_current_pid_tgid() >> 32, GO_AT_RECORD);
	u64 histogram = ctx->ax, wait_ns = ctx->bx, number = GO_STW_HISTOGRAMS;
	struct go_record *r;

	if (!t || (s64)wait_ns < 0)
		return 0;
	if (histogram == t->time_to_run) {
		if (at_level(t, LEVEL_EVERY))
			return 0;
		if (!wait_ns)
			count(GO_ZEROS);
		else
			record_run(t, word_at(word_at(ctx->r14 + G_M) + t->m_curg), wait_ns,
				   GO_RUN);
		return 0;
	}
	if (histogram == t->gc_pauses)
		number = GO_STW_TOTAL_GC;
	else if (t->stw && histogram >= t->stw)
		number = (histogram - t->stw) / HISTOGRAM_BYTES;
	if (number >= GO_STW_HISTOGRAMS) {
		count(GO_STRANGE);
		return 0;
	}
	r = record_reserve(t, wait_ns, GO_STW);
	if (r) {
		r->reason = number;
		bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
	}
	return 0;
}

/* In runtime.casgstatus, where tracked goroutines come, one in 8, but none that was runnable. */
SEC("uprobe")
int go_tracked_hit(struct pt_regs *ctx)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct go_target *t = target_at(pid, GO_AT_TRACKED);
	struct tracked fresh = {}, *seen;
	struct tracked_key key = {};
	struct {
		u64 g;
		u32 from;
		u32 to;
	} change;

	if (!t)
		return 0;
	/* The arguments, in the caller's frame: over the saved frame pointer and return address. */
	if (bpf_probe_read_user(&change, sizeof(change), (void *)(ctx->bp + 16))) {
		count(GO_UNREADABLE);
		return 0;
	}
	key.g = change.g;
	key.target = t->number;
	if (change.from == G_RUNNING && change.to == G_WAITING) {
		fresh.blocked_at = bpf_ktime_get_ns();
		bpf_map_update_elem(&go_tracked, &key, &fresh, BPF_ANY);
		return 0;
	}
	if (change.from != G_WAITING || change.to != G_RUNNABLE)
		return 0;
	seen = bpf_map_lookup_elem(&go_tracked, &key);
	if (!seen)
		return 0;
	take_ready(t, key.g, pid, seen, ctx, true);
	return 0;
}

/* runtime.casgstatus: a goroutine, its old state and its new one. Any, not one in 8. */
SEC("uprobe")
int go_every_hit(struct pt_regs *ctx)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32, from = ctx->bx, to = ctx->cx;
	struct tracked_key key = {.g = ctx->ax};
	struct go_target *t = target_at(pid, GO_AT_EVERY);
	struct tracked fresh = {}, *seen;
	u64 since;

	if (!t)
		return 0;
	key.target = t->number;
	if (from == G_RUNNING && to == G_WAITING) {
		fresh.blocked_at = bpf_ktime_get_ns();
		bpf_map_update_elem(&go_tracked, &key, &fresh, BPF_ANY);
	} else if (to == G_RUNNABLE) {
		seen = from == G_WAITING ? bpf_map_lookup_elem(&go_tracked, &key) : NULL;
		if (seen) {
			take_ready(t, key.g, pid, seen, ctx, false);
		} else {
			fresh.ready_at = bpf_ktime_get_ns();
			bpf_map_update_elem(&go_tracked, &key, &fresh, BPF_ANY);
		}
	} else if (from == G_RUNNABLE && to == G_RUNNING) {
		seen = bpf_map_lookup_elem(&go_tracked, &key);
		since = on_since(t);
		if (seen && since && seen->ready_at >= since)
			record_run(t, key.g, bpf_ktime_get_ns() - seen->ready_at, GO_RUN_EVERY);
		else
			count(GO_UNSTAMPED);
	}
	return 0;
}

/* newRecordingSpan of the SDK, by the goroutine that begins the span. */
SEC("uprobe")
int go_span_begin_hit(struct pt_regs *ctx)
{
	struct go_target *t = target_at(bpf_get_current_pid_tgid() >> 32, GO_AT_SPAN_BEGIN);

	if (t)
		span_begin(t, word_at(ctx->r14 + t->g_goid), ctx->sp);
	return 0;
}

/* (*recordingSpan).End: the span in RAX. */
SEC("uprobe")
int go_span_end_hit(struct pt_regs *ctx)
{
	struct go_target *t = target_at(bpf_get_current_pid_tgid() >> 32, GO_AT_SPAN_END);
	struct span_context own;
	struct go_scratch *s;

	if (!t)
		return 0;
	if (!t->span_context_at && (s = scratch_take())) {
		t->span_context_at = span_learn(t, s, ctx->ax, word_at(ctx->r14 + t->g_goid));
		scratch_release(s);
	}
	if (!t->span_context_at)
		return 0;
	if (bpf_probe_read_user(&own, sizeof(own), (void *)(ctx->ax + t->span_context_at)))
		count(GO_UNREADABLE);
	else
		span_end(t, &own);
	return 0;
}

/* How many goroutines are queued behind a P. */
static __always_inline u32 queued_on(const struct go_target *t, u64 p)
{
	u32 queue[2] = {}, length;

	bpf_probe_read_user(queue, sizeof(queue), (void *)(p + t->p_runqhead));
	length = queue[1] - queue[0];
	return (length <= 256 ? length : 0) + (word_at(p + t->p_runnext) != 0);
}

/* The goroutine, P and trace of a thread that leaves its CPU: what its next wait is about. */
SEC("tp_btf/sched_switch")
int BPF_PROG(go_switch, bool preempt, struct task_struct *prev)
{
	struct task_struct___thread *thread = (void *)prev;
	struct go_target *t = target_of(prev->tgid);
	struct task_tag tag = {};
	struct go_scratch *s;
	u64 g, m, p, curg;
	u32 tid = prev->pid;
	long bytes;

	/* What is left after go_exit would be another thread's. */
	if (!t || prev->flags & PF_NOT_IN_PROGRAM)
		return 0;
	count_run(t, GO_AT_SWITCH);
	/* The kernel's copy is right: Go never sets the register itself. */
	g = word_at(thread->thread.fsbase + t->tls);
	m = g ? word_at(g + G_M) : 0;
	curg = m ? word_at(m + t->m_curg) : 0;
	s = curg ? scratch_take() : NULL;
	if (s) {
		tag.goid = word_at(curg + t->g_goid);
		labels_take(t, word_at(curg + t->g_labels), &s->bucket, &tag);
		span_take(t, tag.goid, &tag);
	}
	p = m ? word_at(m + t->m_p) : 0;
	/* In a system call it keeps its P only until another thread wants it. */
	if (curg && (word_at(curg + t->g_status) & 0xfff) == G_SYSCALL)
		p = 0;
	if (p) {
		u32 id = 0;

		bpf_probe_read_user(&id, sizeof(id), (void *)p);
		tag.held_p = id + 1;
		tag.queued = queued_on(t, p);
	}
	if (s && t->switch_stacks) {
		bytes = bpf_get_stack(ctx, s->stack.addresses, sizeof(s->stack.addresses),
				      BPF_F_USER_STACK);
		if (bytes > 0)
			tag.stack_runtime =
			    stack_intern(t, &s->stack, prev->tgid, bytes / sizeof(u64));
	}
	if (s)
		scratch_release(s);
	if (bpf_map_update_elem(&task_tags, &tid, &tag, BPF_ANY))
		count(GO_TAGS_FULL);
	return 0;
}

/* A thread's number is used again; a process's target is that of its program. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(go_exit, struct task_struct *t)
{
	u32 tid = t->pid, pid = t->tgid;

	bpf_map_delete_elem(&task_tags, &tid);
	/* The first thread also ends when another becomes a new program. */
	if (!UNTRUSTED(t)->signal->live.counter)
		bpf_map_delete_elem(&go_targets, &pid);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(go_exec, struct task_struct *t, int old_pid)
{
	u32 pid = t->tgid, old = old_pid;

	if (!bpf_map_delete_elem(&go_targets, &pid)) {
		bpf_map_delete_elem(&task_tags, &pid);
		bpf_map_delete_elem(&task_tags, &old);
	}
	return 0;
}
