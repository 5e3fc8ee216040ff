/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Trace and span id of a goroutine from OpenTelemetry's SDK, which keeps them where no reader can
 * follow: in a context that is passed from function to function. So its spans are followed: each
 * one from newRecordingSpan(..., psc, sc trace.SpanContext, ...) to (*recordingSpan).End.
 *
 * The two contexts are on the stack: a structure with an array is never in registers (Go's
 * src/cmd/compile/abi-internal.md). That they are what they are taken for is not believed before
 * a span that ends was found to hold, byte for byte, the context it seemed to begin with; where
 * in it is learned from that.
 */
#ifndef SLTRACE_GO_SPANS_BPF_H
#define SLTRACE_GO_SPANS_BPF_H

#define MAX_SPANS    65536
#define SPAN_BYTES   400 /* of a span, where its context is looked for */
#define PARENT_AT    8   /* on the stack, over the return address */
#define CONTEXT_SIZE 64

/* The beginning of a trace.SpanContext. */
struct span_context {
	u64 trace_id[2];
	u64 span_id;
};

struct span_key {
	u64 span_id;
	u64 target;
};

struct goroutine_key {
	u64 goid;
	u64 target;
};

struct span {
	u64 goid; /* that began it */
	u64 parent;
	u64 trace_id[2];
	u64 since; /* its end will be seen while the probes are on since then; 0: it may not be */
};

struct within {
	struct span_context context;
	u64 since;
};

/* Spans that have not ended. Not the kind that forgets: an end that is missed is a wrong tag. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, 1); /* BPF_F_NO_PREALLOC: few services have any */
	__uint(max_entries, MAX_SPANS);
	__type(key, struct span_key);
	__type(value, struct span);
} go_spans SEC(".maps");

/* The span each goroutine began last, of those that have not ended. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, 1);
	__uint(max_entries, MAX_SPANS);
	__type(key, struct goroutine_key);
	__type(value, struct within);
} go_within SEC(".maps");

/* 0 before the layout was learned: which span ends is not known then. */
static __always_inline u64 ends_seen_since(const struct go_target *t)
{
	return t->span_context_at ? on_since(t) : 0;
}

static __always_inline void span_begin(const struct go_target *t, u64 goid, u64 sp)
{
	u64 since = ends_seen_since(t);
	struct within now = {.since = since};
	struct span_context parent, own;
	struct span_key key = {.target = t->number};
	struct goroutine_key who = {.goid = goid, .target = t->number};
	struct span span = {.goid = goid, .since = since};

	if (bpf_probe_read_user(&parent, sizeof(parent), (void *)(sp + PARENT_AT)) ||
	    bpf_probe_read_user(&own, sizeof(own), (void *)(sp + PARENT_AT + CONTEXT_SIZE))) {
		count(GO_UNREADABLE);
		return;
	}
	/* A span is of its parent's trace, or the first of one of its own. */
	if (!(own.trace_id[0] | own.trace_id[1]) || !own.span_id ||
	    ((parent.trace_id[0] | parent.trace_id[1]) &&
	     (parent.trace_id[0] != own.trace_id[0] || parent.trace_id[1] != own.trace_id[1]))) {
		count(GO_STRANGE);
		return;
	}
	key.span_id = own.span_id;
	span.parent = parent.span_id;
	span.trace_id[0] = own.trace_id[0];
	span.trace_id[1] = own.trace_id[1];
	if (bpf_map_update_elem(&go_spans, &key, &span, BPF_ANY)) {
		count(GO_SPANS_FULL);
		return;
	}
	now.context = own;
	if (bpf_map_update_elem(&go_within, &who, &now, BPF_ANY)) {
		bpf_map_delete_elem(&go_within, &who);
		count(GO_SPANS_FULL);
	}
}

/* 1 or 0, without a branch: each would double what the verifier has to follow in a loop. */
static __always_inline u64 is_zero(u64 value)
{
	value = ~(value | -value) >> 63;
	asm volatile("" : "+r"(value));
	return value;
}

/*
 * Where in a span its context is: where that of the span this goroutine began last lies. If
 * another one ends, that may be its parent, whose context it has, too: a span that began a trace
 * has its trace id once, others have their own parent's context beside it.
 */
static __noinline u32 span_learn(const struct go_target *t, struct go_scratch *s, u64 address,
				 u64 goid)
{
	struct goroutine_key who = {.goid = goid, .target = t->number};
	struct span_key key = {.target = t->number};
	u64 same_trace = 0, owns = 0, parents = 0, found = 0;
	struct span_context *own;
	struct within *within;
	struct span *span;
	u32 i;

	within = bpf_map_lookup_elem(&go_within, &who);
	if (!within || !s || bpf_probe_read_user(s->goroutine.bytes, SPAN_BYTES, (void *)address))
		return 0;
	own = &within->context;
	key.span_id = own->span_id;
	span = bpf_map_lookup_elem(&go_spans, &key);
	if (!span)
		return 0;
	for (i = 0; i < SPAN_BYTES / 8 - 2; i++) {
		struct span_context *at = (void *)(s->goroutine.bytes + 8 * i);
		u64 other =
		    (at->trace_id[0] ^ own->trace_id[0]) | (at->trace_id[1] ^ own->trace_id[1]);
		u64 is_own = is_zero(other | (at->span_id ^ own->span_id));

		same_trace += is_zero(other);
		parents += is_zero(other | (at->span_id ^ span->parent));
		owns += is_own;
		found |= 8 * i & -is_own;
	}
	if (owns != 1 || parents != !!span->parent || same_trace != owns + parents)
		return 0;
	return found;
}

static __always_inline void span_end(const struct go_target *t, const struct span_context *own)
{
	struct span_key key = {.span_id = own->span_id, .target = t->number};
	struct span_key parent = {.target = t->number};
	struct span *span = bpf_map_lookup_elem(&go_spans, &key), *above;
	struct goroutine_key who = {.target = t->number};
	struct within *within, outer = {.since = ends_seen_since(t)};

	if (!span)
		return;
	who.goid = span->goid;
	parent.span_id = span->parent;
	bpf_map_delete_elem(&go_spans, &key);
	within = bpf_map_lookup_elem(&go_within, &who);
	if (!within || within->context.span_id != own->span_id)
		return;
	above = parent.span_id ? bpf_map_lookup_elem(&go_spans, &parent) : NULL;
	if (!above || !above->since || above->since != outer.since || above->goid != who.goid) {
		bpf_map_delete_elem(&go_within, &who);
		return;
	}
	outer.context.trace_id[0] = above->trace_id[0];
	outer.context.trace_id[1] = above->trace_id[1];
	outer.context.span_id = parent.span_id;
	if (bpf_map_update_elem(&go_within, &who, &outer, BPF_ANY))
		bpf_map_delete_elem(&go_within, &who);
}

/* The span a goroutine is within, unless its labels have told. */
static __always_inline void span_take(const struct go_target *t, u64 goid, struct task_tag *tag)
{
	struct goroutine_key who = {.goid = goid, .target = t->number};
	u64 since = ends_seen_since(t);
	struct within *within;

	if (!since || tag->id_source)
		return;
	within = bpf_map_lookup_elem(&go_within, &who);
	if (!within || within->since != since)
		return;
	__builtin_memcpy(tag->trace_id, within->context.trace_id, sizeof(tag->trace_id));
	__builtin_memcpy(tag->span_id, &within->context.span_id, sizeof(tag->span_id));
	tag->id_source = ID_OTEL_SDK;
}

#endif
