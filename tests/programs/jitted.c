/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Sleeps in code that it made itself, as a JIT does, and told of in a perf map. Nothing of it is
 * there any more once it has slept.
 */
#include "common.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* mov $35, %eax (nanosleep); syscall; ret */
static const unsigned char code[] = {0xb8, 35, 0, 0, 0, 0x0f, 0x05, 0xc3};

int main(int argc, char **argv)
{
	int64_t duration = MAX_SECONDS;
	const struct option_spec options[] = {{"duration", NUMBER, &duration, "seconds"}, {0}};
	const struct timespec time = {.tv_nsec = MS};
	char path[64];
	FILE *map;
	struct report *report;
	char *made;

	parse_options(argc, argv, "jitted: a process that makes its code", options);
	life_begin((double)duration);
	reports_begin(1);
	made = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0);
	if (made == MAP_FAILED)
		fail("mmap");
	memcpy(made, code, sizeof(code));
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", getpid());
	map = fopen(path, "w");
	if (!map)
		fail(path);
	fprintf(map, "%lx %zx jitted_nap\n", (unsigned long)made, sizeof(code));
	fclose(map);
	report = report_begin("napper");
	while (!life_over())
		((long (*)(const void *, void *))made)(&time, NULL);
	report_end(report);
	json_begin("jitted");
	json_end();
	return 0;
}
