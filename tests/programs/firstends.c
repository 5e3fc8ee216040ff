/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The first thread ends, and another goes on: it sleeps in `early_nap`, and later in `late_nap`.
 */
#include "common.h"

#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>

static int64_t first_ms, early_ms = 500, late_ms = 500;

/*
 * Each makes the call itself: of a caller nothing is known without frame pointers. Of two that are
 * alike the compiler makes one.
 */
#define NAP(name, ms)                                                                              \
	static __attribute__((noinline)) void name(void)                                           \
	{                                                                                          \
		const struct timespec time = {.tv_nsec = (ms) * MS};                               \
		long result;                                                                       \
                                                                                                   \
		__asm__ volatile("syscall"                                                         \
				 : "=a"(result)                                                    \
				 : "0"(SYS_nanosleep), "D"(&time), "S"(0)                          \
				 : "rcx", "r11", "memory");                                        \
	}

NAP(early_nap, 1)
NAP(late_nap, 2)

static void *napper(void *arg)
{
	struct report *report = report_begin("napper");
	int64_t start = now_ns();

	while (!life_over() && now_ns() < start + early_ms * MS)
		early_nap();
	while (!life_over() && now_ns() < start + (early_ms + late_ms) * MS)
		late_nap();
	report_end(report);
	json_begin("firstends");
	json_end();
	return arg;
}

int main(int argc, char **argv)
{
	const struct option_spec options[] = {
	    {"first-ms", NUMBER, &first_ms, "that the first thread sleeps before it ends"},
	    {"early-ms", NUMBER, &early_ms, "of early_nap"},
	    {"late-ms", NUMBER, &late_ms, "of late_nap, after that"},
	    {0},
	};
	pthread_t thread;

	parse_options(argc, argv, "firstends: a process whose first thread ends", options);
	life_begin(MAX_SECONDS);
	reports_begin(1);
	if (pthread_create(&thread, NULL, napper, NULL))
		fail("pthread_create");
	sleep_ns(first_ms * MS);
	pthread_exit(NULL);
}
