/* SPDX-License-Identifier: GPL-2.0 */
/* What the Python probes remember, and the little of the kernel they look at. */
#ifndef SLTRACE_PYTHON_STATE_BPF_H
#define SLTRACE_PYTHON_STATE_BPF_H

#define MAX_PROCESSES 1024
#define MAX_THREADS   16384
#define MAX_NAMES     1024
#define HOLDERS       8 /* a power of two */
#define SEEN_PYTHON   (1 << 16)

/* The thread pointer: pthread_self() in glibc and musl, which CPython keeps as a thread's id. */
struct thread_struct___x86 {
	unsigned long fsbase;
} __attribute__((preserve_access_index));

struct task_struct___x86 {
	struct thread_struct___x86 thread;
} __attribute__((preserve_access_index));

struct pt_regs___x86 {
	unsigned long di;
	unsigned long orig_ax;
	unsigned long sp;
} __attribute__((preserve_access_index));

struct holder {
	u64 owner; /* see owner_of(); 0: none */
	u64 ns;
	u64 stack;
	u32 tid; /* 0: not known yet */
	u32 reserved;
};

struct python_thread {
	u64 state; /* address of its thread state; 0: has none that is known */
	u64 frame; /* and of its innermost frame, at the last look; 0: none */
	u64 owner; /* what python_owners has it by; 0: it has not */
	u64 gil;   /* address of the GIL of its interpreter */
	/* The next search for it, and where in the lists of threads the last one was left. */
	u64 search_ns;
	u64 search_state;
	u64 search_interpreter;
	u64 out_ns;
	u64 out_delay_ns; /* its run delay then, as the kernel counts it */
	u64 now_ns;       /* of the switch-out that is looked at, and its call's first argument */
	u64 call_argument;
	u64 slept_argument; /* of the last call it slept in, and that call */
	u16 slept_in;
	u8 preempted;
	u8 out_gil;
	u8 out_poll;
	u8 holder; /* index of who held the GIL at the last look */
	u8 had_state;
	u8 coroutine; /* it was in one, or in another generator, at the last look */
	/* A wait for the GIL that is under way, or ended at gil_in_ns and was not told yet. */
	u64 gil_start_ns; /* 0: none */
	u64 gil_in_ns;
	u64 gil_runq_ns;
	struct holder holders[HOLDERS];
	struct task_tag gil_tag;
	/* An iteration of an event loop. */
	u64 loop_start_ns; /* 0: none */
	u64 loop_runq_ns;
	u64 loop_gil_ns;
	struct task_tag loop_tag;
	u32 depth;      /* of the stack at the last look; 0: none, or not whole */
	u32 poll_depth; /* likewise, where it last slept in epoll */
	u64 gc_start_ns;
	u64 gc_stack; /* its stack pointer then */
	u64 gc_runq_ns;
	u64 gc_gil_ns;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PROCESSES);
	__type(key, u32);
	__type(value, struct python_process);
} python_processes SEC(".maps");

/*
 * Of every switch on the machine, most are of processes that are not looked into: by a byte at the
 * low bits of the pid that is told for less than by a lookup. Once set it stays: what comes later
 * to the same byte is looked up.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct python_maybe);
} python_maybe SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_THREADS);
	__type(key, u32);
	__type(value, struct python_thread);
} python_threads SEC(".maps");

struct owner_key {
	u64 owner; /* see owner_of() */
	u64 pid;
};

/* The threads that thread states belong to. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_THREADS);
	__type(key, struct owner_key);
	__type(value, u32);
} python_owners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct python_cpu);
} python_cpus SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SEEN_PYTHON);
	__type(key, u32);
	__type(value, u64);
} python_seen SEC(".maps");

#define PYTHON_WINDOW 4096 /* one page: of the memory behind it nothing is known */
#define PYTHON_FRAME  128  /* at most: what is used of a frame */

/* Where a stack is put together. */
struct python_scratch {
	struct scratch_slot slot;
	struct python_stack stack;
	u8 window[PYTHON_WINDOW + PYTHON_FRAME];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCH_SLOTS);
	__type(key, u32);
	__type(value, struct python_scratch);
} python_scratch_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} python_stack_ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} python_wait_ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} python_sample_ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_NAMES);
	__uint(key_size, PYTHON_NAME_BYTES);
	__type(value, u32);
} python_names SEC(".maps");

/* Holds all there can be. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 128 << 10);
} python_name_ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 << 10);
} python_event_ring SEC(".maps");

/*
 * Zero, but not to the verifier. Before 6.8 (ab5cfac139ab) it follows one round of a bpf_loop(),
 * takes a variable for what it is in that, and removes the branches that only later rounds take:
 * what a loop begins with and changes must not be a constant where a branch looks at it.
 */
u64 unknown_zero;

static __always_inline struct python_cpu *this_cpu(void)
{
	u32 cpu = bpf_get_smp_processor_id();

	return bpf_map_lookup_elem(&python_cpus, &cpu);
}

/* Atomic: what runs in user code can be preempted by others on this CPU. */
static __always_inline void count(struct python_cpu *c, enum python_counter what)
{
	__sync_fetch_and_add(&c->counters[what], 1);
}

static __always_inline u64 read_u64(u64 address)
{
	u64 value = 0;

	bpf_probe_read_user(&value, sizeof(value), (void *)address);
	return value;
}

static __always_inline u64 current_pointer(void)
{
	struct task_struct *t = bpf_get_current_task_btf();

	return BPF_CORE_READ((struct task_struct___x86 *)t, thread.fsbase);
}

#endif
