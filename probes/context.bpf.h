/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Is a waker a task, or an interrupt that borrowed the task it interrupted? 85 % of wakes in a
 * load of sleepers come from a timer (measured), and blaming the interrupted task is wrong. The
 * preempt count would say, but not every kernel lets BPF find it, so each CPU notes what it is in.
 */
#ifndef SLTRACE_CONTEXT_BPF_H
#define SLTRACE_CONTEXT_BPF_H

enum interrupt {
	IN_HARDIRQ = 1,
	IN_SOFTIRQ = 2,
	IN_TIMER = 4,
};

static __always_inline int enter(enum interrupt which)
{
	struct cpu_state *c = cpu_find(bpf_get_smp_processor_id());

	if (c)
		c->interrupts |= which;
	return 0;
}

static __always_inline int leave(enum interrupt which)
{
	struct cpu_state *c = cpu_find(bpf_get_smp_processor_id());

	if (c)
		c->interrupts &= ~which;
	return 0;
}

static __always_inline u8 waker_context(struct cpu_state *c)
{
	if (c->interrupts & IN_HARDIRQ)
		return WAKER_HARDIRQ;
	/* Timers run in softirq too, if asked to. */
	if (c->interrupts & IN_SOFTIRQ)
		return WAKER_SOFTIRQ;
	if (c->interrupts & IN_TIMER)
		return WAKER_HARDIRQ;
	/* The idle task never wakes anyone by itself. */
	return (u32)bpf_get_current_pid_tgid() ? WAKER_TASK : WAKER_HARDIRQ;
}

SEC("tp_btf/irq_handler_entry")
int BPF_PROG(irq_handler_entry)
{
	return enter(IN_HARDIRQ);
}

SEC("tp_btf/irq_handler_exit")
int BPF_PROG(irq_handler_exit)
{
	return leave(IN_HARDIRQ);
}

SEC("tp_btf/softirq_entry")
int BPF_PROG(softirq_entry)
{
	return enter(IN_SOFTIRQ);
}

SEC("tp_btf/softirq_exit")
int BPF_PROG(softirq_exit)
{
	return leave(IN_SOFTIRQ);
}

SEC("tp_btf/hrtimer_expire_entry")
int BPF_PROG(hrtimer_expire_entry)
{
	return enter(IN_TIMER);
}

SEC("tp_btf/hrtimer_expire_exit")
int BPF_PROG(hrtimer_expire_exit)
{
	return leave(IN_TIMER);
}

#endif
