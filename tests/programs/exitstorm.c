/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Threads and processes that live for an instant, as many as fit. `threads_born` and
 * `processes_born` are the known answers; with --report each also takes its readings.
 */
#define _GNU_SOURCE
#include "common.h"

#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_AT_ONCE 128

static bool reporting;

static void *instant(void *arg)
{
	if (reporting)
		report_end(report_begin("thread"));
	return arg;
}

static void process(void)
{
	life_inherit();
	if (reporting)
		report_end(report_begin("process"));
	_exit(0);
}

int main(int argc, char **argv)
{
	int64_t duration = 3, at_once = 16, most = 0, threads_born = 0, processes_born = 0;
	bool no_threads = false, no_processes = false;
	const struct option_spec options[] = {
	    {"duration", NUMBER, &duration, "seconds at most"},
	    {"at-once", NUMBER, &at_once, "1 to 128 born together, then waited for"},
	    {"most", NUMBER, &most, "stop after this many births; 0: at --duration"},
	    {"no-threads", FLAG, &no_threads, "processes only"},
	    {"no-processes", FLAG, &no_processes, "threads only"},
	    {"report", FLAG, &reporting, "each takes its readings (slower)"},
	    {0},
	};
	pthread_t threads[MAX_AT_ONCE];

	parse_options(argc, argv, "exitstorm: births and deaths as fast as possible", options);
	if (at_once < 1 || at_once > MAX_AT_ONCE) {
		fprintf(stderr, "--at-once is 1 to %d\n", MAX_AT_ONCE);
		return 2;
	}
	life_begin(duration);
	reports_begin(1 << 17);
	while (!life_over() && (!most || threads_born + processes_born < most)) {
		for (int i = 0; i < at_once && !no_threads; i++, threads_born++)
			if (pthread_create(&threads[i], NULL, instant, NULL))
				fail("pthread_create");
		for (int i = 0; i < at_once && !no_threads; i++)
			pthread_join(threads[i], NULL);
		for (int i = 0; i < at_once && !no_processes; i++, processes_born++) {
			pid_t pid = fork();

			if (pid < 0)
				fail("fork");
			if (pid == 0)
				process();
		}
		while (!no_processes && wait(NULL) > 0)
			;
	}
	json_begin("exitstorm");
	json_int("threads_born", threads_born);
	json_int("processes_born", processes_born);
	json_end();
	return 0;
}
