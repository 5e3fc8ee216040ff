/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A thread that lives in long system calls (large reads of /dev/zero) beside a real-time thread
 * that wakes on the same CPU: the reader loses the CPU inside the kernel, where the classic
 * tracepoint's prev_state is 0x100 and not 0.
 *
 * Known answer: the reader never sleeps, so every one of its `nivcsw` switches is a preemption.
 */
#define _GNU_SOURCE
#include "common.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int64_t cpu, period_us = 1000, chunk_mb = 64, wakes;

static void *reader(void *arg)
{
	size_t size = (size_t)chunk_mb << 20;
	struct report *report;
	char *buffer;
	int fd;

	pin(cpu);
	fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	buffer = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (fd < 0 || buffer == MAP_FAILED)
		fail("/dev/zero");
	memset(buffer, 1, size);
	report = report_begin("reader");
	while (!life_over())
		if (read(fd, buffer, size) <= 0)
			fail("read");
	report_end(report);
	munmap(buffer, size);
	close(fd);
	return arg;
}

static void *waker(void *arg)
{
	struct report *report;
	int *err = arg;

	pin(cpu);
	*err = set_policy(SCHED_FIFO, 10);
	report = report_begin("waker");
	while (!life_over()) {
		sleep_ns(period_us * US);
		burn_ns(20 * US);
		wakes++;
	}
	report_end(report);
	return NULL;
}

int main(int argc, char **argv)
{
	int64_t duration = 3;
	int err = 0;
	const struct option_spec options[] = {
	    {"duration", NUMBER, &duration, "seconds"},
	    {"cpu", NUMBER, &cpu, "where both are pinned"},
	    {"period-us", NUMBER, &period_us, "of the real-time thread"},
	    {"chunk-mb", NUMBER, &chunk_mb, "size of one read"},
	    {0},
	};
	pthread_t threads[2];

	cpu = nth_cpu(0);
	parse_options(argc, argv, "longcall: preemption inside long system calls", options);
	life_begin(duration);
	reports_begin(2);
	if (pthread_create(&threads[0], NULL, reader, NULL) ||
	    pthread_create(&threads[1], NULL, waker, &err))
		fail("pthread_create");
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	json_begin("longcall");
	json_int("wakes", wakes);
	json_text("rt_error", err ? strerror(err) : "");
	json_end();
	return 0;
}
