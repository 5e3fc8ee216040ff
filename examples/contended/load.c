/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The parts of a busy host, one per run: `web`, `batch`, `noisy`, `limited`, `audio`, `watchdog`.
 * Its functions are what the flame graphs show, so they keep their frame pointers and names.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NAMED __attribute__((noinline, noclone))
#define US    1000L
#define MS    (1000 * US)

static int64_t end_ns;

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 * MS + t.tv_nsec;
}

static int64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1000 * MS + t.tv_nsec;
}

static void burn(int64_t ns)
{
	int64_t until = cpu_ns() + ns;

	/* The clock of a thread's CPU time is a system call: mostly stay in user space. */
	while (cpu_ns() < until)
		for (volatile int i = 0; i < 4000; i++)
			;
}

/*
 * System calls go through two functions of ours: syscall() keeps no frame, so a frame-pointer
 * walk leaves out its caller, and must not leave out the one with the telling name.
 */
static NAMED long enter_kernel(long number, void *a, long b, long c, void *d)
{
	return syscall(number, a, b, c, d, NULL, 0);
}

static NAMED void sleep_ns(int64_t ns)
{
	struct timespec t = {ns / (1000 * MS), ns % (1000 * MS)};

	enter_kernel(SYS_nanosleep, &t, 0, 0, NULL);
}

/* ---- web: a listener hands requests to a pool ---- */

#define POOL 6

static atomic_uint queued; /* requests not yet taken; the futex word */
static atomic_long served;

static NAMED void wait_for_request(void)
{
	for (;;) {
		unsigned have = atomic_load(&queued);

		if (have && atomic_compare_exchange_weak(&queued, &have, have - 1))
			return;
		if (!have)
			enter_kernel(SYS_futex, &queued, FUTEX_WAIT_PRIVATE, 0, NULL);
	}
}

static NAMED void parse_request(void)
{
	burn(30 * US);
}

static NAMED void query_database(void)
{
	sleep_ns(300 * US);
	burn(20 * US);
}

static NAMED void render_page(void)
{
	burn(80 * US);
}

static NAMED void handle_request(void)
{
	parse_request();
	query_database();
	render_page();
	atomic_fetch_add(&served, 1);
}

static NAMED void *web_worker(void *arg)
{
	prctl(PR_SET_NAME, "web-worker");
	for (;;) {
		wait_for_request();
		if (now_ns() >= end_ns)
			return arg;
		handle_request();
	}
}

static NAMED void accept_requests(int count)
{
	atomic_fetch_add(&queued, count);
	enter_kernel(SYS_futex, &queued, FUTEX_WAKE_PRIVATE, count, NULL);
}

static void web(void)
{
	pthread_t pool[POOL];

	for (int i = 0; i < POOL; i++)
		if (pthread_create(&pool[i], NULL, web_worker, NULL))
			exit(1);
	prctl(PR_SET_NAME, "web-listener");
	/* One request each ms, whether or not the listener got a CPU in time: users do not wait. */
	for (int64_t next_ns = now_ns(); next_ns < end_ns;) {
		int due = 0;

		sleep_ns(MS);
		for (; next_ns < now_ns(); next_ns += MS)
			due++;
		accept_requests(due);
	}
	accept_requests(POOL);
	for (int i = 0; i < POOL; i++)
		pthread_join(pool[i], NULL);
	fprintf(stderr, "web: %ld requests served\n", served);
}

/* ---- everyone else ---- */

static NAMED void compress_block(void)
{
	burn(20 * MS);
}

static NAMED void write_block(void)
{
	sleep_ns(2 * MS);
}

static NAMED void *compress(void *arg)
{
	while (now_ns() < end_ns) {
		compress_block();
		write_block();
	}
	return arg;
}

static NAMED void mine_block(void)
{
	burn(10 * MS);
}

/* Three seconds on, one off: the report shows when the neighbour was there. */
static NAMED void *mine(void *arg)
{
	while (now_ns() < end_ns) {
		int64_t until = now_ns() + 3000 * MS;

		while (now_ns() < until && now_ns() < end_ns)
			mine_block();
		sleep_ns(1000 * MS);
	}
	return arg;
}

static NAMED void convert_image(void)
{
	burn(3 * MS);
}

static NAMED void *convert(void *arg)
{
	while (now_ns() < end_ns) {
		convert_image();
		sleep_ns(2 * MS);
	}
	return arg;
}

static NAMED void mix_audio(void)
{
	burn(MS);
}

static NAMED void *play(void *arg)
{
	while (now_ns() < end_ns) {
		mix_audio();
		sleep_ns(9 * MS);
	}
	return arg;
}

static NAMED void *check(void *arg)
{
	while (now_ns() < end_ns) {
		burn(2 * MS);
		sleep_ns(98 * MS);
	}
	return arg;
}

static void real_time(int policy, int priority)
{
	struct sched_param param = {.sched_priority = priority};

	if (sched_setscheduler(0, policy, &param))
		fprintf(stderr, "no real-time priority: %s\n", strerror(errno));
}

static void crew(const char *comm, int count, void *(*work)(void *))
{
	pthread_t threads[16];

	prctl(PR_SET_NAME, comm);
	for (int i = 0; i < count; i++)
		if (pthread_create(&threads[i], NULL, work, NULL))
			exit(1);
	for (int i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
}

int main(int argc, char **argv)
{
	const char *part = argc == 3 ? argv[1] : "";
	int seconds = argc == 3 ? atoi(argv[2]) : 0;
	struct sched_param none = {0};

	if (seconds < 1 || seconds > 300) {
		fprintf(stderr, "usage: load PART SECONDS (1 to 300)\n");
		return 2;
	}
	alarm(seconds + 10);
	end_ns = now_ns() + seconds * 1000 * MS;
	if (!strcmp(part, "web")) {
		web();
	} else if (!strcmp(part, "batch")) {
		sched_setscheduler(0, SCHED_BATCH, &none);
		crew("compress", 3, compress);
	} else if (!strcmp(part, "noisy")) {
		crew("miner", 1, mine);
	} else if (!strcmp(part, "limited")) {
		crew("thumbnail", 2, convert);
	} else if (!strcmp(part, "audio")) {
		real_time(SCHED_FIFO, 20);
		crew("audio", 1, play);
	} else if (!strcmp(part, "watchdog")) {
		real_time(SCHED_RR, 10);
		crew("watchdog", 2, check);
	} else {
		fprintf(stderr, "no part %s\n", part);
		return 2;
	}
	return 0;
}
