/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Wakes that race with going to sleep: the woken thread is often still running on its CPU, so the
 * kernel reports a wakeup and no switch ever follows it.
 *
 * Known answer: the sleeper was woken `woken` times, `timeouts` times by its timer, and switched
 * out to sleep `nvcsw` times; the other wakes met a running thread and ended no wait.
 */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_uint word;
static atomic_long woken, timeouts;
static int64_t sleeper_cpu, waker_cpu, gap_ns;

static void *sleeper(void *arg)
{
	struct report *report;

	pin(sleeper_cpu);
	report = report_begin("sleeper");
	while (!life_over()) {
		struct timespec limit = {0, 10 * MS};
		unsigned seen = atomic_load(&word);

		if (syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, seen, &limit, NULL, 0) < 0 &&
		    errno == ETIMEDOUT)
			timeouts++;
	}
	report_end(report);
	return arg;
}

static void *waker(void *arg)
{
	struct report *report;

	pin(waker_cpu);
	report = report_begin("waker");
	while (!life_over()) {
		int64_t until = now_ns() + gap_ns;

		atomic_fetch_add(&word, 1);
		if (syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0) > 0)
			atomic_fetch_add(&woken, 1);
		while (now_ns() < until)
			;
	}
	report_end(report);
	return arg;
}

int main(int argc, char **argv)
{
	int64_t duration = 3;
	const struct option_spec options[] = {
	    {"duration", NUMBER, &duration, "seconds"},
	    {"sleeper-cpu", NUMBER, &sleeper_cpu, "where the sleeper is pinned"},
	    {"waker-cpu", NUMBER, &waker_cpu, "where the waker is pinned: another CPU"},
	    {"gap-ns", NUMBER, &gap_ns, "pause between wakes; 0 races the most"},
	    {0},
	};
	pthread_t threads[2];

	sleeper_cpu = nth_cpu(0);
	waker_cpu = nth_cpu(1);
	parse_options(argc, argv, "wakerun: wakes that meet a running thread", options);
	life_begin(duration);
	reports_begin(2);
	if (pthread_create(&threads[0], NULL, sleeper, NULL) ||
	    pthread_create(&threads[1], NULL, waker, NULL))
		fail("pthread_create");
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	json_begin("wakerun");
	json_int("woken", woken);
	json_int("timeouts", timeouts);
	json_end();
	return 0;
}
