/* SPDX-License-Identifier: GPL-2.0 */
/* Values of tasks, and of records about them, that more than one object needs. */
#ifndef SLTRACE_TASK_VALUES_H
#define SLTRACE_TASK_VALUES_H

/* TASK_DEAD: the last switch-out; and, set before that, exiting (include/linux/sched.h). */
#define TASK_STATE_DEAD 0x80
#define PF_EXITING      0x4

/*
 * Tasks of a process, with its memory and a copy of their creator's thread pointer, that never run
 * its code: of io_uring, since 5.12, and of vhost, since 6.4 (0x4000 was of module loaders until
 * 5.17).
 */
#define PF_IO_WORKER   0x10
#define PF_USER_WORKER 0x4000

/* What the memory of its process says of its threads is not of a task with any of these. */
#define PF_NOT_IN_PROGRAM (PF_EXITING | PF_IO_WORKER | PF_USER_WORKER)

/* Far above any wait, far below an overflow. */
#define UNKNOWN_WAIT (1ULL << 62)

/* How far culprit_others of a record counts. */
#define MAX_OTHERS 4

#endif
