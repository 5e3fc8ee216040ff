/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Moves a thread that waits in a CPU's queue to another CPU: two hogs share one CPU, and a third
 * thread changes the affinity of one of them all the time, there and back.
 *
 * Known answer: each of `moves` sets an affinity that excludes the CPU the thread was on, so the
 * thread migrates for each; many of these find it queued behind the other hog.
 */
#define _GNU_SOURCE
#include "common.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_int moved_tid;
static int cpus[2];

static void *hog(void *arg)
{
	bool moved = arg != NULL;
	struct report *report;

	pin(cpus[0]);
	report = report_begin(moved ? "moved" : "hog");
	if (moved)
		atomic_store(&moved_tid, (int)syscall(SYS_gettid));
	while (!life_over())
		;
	report_end(report);
	if (moved)
		atomic_store(&moved_tid, 0);
	return NULL;
}

int main(int argc, char **argv)
{
	int64_t duration = 3, period_us = 3000, moves = 0;
	const struct option_spec options[] = {
	    {"duration", NUMBER, &duration, "seconds"},
	    {"period-us", NUMBER, &period_us, "from one move to the next"},
	    {0},
	};
	pthread_t threads[2];

	cpus[0] = nth_cpu(0);
	cpus[1] = nth_cpu(1);
	parse_options(argc, argv, "migrate: moves a queued thread between CPUs", options);
	life_begin(duration);
	reports_begin(2);
	if (pthread_create(&threads[0], NULL, hog, NULL) ||
	    pthread_create(&threads[1], NULL, hog, "moved"))
		fail("pthread_create");
	while (!atomic_load(&moved_tid) && !life_over())
		sleep_ns(MS);
	while (!life_over()) {
		int tid = atomic_load(&moved_tid);
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET(cpus[(moves + 1) % 2], &set);
		if (tid && !sched_setaffinity(tid, sizeof(set), &set))
			moves++;
		sleep_ns(period_us * US);
	}
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	json_begin("migrate");
	json_int("moves", moves);
	json_end();
	return 0;
}
