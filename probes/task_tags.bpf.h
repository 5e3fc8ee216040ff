/* SPDX-License-Identifier: GPL-2.0 */
/* Tags of threads by tid. User space makes this map and gives it to every object. */
#ifndef SLTRACE_TASK_TAGS_BPF_H
#define SLTRACE_TASK_TAGS_BPF_H

#include "task_tag.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct task_tag);
} task_tags SEC(".maps");

#endif
