/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One thread that wakes at fixed times for a short burst: what a neighbour delays.
 *
 * `late_ns` sums how late it ran after each timer, seen from user space: never less than the
 * run-queue latency of those wakes.
 */
#define _GNU_SOURCE
#include "common.h"

#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

int main(int argc, char **argv)
{
	int64_t duration = 5, cpu = -1, period_us = 2000, burst_us = 100, priority = 1;
	int64_t wakes = 0, late_ns = 0, worst_ns = 0, next_ns;
	const char *cgroup = NULL, *policy = "other", *comm = "victim";
	const struct option_spec options[] = {
	    {"duration", NUMBER, &duration, "seconds"},
	    {"cpu", NUMBER, &cpu, "pin to this CPU"},
	    {"period-us", NUMBER, &period_us, "from one wake to the next"},
	    {"burst-us", NUMBER, &burst_us, "CPU time of each burst"},
	    {"policy", TEXT, &policy, "other batch idle fifo rr deadline"},
	    {"priority", NUMBER, &priority, "of fifo and rr"},
	    {"comm", TEXT, &comm, "thread name"},
	    {"cgroup", TEXT, &cgroup, "cgroup.procs file to join first"},
	    {0},
	};
	struct report *report;
	int err;

	parse_options(argc, argv, "victim: wakes at fixed times for a short burst", options);
	if (cgroup)
		join_cgroup(cgroup);
	if (cpu >= 0)
		pin(cpu);
	prctl(PR_SET_NAME, comm);
	err = set_policy(policy_number(policy), priority);
	if (err) {
		fprintf(stderr, "cannot use policy %s here: %s\n", policy, strerror(err));
		return 3;
	}
	/* The default slack of 50 us would be most of `late_ns` on an idle CPU. */
	prctl(PR_SET_TIMERSLACK, 1);
	life_begin(duration);
	reports_begin(1);
	report = report_begin("victim");
	next_ns = now_ns() + period_us * US;
	while (next_ns < life_end_ns() && !life_over()) {
		int64_t late;

		sleep_until_ns(next_ns);
		late = now_ns() - next_ns;
		wakes++;
		late_ns += late;
		worst_ns = late > worst_ns ? late : worst_ns;
		burn_ns(burst_us * US);
		/* Timers missed during a long wait are skipped, as a server's would be. */
		next_ns += period_us * US;
		while (next_ns < now_ns())
			next_ns += period_us * US;
	}
	report_end(report);
	json_begin("victim");
	json_int("wakes", wakes);
	json_int("late_ns", late_ns);
	json_int("worst_ns", worst_ns);
	json_end();
	return 0;
}
