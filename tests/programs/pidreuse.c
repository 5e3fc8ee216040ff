/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One process id used again and again: clone3's set_tid (root, Linux 5.5) gives every child the
 * same pid, each under another name (`life 0`, `life 1`, ...). State kept by pid and not cleaned
 * up mixes their waits; each child's own readings tell them apart.
 */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t clone_as(pid_t pid)
{
	struct clone_args args = {.exit_signal = SIGCHLD};

	if (pid) {
		args.set_tid = (uintptr_t)&pid;
		args.set_tid_size = 1;
	}
	return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

static void live(int number, int sleeps)
{
	struct report *report;
	char name[16];

	life_inherit();
	snprintf(name, sizeof(name), "life %d", number);
	prctl(PR_SET_NAME, name);
	report = report_begin(name);
	for (int i = 0; i < sleeps && !life_over(); i++) {
		sleep_ns(500 * US);
		burn_ns(100 * US);
	}
	report_end(report);
	_exit(0);
}

int main(int argc, char **argv)
{
	int64_t duration = 10, lives = 50, sleeps = 10, born = 0;
	pid_t pid = 0;
	const struct option_spec options[] = {
	    {"duration", NUMBER, &duration, "seconds at most"},
	    {"lives", NUMBER, &lives, "processes with the same pid, one after the other"},
	    {"sleeps", NUMBER, &sleeps, "sleeps of each"},
	    {0},
	};

	parse_options(argc, argv, "pidreuse: many processes, one pid", options);
	life_begin(duration);
	reports_begin(lives);
	while (born < lives && !life_over()) {
		pid_t child = clone_as(pid);

		if (child == 0)
			live(born, sleeps);
		if (child < 0) {
			fprintf(stderr, "clone3 as pid %d: %s%s\n", pid, strerror(errno),
				errno == EPERM ? "; run as root" : "");
			return 3;
		}
		pid = child;
		born++;
		if (waitpid(child, NULL, 0) != child)
			fail("waitpid");
	}
	json_begin("pidreuse");
	json_int("reused_pid", pid);
	json_int("born", born);
	json_end();
	return 0;
}
