/* SPDX-License-Identifier: GPL-2.0 */
/*
 * K threads that use all the CPU they get, meant for a cgroup with a CPU quota. The witness is
 * the cgroup's cpu.stat: nr_throttled and throttled_time (v1, ns) or throttled_usec (v2).
 *
 * With --period-us the threads sleep between bursts, so that throttling also hits wakeups.
 */
#define _GNU_SOURCE
#include "common.h"

#include <pthread.h>
#include <stdio.h>

#define MAX_THREADS 256

static int64_t period_us, busy_us = 5000;

struct worker {
	int cpu; /* -1: not pinned */
	pthread_t thread;
};

static void *burn(void *arg)
{
	const struct worker *w = arg;
	struct report *report;

	if (w->cpu >= 0)
		pin(w->cpu);
	report = report_begin("quota");
	while (!life_over()) {
		burn_ns(busy_us * US);
		if (period_us)
			sleep_ns(period_us * US);
	}
	report_end(report);
	return NULL;
}

int main(int argc, char **argv)
{
	int64_t duration = 5, threads = 2;
	const char *cgroup = NULL;
	bool spread = false;
	const struct option_spec options[] = {
	    {"duration", NUMBER, &duration, "seconds"},
	    {"threads", NUMBER, &threads, "1 to 256"},
	    {"busy-us", NUMBER, &busy_us, "CPU time of one burst"},
	    {"period-us", NUMBER, &period_us, "sleep after each burst; 0: none"},
	    {"spread", FLAG, &spread, "pin the i-th thread to the i-th CPU"},
	    {"cgroup", TEXT, &cgroup, "cgroup.procs file to join first"},
	    {0},
	};
	static struct worker workers[MAX_THREADS];

	parse_options(argc, argv, "quota: threads that use all the CPU they get", options);
	if (threads < 1 || threads > MAX_THREADS) {
		fprintf(stderr, "--threads is 1 to %d\n", MAX_THREADS);
		return 2;
	}
	if (cgroup)
		join_cgroup(cgroup);
	life_begin(duration);
	reports_begin(threads);
	for (int i = 0; i < threads; i++) {
		workers[i].cpu = spread ? nth_cpu(i) : -1;
		if (pthread_create(&workers[i].thread, NULL, burn, &workers[i]))
			fail("pthread_create");
	}
	for (int i = 0; i < threads; i++)
		pthread_join(workers[i].thread, NULL);
	json_begin("quota");
	json_end();
	return 0;
}
