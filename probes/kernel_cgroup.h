/* SPDX-License-Identifier: GPL-2.0 */
/* The fields of cgroups that the probes name, for kernel_types.h and its twin for BCC. */
#ifndef SLTRACE_KERNEL_CGROUP_H
#define SLTRACE_KERNEL_CGROUP_H

struct kernfs_node {
	u64 id;
};

struct cgroup_root {
	int hierarchy_id;
};

struct cgroup;

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};

struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
	struct cgroup_root *root;
};

#endif
