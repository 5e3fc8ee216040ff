/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A thread that sleeps and wakes all the time on one CPU is renamed from another, to and fro.
 *
 * `names` has for each name, `wanted` and `unwanted` in turn, since when and until when the
 * thread surely had it, and how often it got its CPU meanwhile.
 */
#define _GNU_SOURCE
#include "common.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int there[2], back[2];
static int renamed_tid;
static pthread_barrier_t ready;

static void *partner(void *arg)
{
	char byte;

	pin(nth_cpu(0));
	while (read(there[0], &byte, 1) == 1 && write(back[1], &byte, 1) == 1)
		;
	return arg;
}

static void *renamed(void *arg)
{
	struct report *report = report_begin("renamed");
	char byte = 0;

	pin(nth_cpu(0));
	renamed_tid = (int)syscall(SYS_gettid);
	pthread_barrier_wait(&ready);
	while (!life_over() && write(there[1], &byte, 1) == 1 && read(back[0], &byte, 1) == 1)
		;
	close(there[1]);
	report_end(report);
	return arg;
}

static long timeslices(int schedstat)
{
	char text[100] = "";
	long slices = 0;

	if (pread(schedstat, text, sizeof(text) - 1, 0) < 0)
		fail("schedstat");
	sscanf(text, "%*s %*s %ld", &slices);
	return slices;
}

static int open_of_thread(const char *file, int flags)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/%s", renamed_tid, file);
	fd = open(path, flags);
	if (fd < 0)
		fail(path);
	return fd;
}

int main(int argc, char **argv)
{
	static const char *names[] = {"wanted", "unwanted"};
	int64_t duration = 2, renames = 300, before, since = 0;
	const struct option_spec options[] = {
	    {"duration", NUMBER, &duration, "seconds at most"},
	    {"renames", NUMBER, &renames, "how often"},
	    {0},
	};
	pthread_t threads[2];
	int comm, schedstat;
	long slices = 0;

	parse_options(argc, argv, "renames: a thread that another CPU renames", options);
	life_begin(duration);
	reports_begin(1);
	pthread_barrier_init(&ready, NULL, 2);
	if (pipe(there) || pipe(back) || pthread_create(&threads[0], NULL, partner, NULL) ||
	    pthread_create(&threads[1], NULL, renamed, NULL))
		fail("pthread_create");
	pthread_barrier_wait(&ready);
	pin(nth_cpu(1));
	comm = open_of_thread("comm", O_WRONLY);
	schedstat = open_of_thread("schedstat", O_RDONLY);
	json_begin("renames");
	printf(", \"names\": [");
	for (int i = 0; i <= renames && !life_over(); i++) {
		slices = timeslices(schedstat) - slices;
		before = now_ns();
		if (write(comm, names[i % 2], strlen(names[i % 2])) < 0)
			fail("comm");
		if (i)
			printf("%s[\"%s\", %ld, %ld, %ld]", i > 1 ? ", " : "", names[(i - 1) % 2],
			       since, before, slices);
		since = now_ns();
		slices = timeslices(schedstat);
		sleep_ns(2 * MS);
	}
	printf("]");
	life_stop();
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	json_end();
	return 0;
}
