/* SPDX-License-Identifier: GPL-2.0 */
/* What threads report, and the JSON document it ends up in. */
#define _GNU_SOURCE
#include "common.h"

#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- reports ---- */

static struct table {
	atomic_int used;
	int capacity;
	struct report rows[];
} *table;

void reports_begin(int capacity)
{
	size_t size = sizeof(*table) + (size_t)capacity * sizeof(*table->rows);

	table = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (table == MAP_FAILED)
		fail("mmap");
	table->capacity = capacity;
}

static void read_schedstat(int fd, struct reading *r)
{
	char text[96];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	if (n <= 0)
		fail("read schedstat");
	text[n] = 0;
	if (sscanf(text, "%ld %ld %ld", &r->cpu_ns, &r->run_delay_ns, &r->timeslices) != 3)
		fail("parse schedstat");
}

static void take_reading(struct reading *r)
{
	/* thread-self, not self/task/TID: right in any pid namespace. */
	int fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	struct reading after;
	struct rusage usage;

	if (fd < 0)
		fail("/proc/thread-self/schedstat");
	do {
		read_schedstat(fd, r);
		/* The counters behind voluntary_ctxt_switches of .../status, without the file. */
		getrusage(RUSAGE_THREAD, &usage);
		r->ns = now_ns();
		read_schedstat(fd, &after);
	} while (after.timeslices != r->timeslices);
	close(fd);
	r->nvcsw = usage.ru_nvcsw;
	r->nivcsw = usage.ru_nivcsw;
}

struct report *report_begin(const char *role)
{
	int row = atomic_fetch_add(&table->used, 1);
	struct report *report;
	char link[64] = "";

	if (row >= table->capacity)
		return NULL;
	report = &table->rows[row];
	snprintf(report->role, sizeof(report->role), "%s", role);
	/* PID/task/TID as the namespace of this /proc sees them. */
	if (readlink("/proc/thread-self", link, sizeof(link) - 1) < 0 ||
	    sscanf(link, "%d/task/%d", &report->pid, &report->tid) != 2)
		fail("readlink /proc/thread-self");
	report->ns_tid = (int)syscall(SYS_gettid);
	take_reading(&report->begin);
	return report;
}

void report_end(struct report *report)
{
	if (!report)
		return;
	report->policy = sched_getscheduler(0);
	report->done = 1;
	take_reading(&report->end);
}

/* ---- output ---- */

static void json_string(const char *text)
{
	putchar('"');
	for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
		if (*c < 0x20 || *c == '"' || *c == '\\' || *c >= 0x7f)
			printf("\\u%04x", *c);
		else
			putchar(*c);
	}
	putchar('"');
}

void json_begin(const char *program)
{
	printf("{\"program\": ");
	json_string(program);
}

void json_int(const char *name, int64_t value)
{
	printf(", \"%s\": %ld", name, value);
}

void json_text(const char *name, const char *value)
{
	printf(", \"%s\": ", name);
	json_string(value);
}

static void json_report(const struct report *t)
{
	const struct reading *b = &t->begin, *e = &t->end;

	printf("{\"role\": ");
	json_string(t->role);
	printf(", \"pid\": %d, \"tid\": %d, \"ns_tid\": %d, \"policy\": %d, \"start_ns\": %ld, "
	       "\"end_ns\": %ld, \"cpu_ns\": %ld, \"run_delay_ns\": %ld, \"timeslices\": %ld, "
	       "\"nvcsw\": %ld, \"nivcsw\": %ld, \"run_delay_before_ns\": %ld}",
	       t->pid, t->tid, t->ns_tid, t->policy, b->ns, e->ns, e->cpu_ns - b->cpu_ns,
	       e->run_delay_ns - b->run_delay_ns, e->timeslices - b->timeslices,
	       e->nvcsw - b->nvcsw, e->nivcsw - b->nivcsw, b->run_delay_ns);
}

void json_end(void)
{
	int used = atomic_load(&table->used), printed = 0, undone = 0;

	if (used > table->capacity)
		json_int("unreported", used - table->capacity);
	used = used < table->capacity ? used : table->capacity;
	printf(", \"threads\": [");
	for (int i = 0; i < used; i++) {
		if (!table->rows[i].done) {
			undone++;
			continue;
		}
		printf(printed++ ? ",\n" : "\n");
		json_report(&table->rows[i]);
	}
	printf("\n]");
	json_int("unfinished", undone);
	printf("}\n");
	if (fflush(stdout))
		exit(1);
}
