/* SPDX-License-Identifier: GPL-2.0 */
/* What a thread of Python waits for, by the system call that it sleeps in. */
#ifndef SLTRACE_PYTHON_CALLS_BPF_H
#define SLTRACE_PYTHON_CALLS_BPF_H

/* struct _gil_runtime_state: last_holder, locked; cond and mutex; then those of forced switches. */
#define GIL_HOLDER       8
#define GIL_COND         32
#define GIL_SWITCH       120
#define GIL_SWITCH_MUTEX 168
#define GIL_END          208

#define SYS_FUTEX           202
#define SYS_RESTART_SYSCALL 219

/* The system call a task is in: number and first argument. */
struct call {
	s64 number;
	u64 argument;
};

static __always_inline void call_of(struct task_struct *t, struct call *call)
{
	struct pt_regs___x86 *regs = (void *)bpf_task_pt_regs(t);

	call->number = BPF_CORE_READ(regs, orig_ax);
	call->argument = BPF_CORE_READ(regs, di);
}

/*
 * A call with a time limit is interrupted when a signal comes that nobody handles, a debugger or a
 * freezer, and goes on under another number. Its arguments are still there.
 */
static __always_inline void follow_restart(struct python_thread *th, struct call *call)
{
	if (call->number == SYS_RESTART_SYSCALL) {
		if (call->argument == th->slept_argument)
			call->number = th->slept_in;
	} else if (call->number >= 0) {
		th->slept_in = call->number;
		th->slept_argument = call->argument;
	}
}

static __always_inline bool is_event_poll(s64 number)
{
	/* epoll_wait, epoll_pwait, epoll_pwait2 */
	return number == 232 || number == 281 || number == 441;
}

/* Numbers of arch/x86/entry/syscalls/syscall_64.tbl. */
__noinline u8 reason_of(struct call *call, struct python_thread *th)
{
	if (!call || !th)
		return REASON_NONE;
	switch (call->number) {
	case -1:
		return REASON_FAULT;
	case SYS_FUTEX:
		if (call->argument - th->gil < GIL_END)
			return REASON_GIL;
		return REASON_LOCK;
	case 35:  /* nanosleep */
	case 230: /* clock_nanosleep */
		return REASON_SLEEP;
	case 23:  /* select */
	case 270: /* pselect6 */
		/* Of no file: time.sleep() of 3.10. */
		return call->argument ? REASON_POLL : REASON_SLEEP;
	case 7:   /* poll */
	case 271: /* ppoll */
	case 232: /* epoll_wait */
	case 281: /* epoll_pwait */
	case 441: /* epoll_pwait2 */
		return REASON_POLL;
	case 0:   /* read */
	case 1:   /* write */
	case 17:  /* pread64 */
	case 18:  /* pwrite64 */
	case 19:  /* readv */
	case 20:  /* writev */
	case 40:  /* sendfile */
	case 42:  /* connect */
	case 43:  /* accept */
	case 44:  /* sendto */
	case 45:  /* recvfrom */
	case 46:  /* sendmsg */
	case 47:  /* recvmsg */
	case 72:  /* fcntl: locks of files */
	case 73:  /* flock */
	case 74:  /* fsync */
	case 75:  /* fdatasync */
	case 257: /* openat */
	case 288: /* accept4 */
	case 426: /* io_uring_enter */
	case 3:   /* close */
	case 26:  /* msync */
	case 162: /* sync */
	case 275: /* splice */
	case 277: /* sync_file_range */
	case 285: /* fallocate */
	case 295: /* preadv */
	case 296: /* pwritev */
	case 299: /* recvmmsg */
	case 306: /* syncfs */
	case 307: /* sendmmsg */
	case 326: /* copy_file_range */
	case 327: /* preadv2 */
	case 328: /* pwritev2 */
	/* Files by their names. */
	case 2:   /* open */
	case 4:   /* stat */
	case 5:   /* fstat */
	case 6:   /* lstat */
	case 21:  /* access */
	case 76:  /* truncate */
	case 77:  /* ftruncate */
	case 82:  /* rename */
	case 83:  /* mkdir */
	case 84:  /* rmdir */
	case 87:  /* unlink */
	case 217: /* getdents64 */
	case 262: /* newfstatat */
	case 263: /* unlinkat */
	case 264: /* renameat */
	case 316: /* renameat2 */
	case 332: /* statx */
	case 437: /* openat2 */
	case 439: /* faccessat2 */
		return REASON_IO;
	case 56:  /* clone, of a child that uses its parent's memory until its exec */
	case 58:  /* vfork */
	case 435: /* clone3 */
	case 61:  /* wait4 */
	case 247: /* waitid */
		return REASON_PROCESS;
	case 34:  /* pause */
	case 128: /* rt_sigtimedwait */
	case 130: /* rt_sigsuspend */
		return REASON_SIGNAL;
	case 9:  /* mmap */
	case 10: /* mprotect */
	case 11: /* munmap */
	case 12: /* brk */
	case 25: /* mremap */
	case 28: /* madvise */
		return REASON_MEMORY;
	}
	return REASON_NONE;
}

#endif
