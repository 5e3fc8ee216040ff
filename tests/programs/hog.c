/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The noisy neighbour: one thread that holds a CPU, all the time or for a part of each period.
 * A real-time hog must leave at least a tenth of each period to the rest of the machine.
 */
#define _GNU_SOURCE
#include "common.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

int main(int argc, char **argv)
{
	int64_t duration = 5, cpu = -1, period_us = 10000, busy_us = 0, priority = 1;
	const char *cgroup = NULL, *policy = "other", *comm = "hog";
	const struct option_spec options[] = {
	    {"duration", NUMBER, &duration, "seconds"},
	    {"cpu", NUMBER, &cpu, "pin to this CPU"},
	    {"busy-us", NUMBER, &busy_us, "CPU time in each period; 0: never sleep"},
	    {"period-us", NUMBER, &period_us, "of --busy-us"},
	    {"policy", TEXT, &policy, "other batch idle fifo rr deadline"},
	    {"priority", NUMBER, &priority, "of fifo and rr"},
	    {"comm", TEXT, &comm, "thread name"},
	    {"cgroup", TEXT, &cgroup, "cgroup.procs file to join first"},
	    {0},
	};
	struct report *report;
	int number, err;

	parse_options(argc, argv, "hog: holds a CPU", options);
	number = policy_number(policy);
	if ((number == SCHED_FIFO || number == SCHED_RR) &&
	    (busy_us <= 0 || busy_us * 10 > period_us * 9)) {
		fprintf(stderr, "a %s hog needs --busy-us of at most 90 %% of --period-us\n",
			policy);
		return 2;
	}
	if (cgroup)
		join_cgroup(cgroup);
	if (cpu >= 0)
		pin(cpu);
	prctl(PR_SET_NAME, comm);
	err = set_policy(number, priority);
	if (err) {
		fprintf(stderr, "cannot use policy %s here: %s\n", policy, strerror(err));
		return 3;
	}
	life_begin(duration);
	reports_begin(1);
	report = report_begin("hog");
	for (int64_t next_ns = now_ns(); !life_over(); sleep_until_ns(next_ns)) {
		burn_ns(busy_us ? busy_us * US : MAX_SECONDS * SECOND);
		next_ns += period_us * US;
	}
	report_end(report);
	json_begin("hog");
	json_end();
	return 0;
}
