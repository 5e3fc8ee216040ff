/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Sleeps cut short by a signal. With --period-us 0 the signals also come while the thread is on
 * its way to sleep: from 5.18 to 6.15 the tracepoint then says it sleeps although it stays
 * runnable, and no wakeup follows.
 *
 * Known answer: of `sleeps` sleeps `cut` ended with EINTR, woken by `sender`; `nvcsw` of the
 * sleeper is how often it really left the CPU for them.
 */
#define _GNU_SOURCE
#include "common.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

static int64_t period_us = 2000, sleeps, cut;
static atomic_bool sleeper_done;

static void on_signal(int signal)
{
	(void)signal;
}

static void *sleeper(void *arg)
{
	struct report *report = report_begin("sleeper");

	while (!life_over()) {
		struct timespec long_time = {0, 100 * MS};

		sleeps++;
		if (nanosleep(&long_time, NULL))
			cut++;
	}
	report_end(report);
	atomic_store(&sleeper_done, true);
	return arg;
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = on_signal};
	int64_t duration = 3, sent = 0;
	const struct option_spec options[] = {
	    {"duration", NUMBER, &duration, "seconds"},
	    {"period-us", NUMBER, &period_us, "from one signal to the next; 0: no pause"},
	    {0},
	};
	struct report *report;
	pthread_t thread;

	parse_options(argc, argv, "interrupted: sleeps cut short by signals", options);
	life_begin(duration);
	reports_begin(2);
	sigaction(SIGUSR1, &action, NULL);
	if (pthread_create(&thread, NULL, sleeper, NULL))
		fail("pthread_create");
	report = report_begin("sender");
	while (!atomic_load(&sleeper_done)) {
		if (period_us)
			sleep_ns(period_us * US);
		pthread_kill(thread, SIGUSR1);
		sent++;
	}
	report_end(report);
	pthread_join(thread, NULL);
	json_begin("interrupted");
	json_int("sent", sent);
	json_int("sleeps", sleeps);
	json_int("cut", cut);
	json_end();
	return 0;
}
