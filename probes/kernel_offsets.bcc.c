// SPDX-License-Identifier: GPL-2.0
/*
 * Where a kernel without BTF keeps the fields the BCC probes read, from its headers: each function
 * returns one offset. They are never run; the recorder reads the number off their code. Kept apart
 * from the probes because kernel headers take names such as task_cpu.
 */
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/cgroup-defs.h>
#include <linux/kernfs.h>
#include <linux/version.h>

#define OFFSET(name, type, field)                                                                  \
	int name(void *ctx)                                                                        \
	{                                                                                          \
		return offsetof(struct type, field);                                               \
	}

OFFSET(task_struct_pid, task_struct, pid)
OFFSET(task_struct_tgid, task_struct, tgid)
OFFSET(task_struct_comm, task_struct, comm)
OFFSET(task_struct_policy, task_struct, policy)
OFFSET(task_struct_prio, task_struct, prio)
OFFSET(task_struct_static_prio, task_struct, static_prio)
OFFSET(task_struct_real_parent, task_struct, real_parent)
OFFSET(task_struct_cgroups, task_struct, cgroups)
OFFSET(task_struct_signal, task_struct, signal)
OFFSET(signal_struct_live, signal_struct, live)
OFFSET(task_struct_se_sum_exec_runtime, task_struct, se.sum_exec_runtime)
#ifdef CONFIG_SMP
OFFSET(task_struct_on_cpu, task_struct, on_cpu)
#endif
OFFSET(css_set_dfl_cgrp, css_set, dfl_cgrp)
OFFSET(cgroup_kn, cgroup, kn)
OFFSET(cgroup_root, cgroup, root)
OFFSET(cgroup_self_parent, cgroup, self.parent)
OFFSET(cgroup_subsys_state_cgroup, cgroup_subsys_state, cgroup)
OFFSET(cgroup_root_hierarchy_id, cgroup_root, hierarchy_id)
OFFSET(kernfs_node_id, kernfs_node, id)

#ifdef CONFIG_CGROUP_SCHED
OFFSET(task_struct_sched_task_group, task_struct, sched_task_group)
/* struct task_group is in no header; it begins with its cgroup_subsys_state. */
OFFSET(task_group_css_cgroup, cgroup_subsys_state, cgroup)
#endif

/* 5.16 moved the CPU into thread_info (bcf9033e5449). */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 16, 0)
OFFSET(task_struct_thread_info_cpu, task_struct, thread_info.cpu)
#else
OFFSET(task_struct_cpu, task_struct, cpu)
#endif

/* 5.14 renamed it (2f064a59a11f). */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 14, 0)
OFFSET(task_struct___state, task_struct, __state)
#else
OFFSET(task_struct_state, task_struct, state)
#endif
