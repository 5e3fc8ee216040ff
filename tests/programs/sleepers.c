/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Known stacks: one thread sleeps in main > outer_call > middle_call > inner_sleep, another spins
 * in outer_spin > inner_clock > clock_gettime, which is in the vdso.
 *
 * Built with frame pointers, and the sleep is a system call of inner_sleep itself, so that the
 * whole chain can be walked.
 */
#define _GNU_SOURCE
#include "common.h"

#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>

#define NOINLINE __attribute__((noinline))

static int64_t cpu = -1;

static NOINLINE long inner_sleep(const struct timespec *span)
{
	long result;

	/* Without a frame of its own its caller could not be seen. */
	asm volatile("" : : "r"(__builtin_frame_address(0)));
	asm volatile("syscall"
		     : "=a"(result)
		     : "a"(SYS_nanosleep), "D"(span), "S"(NULL)
		     : "rcx", "r11", "memory");
	return result;
}

static NOINLINE long middle_call(const struct timespec *span)
{
	return inner_sleep(span) + 1;
}

static NOINLINE long outer_call(const struct timespec *span)
{
	return middle_call(span) + 1;
}

static NOINLINE long inner_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_nsec & 1;
}

static NOINLINE long outer_spin(void)
{
	return inner_clock() + 1;
}

static void *spin(void *arg)
{
	long sum = 0;

	if (cpu >= 0)
		pin(cpu);
	while (!life_over())
		sum += outer_spin();
	*(long *)arg = sum;
	return NULL;
}

int main(int argc, char **argv)
{
	const struct timespec span = {0, MS};
	int64_t duration = 2;
	const struct option_spec options[] = {
	    {"duration", NUMBER, &duration, "seconds"},
	    {"cpu", NUMBER, &cpu, "pin the spinning thread to this CPU"},
	    {0},
	};
	struct report *report;
	long sum = 0, spun;
	pthread_t spinner;

	parse_options(argc, argv, "sleepers: known stacks", options);
	life_begin(duration);
	reports_begin(1);
	if (pthread_create(&spinner, NULL, spin, &spun))
		fail("pthread_create");
	report = report_begin("sleeper");
	while (!life_over())
		sum += outer_call(&span);
	report_end(report);
	pthread_join(spinner, NULL);
	json_begin("sleepers");
	json_int("sum", sum + spun);
	json_end();
	return 0;
}
