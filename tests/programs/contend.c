/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Many kinds of thread fight for the CPUs: hogs, SCHED_BATCH, SCHED_IDLE, FIFO, RR and DEADLINE,
 * sleepers, yielders, messaging groups, and threads that are born and die all the while.
 *
 * Real-time threads sleep 95 % of the time so that the machine stays usable. With
 * CONFIG_RT_GROUP_SCHED a v1 cpu cgroup whose cpu.rt_runtime_us is 0 refuses them with EPERM:
 * they then stay SCHED_OTHER and the output's `rt_errno` says so.
 */
#define _GNU_SOURCE
#include "common.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_THREADS 4096
#define STACK_SIZE  (128 << 10)
#define MESSAGE     100

static atomic_int rt_errno;
static atomic_long messages, born;

struct worker {
	const char *role;
	int policy;
	int index;
	const int *fds; /* messaging: what to read from or write to */
	int n_fds;
};

static pthread_t threads[MAX_THREADS];
static int n_threads;

static pthread_t spawn(void *(*run)(void *), struct worker like)
{
	struct worker *w = malloc(sizeof(*w));
	pthread_attr_t attr;
	pthread_t thread;

	if (!w)
		fail("malloc");
	*w = like;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	if (pthread_create(&thread, &attr, run, w))
		fail("pthread_create");
	pthread_attr_destroy(&attr);
	return thread;
}

static void start(int count, void *(*run)(void *), struct worker like)
{
	for (like.index = 0; like.index < count; like.index++) {
		if (n_threads == MAX_THREADS)
			return;
		threads[n_threads++] = spawn(run, like);
	}
}

static struct report *enter(const struct worker *w)
{
	int err = w->policy == SCHED_OTHER ? 0 : set_policy(w->policy, 10 + w->index % 4);

	if (err)
		atomic_store(&rt_errno, err);
	return report_begin(w->role);
}

static void *hog(void *arg)
{
	struct worker *w = arg;
	struct report *report = enter(w);

	while (!life_over())
		;
	report_end(report);
	free(w);
	return NULL;
}

static void *sleeper(void *arg)
{
	struct worker *w = arg;
	struct report *report = enter(w);
	int64_t period = (200 + 1800 * (w->index % 16) / 15) * US;

	while (!life_over()) {
		sleep_ns(period);
		burn_ns(20 * US);
	}
	report_end(report);
	free(w);
	return NULL;
}

static void *real_time(void *arg)
{
	struct worker *w = arg;
	struct report *report = enter(w);
	int64_t period = (5 + 5 * (w->index % 4)) * MS;

	/* At most 0.4 ms at a time: within what a SCHED_DEADLINE thread may use of 20 ms. */
	while (!life_over()) {
		sleep_ns(period);
		burn_ns(period / 20 < 400 * US ? period / 20 : 400 * US);
	}
	report_end(report);
	free(w);
	return NULL;
}

static void *yielder(void *arg)
{
	struct worker *w = arg;
	struct report *report = enter(w);

	while (!life_over()) {
		burn_ns(50 * US);
		sched_yield();
	}
	report_end(report);
	free(w);
	return NULL;
}

static void *sender(void *arg)
{
	struct worker *w = arg;
	struct report *report = enter(w);
	char message[MESSAGE] = {0};

	while (!life_over()) {
		for (int i = 0; i < w->n_fds; i++)
			if (write(w->fds[i], message, sizeof(message)) == sizeof(message))
				atomic_fetch_add_explicit(&messages, 1, memory_order_relaxed);
		sleep_ns(300 * US);
	}
	report_end(report);
	free(w);
	return NULL;
}

/* Ends when the write side is closed. */
static void *receiver(void *arg)
{
	struct worker *w = arg;
	struct report *report = enter(w);
	char message[MESSAGE];

	while (read(w->fds[w->index], message, sizeof(message)) > 0)
		;
	report_end(report);
	free(w);
	return NULL;
}

static void *short_lived(void *arg)
{
	struct worker *w = arg;
	struct report *report = enter(w);

	for (int i = 0; i < 2; i++) {
		burn_ns(100 * US);
		sleep_ns(500 * US);
	}
	report_end(report);
	free(w);
	return NULL;
}

struct group {
	int *readers, *writers;
	pthread_t *receivers;
	int size;
};

/* hackbench's pattern: every sender writes to every receiver; odd groups use pipes. */
static struct group start_group(int index, int size)
{
	struct group g = {calloc(size, sizeof(int)), calloc(size, sizeof(int)),
			  calloc(size, sizeof(pthread_t)), size};

	for (int i = 0; i < size; i++) {
		int fds[2];

		if (index % 2 ? pipe(fds) : socketpair(AF_UNIX, SOCK_STREAM, 0, fds))
			fail("pipe");
		g.readers[i] = fds[0];
		g.writers[i] = fds[1];
	}
	for (int i = 0; i < size; i++)
		g.receivers[i] =
		    spawn(receiver, (struct worker){"receiver", SCHED_OTHER, i, g.readers, size});
	start(size, sender, (struct worker){"sender", SCHED_OTHER, 0, g.writers, size});
	return g;
}

static void end_group(struct group *g)
{
	for (int i = 0; i < g->size; i++)
		close(g->writers[i]);
	for (int i = 0; i < g->size; i++) {
		pthread_join(g->receivers[i], NULL);
		close(g->readers[i]);
	}
	free(g->readers);
	free(g->writers);
	free(g->receivers);
}

static void churn(int64_t period_ns, int at_once)
{
	pthread_t *young = calloc(at_once, sizeof(*young));
	int n = 0;

	while (!life_over()) {
		if (n == at_once) {
			for (int i = 0; i < n; i++)
				pthread_join(young[i], NULL);
			n = 0;
		}
		young[n++] = spawn(short_lived, (struct worker){.role = "churn"});
		atomic_fetch_add(&born, 1);
		sleep_ns(period_ns);
	}
	for (int i = 0; i < n; i++)
		pthread_join(young[i], NULL);
	free(young);
}

int main(int argc, char **argv)
{
	int64_t duration = 5, hogs = 4, batch = 4, idle = 4, fifo = 4, rr = 4, deadline = 2;
	int64_t yielders = 2, sleepers = 120, groups = 4, group_size = 6, churn_us = 4000;
	const char *cgroup = NULL;
	const struct option_spec options[] = {
	    {"duration", NUMBER, &duration, "seconds"},
	    {"hogs", NUMBER, &hogs, "SCHED_OTHER threads that never sleep"},
	    {"batch", NUMBER, &batch, "SCHED_BATCH threads that never sleep"},
	    {"idle", NUMBER, &idle, "SCHED_IDLE threads that never sleep"},
	    {"fifo", NUMBER, &fifo, "SCHED_FIFO threads, 5 % busy"},
	    {"rr", NUMBER, &rr, "SCHED_RR threads, 5 % busy"},
	    {"deadline", NUMBER, &deadline, "SCHED_DEADLINE threads, under 2.5 % busy"},
	    {"yielders", NUMBER, &yielders, "threads that spin on sched_yield"},
	    {"sleepers", NUMBER, &sleepers, "threads that sleep 0.2 to 2 ms and work 20 us"},
	    {"groups", NUMBER, &groups, "messaging groups, sockets and pipes in turn"},
	    {"group-size", NUMBER, &group_size, "senders, and as many receivers, in a group"},
	    {"churn-us", NUMBER, &churn_us, "a thread is born this often; 0: never"},
	    {"cgroup", TEXT, &cgroup, "cgroup.procs file to join first"},
	    {0},
	};
	struct group *group;

	parse_options(argc, argv, "contend: threads of every kind fight for the CPUs", options);
	if (cgroup)
		join_cgroup(cgroup);
	life_begin(duration);
	reports_begin(1 << 16);

	start(sleepers, sleeper, (struct worker){.role = "sleeper"});
	start(fifo, real_time, (struct worker){.role = "fifo", .policy = SCHED_FIFO});
	start(rr, real_time, (struct worker){.role = "rr", .policy = SCHED_RR});
	start(deadline, real_time,
	      (struct worker){.role = "deadline", .policy = policy_number("deadline")});
	group = calloc(groups, sizeof(*group));
	for (int i = 0; i < groups; i++)
		group[i] = start_group(i, group_size);
	start(yielders, yielder, (struct worker){.role = "yielder"});
	start(hogs, hog, (struct worker){.role = "hog"});
	start(batch, hog, (struct worker){.role = "batch", .policy = SCHED_BATCH});
	start(idle, hog, (struct worker){.role = "idle", .policy = SCHED_IDLE});
	if (churn_us > 0)
		churn(churn_us * US, 16);

	for (int i = 0; i < n_threads; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < groups; i++)
		end_group(&group[i]);
	free(group);

	json_begin("contend");
	json_int("messages", messages);
	json_int("born", born);
	json_int("rt_errno", rt_errno);
	json_text("rt_error", rt_errno ? strerror(rt_errno) : "");
	json_end();
	return 0;
}
