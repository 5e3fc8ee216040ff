/* SPDX-License-Identifier: GPL-2.0 */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef SCHED_DEADLINE
#define SCHED_DEADLINE 6
#endif

void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- arguments ---- */

static void usage(const char *about, const struct option_spec *options)
{
	fprintf(stderr, "%s\n", about);
	for (const struct option_spec *o = options; o->name; o++)
		fprintf(stderr, "  --%-14s %s\n", o->name, o->help);
	exit(2);
}

void parse_options(int argc, char **argv, const char *about, const struct option_spec *options)
{
	for (int i = 1; i < argc; i++) {
		const struct option_spec *o = options;

		while (o->name && (strncmp(argv[i], "--", 2) || strcmp(argv[i] + 2, o->name)))
			o++;
		if (!o->name)
			usage(about, options);
		if (o->type == FLAG) {
			*(bool *)o->to = true;
			continue;
		}
		if (++i == argc)
			usage(about, options);
		if (o->type == TEXT) {
			*(const char **)o->to = argv[i];
			continue;
		}
		char *rest;

		errno = 0;
		*(int64_t *)o->to = strtoll(argv[i], &rest, 10);
		if (errno || *rest || rest == argv[i])
			usage(about, options);
	}
}

/* ---- a bounded life ---- */

static int64_t end_ns;
static atomic_bool stopped;

static void on_signal(int signal)
{
	(void)signal;
	atomic_store(&stopped, true);
}

void life_begin(double seconds)
{
	struct sigaction action = {.sa_handler = on_signal};

	if (seconds <= 0 || seconds > MAX_SECONDS) {
		fprintf(stderr, "--duration must be over 0 and at most %d s\n", MAX_SECONDS);
		exit(2);
	}
	end_ns = now_ns() + (int64_t)(seconds * SECOND);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	/* Programs write to pipes whose reader may be gone already at the end. */
	signal(SIGPIPE, SIG_IGN);
	alarm((unsigned)seconds + 10);
}

bool life_over(void)
{
	return atomic_load_explicit(&stopped, memory_order_relaxed) || now_ns() >= end_ns;
}

int64_t life_end_ns(void)
{
	return end_ns;
}

void life_stop(void)
{
	atomic_store(&stopped, true);
}

void life_inherit(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(MAX_SECONDS + 10);
}

/* ---- time ---- */

static int64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * SECOND + t.tv_nsec;
}

int64_t now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

int64_t thread_cpu_ns(void)
{
	return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

void sleep_ns(int64_t ns)
{
	struct timespec t = {ns / SECOND, ns % SECOND};

	nanosleep(&t, NULL);
}

void sleep_until_ns(int64_t ns)
{
	struct timespec t = {ns / SECOND, ns % SECOND};

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

void burn_ns(int64_t cpu_ns)
{
	int64_t until = thread_cpu_ns() + cpu_ns;

	/* That clock is a system call: stay in user space for about 1 us between two looks. */
	while (thread_cpu_ns() < until && !life_over())
		for (volatile int i = 0; i < 1000; i++)
			;
}

/* ---- placement ---- */

void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		fail("sched_setaffinity");
}

int nth_cpu(int n)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set))
		fail("sched_getaffinity");
	n %= CPU_COUNT(&set);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &set) && n-- == 0)
			return cpu;
	return 0;
}

void join_cgroup(const char *procs_file)
{
	int fd = open(procs_file, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "0", 1) != 1) {
		fprintf(stderr, "cannot join %s: %s\n", procs_file, strerror(errno));
		exit(3);
	}
	close(fd);
}

int policy_number(const char *name)
{
	static const struct {
		const char *name;
		int number;
	} known[] = {{"other", SCHED_OTHER}, {"batch", SCHED_BATCH}, {"idle", SCHED_IDLE},
		     {"fifo", SCHED_FIFO},   {"rr", SCHED_RR},       {"deadline", SCHED_DEADLINE}};

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (!strcmp(name, known[i].name))
			return known[i].number;
	fprintf(stderr, "no policy %s: other batch idle fifo rr deadline\n", name);
	exit(2);
}

int set_policy(int policy, int priority)
{
	bool rt = policy == SCHED_FIFO || policy == SCHED_RR;
	struct sched_param param = {.sched_priority = rt ? priority : 0};

	if (policy == SCHED_DEADLINE) {
		/* struct sched_attr, which libc has only from 2.41 on. */
		struct {
			uint32_t size, policy;
			uint64_t flags;
			int32_t nice;
			uint32_t priority;
			uint64_t runtime, deadline, period;
		} attr = {sizeof(attr), SCHED_DEADLINE, 0, 0, 0, 500 * US, 20 * MS, 20 * MS};

		return syscall(SYS_sched_setattr, 0, &attr, 0) ? errno : 0;
	}
	return sched_setscheduler(0, policy, &param) ? errno : 0;
}
