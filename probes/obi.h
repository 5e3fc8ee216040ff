/* SPDX-License-Identifier: GPL-2.0 */
/* What the reader of OBI's map counts. */
#ifndef SLTRACE_OBI_H
#define SLTRACE_OBI_H

enum obi_counter {
	OBI_TAGGED, /* switches of threads that have a context there */
	OBI_TAGS_FULL,
	OBI_COUNTERS,
};

#endif
