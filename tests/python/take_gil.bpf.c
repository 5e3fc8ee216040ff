// SPDX-License-Identifier: GPL-2.0
/* Witness: how long each call of the interpreter's own take_gil() took. */
#include "kernel_types.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

#define MAX_CALLS (1 << 17)

struct taken {
	u64 start_ns;
	u64 end_ns;
	u64 tid;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_CALLS);
	__type(key, u32);
	__type(value, struct taken);
} calls SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, u64);
} begun SEC(".maps");

u32 used;

SEC("uprobe")
int begin(void *ctx)
{
	u32 tid = bpf_get_current_pid_tgid();
	u64 now = bpf_ktime_get_ns();

	bpf_map_update_elem(&begun, &tid, &now, BPF_ANY);
	return 0;
}

SEC("uretprobe")
int end(void *ctx)
{
	u32 tid = bpf_get_current_pid_tgid(), index;
	u64 *start = bpf_map_lookup_elem(&begun, &tid);
	struct taken *call;

	if (!start)
		return 0;
	index = __sync_fetch_and_add(&used, 1);
	call = bpf_map_lookup_elem(&calls, &index);
	if (call) {
		call->start_ns = *start;
		call->end_ns = bpf_ktime_get_ns();
		call->tid = tid;
	}
	return 0;
}
