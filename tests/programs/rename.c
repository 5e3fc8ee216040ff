/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One task under several names: `before`, then `after` (prctl), then whatever --exec is called
 * once it has replaced itself. Each stage reports as its own row, with the stage as its role.
 *
 * --from-thread execs from a second thread: it takes over the process's pid as its own tid, and
 * the old main thread dies without an exit of its own that user space could see.
 */
#define _GNU_SOURCE
#include "common.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static int64_t sleeps = 20;
static const char *target = "/proc/self/exe";

static void stage(const char *name)
{
	struct report *report = report_begin(name);

	for (int i = 0; i < sleeps && !life_over(); i++) {
		sleep_ns(MS);
		burn_ns(100 * US);
	}
	report_end(report);
}

static void *named_stages(void *arg)
{
	char count[24];

	prctl(PR_SET_NAME, "before");
	stage("before");
	prctl(PR_SET_NAME, "after");
	stage("after");
	json_begin("rename");
	/* The document goes on in the new image: this is its field `first`. */
	printf(", \"first\": ");
	json_begin("rename");
	json_end();
	fflush(stdout);
	snprintf(count, sizeof(count), "%ld", sleeps);
	execl(target, "rename", "--sleeps", count, "--replaced", (char *)NULL);
	fail(target);
	return arg;
}

int main(int argc, char **argv)
{
	bool replaced = false, from_thread = false;
	const struct option_spec options[] = {
	    {"sleeps", NUMBER, &sleeps, "of 1 ms, in each stage"},
	    {"exec", TEXT, &target, "this program under another name (a link to it)"},
	    {"from-thread", FLAG, &from_thread, "exec from a second thread"},
	    {"replaced", FLAG, &replaced, "internal: this is the new image"},
	    {0},
	};
	pthread_t thread;

	parse_options(argc, argv, "rename: one task under several names", options);
	life_begin(MAX_SECONDS);
	reports_begin(2);
	if (replaced) {
		stage("exec");
		json_end();
		return 0;
	}
	if (!from_thread)
		named_stages(NULL);
	if (pthread_create(&thread, NULL, named_stages, NULL))
		fail("pthread_create");
	for (;;)
		pause();
}
