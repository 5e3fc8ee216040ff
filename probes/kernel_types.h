/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The few kernel types the probes touch, with only the fields they read. Offsets are CO-RE
 * relocations against the running kernel's BTF, so building needs neither headers nor BTF.
 */
#ifndef SLTRACE_KERNEL_TYPES_H
#define SLTRACE_KERNEL_TYPES_H

typedef unsigned char u8;
typedef signed char s8;
typedef unsigned short u16;
typedef short s16;
typedef unsigned int u32;
typedef int s32;
typedef unsigned long long u64;
typedef long long s64;

/* What bpf_helper_defs.h names. */
typedef u8 __u8;
typedef u16 __u16;
typedef u32 __u32;
typedef u64 __u64;
typedef s32 __s32;
typedef s64 __s64;
typedef u16 __be16;
typedef u32 __be32;
typedef u32 __wsum;
typedef u16 __sum16;
typedef _Bool bool;
#define true  1
#define false 0

enum { BPF_ANY = 0, BPF_NOEXIST = 1 };
enum { BPF_RB_NO_WAKEUP = 1 };
enum { BPF_F_USER_STACK = 256 };
enum { BPF_F_MMAPABLE = 1024 };

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_RINGBUF = 27,
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

#include "kernel_cgroup.h"

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct rq {
	u64 nr_switches;
	u64 clock;
	u64 clock_pelt;
	u64 lost_idle_time;
};

struct cfs_rq {
	struct rq *rq;
	int throttle_count;
	u64 throttled_clock_self;
	u64 throttled_clock_self_time;
	u64 throttled_clock_pelt;
	u64 throttled_clock_pelt_time;
};

struct task_group {
	struct cgroup_subsys_state css;
	struct cfs_rq **cfs_rq;
};

struct sched_entity {
	u64 sum_exec_runtime;
	struct cfs_rq *cfs_rq;
};

struct thread_info {
	u32 cpu;
};

struct sched_info {
	u64 run_delay;
	u64 last_queued;
};

struct sched_ext_entity {
	u32 flags;
};

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
};

struct pid {
	unsigned int level;
};

struct task_struct {
	struct sched_info sched_info;
	struct thread_info thread_info;
	u32 cpu;
	unsigned int __state;
	/* Unsigned, as only those may be narrower in the kernel: they are bytes in 7.2. */
	unsigned int on_cpu;
	unsigned int on_rq;
	int prio;
	int static_prio;
	unsigned int policy;
	struct sched_entity se;
	struct sched_ext_entity scx;
	struct task_group *sched_task_group;
	int pid;
	int tgid;
	struct task_struct *real_parent;
	struct pid *thread_pid;
	unsigned int flags;
	struct signal_struct *signal;
	struct css_set *cgroups;
	char comm[16];
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

#pragma clang attribute pop

#endif
