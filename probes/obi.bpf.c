// SPDX-License-Identifier: GPL-2.0
/*
 * Trace and span ids that OpenTelemetry's eBPF instrumentation (OBI) keeps for whoever wants them:
 * a pinned map, traces_ctx_v1, from thread to what it is on. Any language; nothing is probed.
 *
 * Runs after the programs that look into a runtime, whose own ids are left as they are.
 */
#include "kernel_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "obi.h"
#include "task_values.h"
#include "task_tags.bpf.h"

char LICENSE[] SEC("license") = "GPL";

struct obi_context {
	u8 trace_id[16];
	u8 span_id[8];
};

/* User space puts OBI's own map here. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, u64);
	__type(value, struct obi_context);
} obi_contexts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, OBI_COUNTERS);
	__type(key, u32);
	__type(value, u64);
} obi_counters SEC(".maps");

/* Only so that the object's BTF describes it. */
const enum obi_counter *obi_counter_layout;

static __always_inline void count(u32 what)
{
	u64 *value = bpf_map_lookup_elem(&obi_counters, &what);

	if (value)
		(*value)++;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(obi_switch, bool preempt, struct task_struct *prev)
{
	u64 thread = (u64)prev->tgid << 32 | (u32)prev->pid;
	struct task_tag fresh = {}, *tag;
	struct obi_context *context = NULL;
	u32 tid = prev->pid;

	if (!tid)
		return 0;
	/* What is left after obi_exit would be another's. */
	if (!(prev->flags & PF_EXITING))
		context = bpf_map_lookup_elem(&obi_contexts, &thread);
	tag = bpf_map_lookup_elem(&task_tags, &tid);
	if (!context) {
		/* Of a runtime's thread the tag is new with every switch, and has no id of ours. */
		if (tag && tag->id_source == ID_OBI)
			bpf_map_delete_elem(&task_tags, &tid);
		return 0;
	}
	if (tag && tag->id_source != ID_NONE && tag->id_source != ID_OBI)
		return 0;
	count(OBI_TAGGED);
	if (!tag)
		tag = &fresh;
	__builtin_memcpy(tag->trace_id, context->trace_id, sizeof(tag->trace_id));
	__builtin_memcpy(tag->span_id, context->span_id, sizeof(tag->span_id));
	tag->id_source = ID_OBI;
	if (tag == &fresh && bpf_map_update_elem(&task_tags, &tid, &fresh, BPF_ANY))
		count(OBI_TAGS_FULL);
	return 0;
}

/* A thread's number is used again. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(obi_exit, struct task_struct *t)
{
	u32 tid = t->pid;
	struct task_tag *tag = bpf_map_lookup_elem(&task_tags, &tid);

	if (tag && tag->id_source == ID_OBI)
		bpf_map_delete_elem(&task_tags, &tid);
	return 0;
}
