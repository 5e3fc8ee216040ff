/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Pairs of threads that wake each other in turn, over pipes or a futex, on one CPU or two.
 *
 * Known answer: only `ping I` wakes `pong I` and the reverse, and a woken thread's sleeps are its
 * voluntary switches.
 */
#define _GNU_SOURCE
#include "common.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct pair {
	int index, ping_cpu, pong_cpu; /* -1: not pinned */
	bool futex;
	atomic_bool over;
	int64_t rounds, rate;
	int to_pong[2], to_ping[2];
	_Alignas(64) atomic_uint pong_word;
	_Alignas(64) atomic_uint ping_word;
	int64_t done;
	pthread_t ping, pong;
};

static pthread_barrier_t ready;

static void futex_wake(atomic_uint *word)
{
	atomic_fetch_add(word, 1);
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void futex_wait(atomic_uint *word, unsigned seen)
{
	while (atomic_load(word) == seen)
		syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void wake(struct pair *p, bool pong)
{
	if (p->futex)
		futex_wake(pong ? &p->pong_word : &p->ping_word);
	else if (write(pong ? p->to_pong[1] : p->to_ping[1], "x", 1) != 1)
		fail("write");
}

static void await(struct pair *p, bool pong, unsigned seen)
{
	char what;

	if (p->futex)
		futex_wait(pong ? &p->pong_word : &p->ping_word, seen);
	else if (read(pong ? p->to_pong[0] : p->to_ping[0], &what, 1) != 1)
		fail("read");
}

/* Sleeps when ahead of `rate` rounds a second; looked at every 64 rounds. */
static void pace(const struct pair *p, int64_t start_ns)
{
	int64_t due;

	if (!p->rate || p->done % 64)
		return;
	due = start_ns + p->done * (SECOND / p->rate);
	if (now_ns() < due)
		sleep_until_ns(due);
}

static struct report *enter(const char *side, int pair)
{
	char role[20];

	snprintf(role, sizeof(role), "%s %d", side, pair);
	return report_begin(role);
}

static void *ping(void *arg)
{
	struct pair *p = arg;
	struct report *report;
	int64_t start_ns;

	if (p->ping_cpu >= 0)
		pin(p->ping_cpu);
	report = enter("ping", p->index);
	pthread_barrier_wait(&ready);
	start_ns = now_ns();
	while ((!p->rounds || p->done < p->rounds) && !life_over()) {
		unsigned seen = atomic_load(&p->ping_word);

		wake(p, true);
		await(p, false, seen);
		p->done++;
		pace(p, start_ns);
	}
	atomic_store(&p->over, true);
	wake(p, true);
	report_end(report);
	return NULL;
}

static void *pong(void *arg)
{
	struct pair *p = arg;
	struct report *report;

	if (p->pong_cpu >= 0)
		pin(p->pong_cpu);
	report = enter("pong", p->index);
	pthread_barrier_wait(&ready);
	for (unsigned seen = 0;; seen++) {
		await(p, true, seen);
		if (atomic_load(&p->over))
			break;
		wake(p, false);
	}
	report_end(report);
	return NULL;
}

int main(int argc, char **argv)
{
	int64_t duration = 5, rounds = 0, rate = 0, pairs = 1, ping_cpu = -1, pong_cpu = -1;
	int64_t total = 0, start_ns;
	const char *via = "pipe";
	bool spread = false;
	const struct option_spec options[] = {
	    {"duration", NUMBER, &duration, "seconds at most"},
	    {"rounds", NUMBER, &rounds, "rounds of each pair; 0: as many as fit"},
	    {"rate", NUMBER, &rate, "rounds a second of each pair at most; 0: no limit"},
	    {"pairs", NUMBER, &pairs, "pairs of threads"},
	    {"via", TEXT, &via, "pipe or futex"},
	    {"ping-cpu", NUMBER, &ping_cpu, "pin the pings there"},
	    {"pong-cpu", NUMBER, &pong_cpu, "pin the pongs there"},
	    {"spread", FLAG, &spread, "pin the i-th pair, both threads, to the i-th CPU"},
	    {0},
	};
	struct pair *all;

	parse_options(argc, argv, "pingpong: pairs of threads that wake each other", options);
	if (pairs < 1 || pairs > 1024) {
		fprintf(stderr, "--pairs is 1 to 1024\n");
		return 2;
	}
	life_begin(duration);
	reports_begin(2 * pairs);
	pthread_barrier_init(&ready, NULL, 2 * pairs + 1);
	all = aligned_alloc(64, pairs * sizeof(*all));
	memset(all, 0, pairs * sizeof(*all));
	for (int i = 0; i < pairs; i++) {
		struct pair *p = &all[i];

		p->index = i;
		p->ping_cpu = spread ? nth_cpu(i) : (int)ping_cpu;
		p->pong_cpu = spread ? nth_cpu(i) : (int)pong_cpu;
		p->futex = !strcmp(via, "futex");
		p->rounds = rounds;
		p->rate = rate;
		if (pipe(p->to_pong) || pipe(p->to_ping))
			fail("pipe");
		if (pthread_create(&p->ping, NULL, ping, p) ||
		    pthread_create(&p->pong, NULL, pong, p))
			fail("pthread_create");
	}
	pthread_barrier_wait(&ready);
	start_ns = now_ns();
	for (int i = 0; i < pairs; i++) {
		pthread_join(all[i].ping, NULL);
		pthread_join(all[i].pong, NULL);
		total += all[i].done;
	}
	json_begin("pingpong");
	json_int("rounds", total);
	json_int("elapsed_ns", now_ns() - start_ns);
	json_end();
	return 0;
}
