/* SPDX-License-Identifier: GPL-2.0 */
/* Whether a task that is switched out sleeps. Needs task_state_now of tasks.bpf.h or .bcc.h. */
#ifndef SLTRACE_SWITCH_STATE_H
#define SLTRACE_SWITCH_STATE_H

/*
 * What the event says (5.18 on), or 0 for a task that a signal kept from sleeping: up to 6.15 the
 * event says of it what it was about to do (8feb053d5319), and no wakeup follows. Its state is 0
 * then, as the scheduler has made it. Of one that sleeps it cannot be 0: who wakes it sets that
 * only once this CPU has left it, or with this queue's lock, which the event is told under.
 */
static __always_inline u32 state_at_switch(struct task_struct *t, u32 told)
{
	return task_state_now(t) ? told : 0;
}

#endif
