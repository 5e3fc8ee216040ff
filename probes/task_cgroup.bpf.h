/* SPDX-License-Identifier: GPL-2.0 */
/* The cgroup a task counts for. CFG(cgroup_v1) says in which hierarchy. */
#ifndef SLTRACE_TASK_CGROUP_BPF_H
#define SLTRACE_TASK_CGROUP_BPF_H

#include "untrusted.bpf.h"

/*
 * In the v1 `cpu` tree through the task's group, as the default tree has every task at its root
 * there. An autogroup has no cgroup: its tasks are in the root, whose id is 1.
 */
static __always_inline u64 task_cgroup(struct task_struct *t)
{
	u64 id;

	if (CFG(cgroup_v1))
		id = UNTRUSTED(t)->sched_task_group->css.cgroup->kn->id;
	else
		id = UNTRUSTED(t)->cgroups->dfl_cgrp->kn->id;
	return id ? id : 1;
}

#endif
