/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What every load program shares: arguments, a bounded life, and threads that report what the
 * kernel says about them.
 *
 * A thread's readings bracket its work: `begin` right after it started, `end` right before it
 * exits. Each reading is taken within one time slice (repeated until no switch fell into it), so
 * its clock and its counters belong to the same instant. What follows `end` is the thread's way
 * out (a futex wake, an munmap, exit): tens of microseconds, in which a wait or two may still end.
 */
#ifndef LOAD_COMMON_H
#define LOAD_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAX_SECONDS 60
#define US          1000LL
#define MS          (1000 * US)
#define SECOND      (1000 * MS)

struct reading {
	int64_t ns; /* CLOCK_MONOTONIC */
	int64_t
	    cpu_ns; /* the three fields of schedstat; this one is as of the last tick or switch */
	int64_t run_delay_ns;
	int64_t timeslices;
	int64_t nvcsw;
	int64_t nivcsw;
};

struct report {
	int pid, tid; /* as /proc shows them */
	int ns_tid;   /* in the thread's own pid namespace */
	int policy;
	int done;
	char role[20];
	struct reading begin, end;
};

enum option_type { NUMBER, TEXT, FLAG };

/* `to` is an int64_t, a const char * or a bool. */
struct option_spec {
	const char *name;
	enum option_type type;
	void *to;
	const char *help;
};

/* Takes `--name value` or `--name` (FLAG); anything else prints the help and exits with 2. */
void parse_options(int argc, char **argv, const char *about, const struct option_spec *options);

/*
 * Starts the bounded life: --duration seconds (at most MAX_SECONDS) from now, SIGTERM and SIGINT
 * end it early, alarm() kills the process 10 s later whatever happens. Call before any thread.
 */
void life_begin(double seconds);
bool life_over(void);
int64_t life_end_ns(void);
void life_stop(void);
/* For a forked child: dies with its parent and has its own alarm. */
void life_inherit(void);

int64_t now_ns(void);
int64_t thread_cpu_ns(void);
void sleep_ns(int64_t ns);
void sleep_until_ns(int64_t ns);
/* Spins until this thread has used that much CPU, or life is over. */
void burn_ns(int64_t cpu_ns);

void pin(int cpu);
/* The n-th CPU this process may run on, counted round and round. */
int nth_cpu(int n);
/* Writes this process into a cgroup.procs file. Exits with 3 if the kernel refuses. */
void join_cgroup(const char *procs_file);
/* Number of a policy by name; exits with 2 if there is none. */
int policy_number(const char *name);
/*
 * For the calling thread; returns 0, or the errno and leaves the policy as it was. SCHED_DEADLINE
 * gets 0.5 ms in every 20 ms, and needs a thread that may run on every CPU.
 */
int set_policy(int policy, int priority);

/* The table is shared with forked children; call it once, before threads and forks. */
void reports_begin(int capacity);
/* NULL when the table is full, which report_end takes and the output's `unreported` counts. */
struct report *report_begin(const char *role);
void report_end(struct report *report);

/* The one JSON document: json_begin, any fields, json_end (which adds the threads). */
void json_begin(const char *program);
void json_int(const char *name, int64_t value);
void json_text(const char *name, const char *value);
void json_end(void);

void fail(const char *what) __attribute__((noreturn));

#endif
