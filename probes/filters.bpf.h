/* SPDX-License-Identifier: GPL-2.0 */
/* Which tasks are asked for. Decided once per task and kept in its state. */
#ifndef SLTRACE_FILTERS_BPF_H
#define SLTRACE_FILTERS_BPF_H

struct comm {
	char name[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, u32);
	__type(value, u8);
} wanted_pids SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, u64);
	__type(value, u8);
} wanted_cgroups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct comm);
	__type(value, u8);
} wanted_comms SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u8);
} wanted_cpus SEC(".maps");

static __always_inline bool task_matches(struct task_struct *t)
{
	if (CFG(filter_pids)) {
		u32 pid = t->tgid;

		if (!bpf_map_lookup_elem(&wanted_pids, &pid))
			return false;
	}
	if (CFG(filter_cgroups)) {
		u64 cgroup = task_cgroup(t);

		if (!bpf_map_lookup_elem(&wanted_cgroups, &cgroup))
			return false;
	}
	if (CFG(filter_comms)) {
		struct comm comm = {};

		/* Reads to the terminator: bytes after it are left over from longer names. */
		bpf_probe_read_kernel_str(comm.name, sizeof(comm.name), t->comm);
		if (!bpf_map_lookup_elem(&wanted_comms, &comm))
			return false;
	}
	return true;
}

static __always_inline bool cpu_matches(u32 cpu)
{
	u8 *wanted = bpf_map_lookup_elem(&wanted_cpus, &cpu);

	return wanted && *wanted;
}

static __always_inline void not_followed(void)
{
	struct cpu_state *c = cpu_find(bpf_get_smp_processor_id());

	if (c)
		count(c, NOT_FOLLOWED);
}

/* A child process of a wanted one is wanted; its threads share the pid. */
static __always_inline void follow_fork(struct task_struct *parent, struct task_struct *child)
{
	u32 parent_pid = parent->tgid, child_pid = child->tgid;
	u8 one = 1;

	if (!CFG(filter_pids) || parent_pid == child_pid)
		return;
	if (!bpf_map_lookup_elem(&wanted_pids, &parent_pid))
		/* The number may have been another's before, whose end was not seen. */
		bpf_map_delete_elem(&wanted_pids, &child_pid);
	else if (bpf_map_update_elem(&wanted_pids, &child_pid, &one, BPF_ANY))
		not_followed();
}

/* With its last thread a process is gone, and its number is another's soon. */
static __always_inline void unfollow(u32 pid)
{
	if (CFG(filter_pids))
		bpf_map_delete_elem(&wanted_pids, &pid);
}

/* A cgroup made inside a wanted one is wanted. */
static __always_inline void follow_mkdir(u64 parent, u64 child)
{
	u8 one = 1;

	if (CFG(filter_cgroups) && bpf_map_lookup_elem(&wanted_cgroups, &parent) &&
	    bpf_map_update_elem(&wanted_cgroups, &child, &one, BPF_ANY))
		not_followed();
}

/* Nobody is in it any more, and its number is never another's. */
static __always_inline void unfollow_cgroup(u64 cgroup)
{
	if (CFG(filter_cgroups))
		bpf_map_delete_elem(&wanted_cgroups, &cgroup);
}

#endif
