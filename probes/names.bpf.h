/* SPDX-License-Identifier: GPL-2.0 */
/* Names as tasks and cgroups come and go: rare events, on rings of their own. */
#ifndef SLTRACE_NAMES_BPF_H
#define SLTRACE_NAMES_BPF_H

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} task_ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} cgroup_ring SEC(".maps");

static __always_inline void count_here(enum counter what)
{
	struct cpu_state *c = cpu_find(bpf_get_smp_processor_id());

	if (c)
		__sync_fetch_and_add(&c->counters[what], 1);
}

static __always_inline void tell_thread(struct task_struct *t, u32 tid, u32 kind, const char *comm)
{
	struct task_event *e = bpf_ringbuf_reserve(&task_ring, sizeof(*e), 0);

	if (!e) {
		count_here(TASK_RING_FULL);
		return;
	}
	e->ns = now_ns();
	e->tid = tid;
	e->pid = t->tgid;
	e->ppid = task_ppid(t);
	e->kind = kind;
	__builtin_memset(e->comm, 0, sizeof(e->comm));
	bpf_probe_read_kernel_str(e->comm, sizeof(e->comm), comm);
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

static __always_inline void tell_task(struct task_struct *t, u32 kind, const char *comm)
{
	tell_thread(t, t->pid, kind, comm);
}

/* A thread that is not the first and execs has the first's number from then on. */
static __always_inline void give_up_number(struct task_struct *t, u32 before)
{
	if (before == t->pid)
		return;
	state_release(before);
	tell_thread(t, before, TASK_EXIT, t->comm);
}

static __always_inline void tell_cgroup(struct cgroup *g, u32 kind, const char *path)
{
	struct cgroup_event *e;

	if (g->root->hierarchy_id != CFG(hierarchy_id))
		return;
	e = bpf_ringbuf_reserve(&cgroup_ring, sizeof(*e), 0);
	if (!e) {
		count_here(CGROUP_RING_FULL);
		return;
	}
	e->ns = now_ns();
	e->id = g->kn->id;
	e->parent = g->self.parent ? g->self.parent->cgroup->kn->id : 0;
	e->kind = kind;
	e->reserved = 0;
	__builtin_memset(e->path, 0, sizeof(e->path));
	bpf_probe_read_kernel_str(e->path, sizeof(e->path), path);
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

#endif
