/* SPDX-License-Identifier: GPL-2.0 */
/* Values of tasks, and of records about them, that more than one object needs. */
#ifndef SLTRACE_TASK_VALUES_H
#define SLTRACE_TASK_VALUES_H

/* TASK_DEAD: the last switch-out; and, set before that, exiting (include/linux/sched.h). */
#define TASK_STATE_DEAD 0x80
#define PF_EXITING      0x4

/* Far above any wait, far below an overflow. */
#define UNKNOWN_WAIT (1ULL << 62)

/* How far culprit_others of a record counts. */
#define MAX_OTHERS 4

#endif
