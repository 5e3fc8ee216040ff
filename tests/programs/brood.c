/* SPDX-License-Identifier: GPL-2.0 */
/* One process with more children than a table holds, one after the other, and a few late ones. */
#define _GNU_SOURCE
#include "common.h"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int64_t duration = 20, births = 17000, late = 3;
	const struct option_spec options[] = {
	    {"duration", NUMBER, &duration, "seconds at most"},
	    {"births", NUMBER, &births, "children that end at once"},
	    {"late", NUMBER, &late, "children after them, called `late`, that sleep"},
	    {0},
	};

	parse_options(argc, argv, "brood: very many children, one after the other", options);
	life_begin(duration);
	for (int64_t i = 0; i < births && !life_over(); i++) {
		pid_t child = vfork();

		if (child == 0)
			_exit(0);
		waitpid(child, NULL, 0);
	}
	for (int64_t i = 0; i < late && !life_over(); i++) {
		pid_t child = fork();

		if (child == 0) {
			prctl(PR_SET_NAME, "late");
			sleep_ns(20 * MS);
			_exit(0);
		}
		waitpid(child, NULL, 0);
	}
	return 0;
}
