/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Trace and span id of a goroutine from its pprof labels: a sorted list of pairs of strings since
 * Go 1.24, a map of at most 8 per bucket before. Never more than 8 are looked at.
 */
#ifndef SLTRACE_GO_LABELS_BPF_H
#define SLTRACE_GO_LABELS_BPF_H

#define MAX_LABELS      8
#define TRACE_HEX       32
#define SPAN_HEX        16
#define MAP_B           9  /* of runtime.hmap */
#define MAP_BUCKETS     16 /* likewise */
#define MAP_BUCKET_USED 5  /* smallest tophash of a slot in use */

struct go_string {
	u64 data;
	u64 length;
};

struct go_bucket {
	u8 tophash[8];
	struct go_string keys[8];
	struct go_string values[8];
};

static __always_inline bool same_key(const char *text, u64 length,
				     const volatile struct go_label_key *key)
{
	int i;

	if (key->length != length)
		return false;
	for (i = 0; i < GO_LABEL_BYTES / 8; i++)
		if (((u64 *)text)[i] != ((const volatile u64 *)key->text)[i])
			return false;
	return true;
}

static __always_inline int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Reads `digits` hex digits; false, and zeros, where there is anything else. */
static __always_inline bool read_hex(u64 from, u8 *out, const u32 digits)
{
	char text[TRACE_HEX];
	u32 i;

	if (bpf_probe_read_user(text, digits, (void *)from))
		return false;
	for (i = 0; i < digits / 2; i++) {
		int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);

		if (high < 0 || low < 0) {
			__builtin_memset(out, 0, digits / 2);
			return false;
		}
		out[i] = high << 4 | low;
	}
	return true;
}

/* A function of its own, so that it is verified once: within the loops it took 1.5 s (measured). */
__noinline int take_label(struct go_string *key, struct go_string *value, struct task_tag *tag)
{
	char text[GO_LABEL_BYTES] __attribute__((aligned(8))) = {};
	u64 length;
	int i;

	if (!key || !value || !tag)
		return 0;
	length = key->length;
	if (!length || length > GO_LABEL_BYTES ||
	    bpf_probe_read_user(text, length, (void *)key->data))
		return 0;
	for (i = 0; i < GO_LABEL_KEYS; i++) {
		if (value->length == TRACE_HEX && same_key(text, length, &cfg.trace_keys[i]) &&
		    read_hex(value->data, tag->trace_id, TRACE_HEX))
			tag->id_source = ID_PPROF_LABELS;
		if (value->length == SPAN_HEX && same_key(text, length, &cfg.span_keys[i]))
			read_hex(value->data, tag->span_id, SPAN_HEX);
	}
	return 0;
}

static __always_inline void take_list(u64 labels, struct task_tag *tag)
{
	struct go_string list, pair[2];
	u32 i;

	if (bpf_probe_read_user(&list, sizeof(list), (void *)labels))
		return;
	for (i = 0; i < MAX_LABELS; i++) {
		if (i >= list.length ||
		    bpf_probe_read_user(pair, sizeof(pair), (void *)(list.data + i * sizeof(pair))))
			return;
		take_label(&pair[0], &pair[1], tag);
	}
}

static __always_inline void take_map(u64 labels, struct go_bucket *bucket, struct task_tag *tag)
{
	u64 map = 0, buckets = 0;
	u32 i;
	u8 b = 0;

	if (bpf_probe_read_user(&map, sizeof(map), (void *)labels) || !map ||
	    bpf_probe_read_user(&b, sizeof(b), (void *)(map + MAP_B)) || b ||
	    bpf_probe_read_user(&buckets, sizeof(buckets), (void *)(map + MAP_BUCKETS)) ||
	    bpf_probe_read_user(bucket, sizeof(*bucket), (void *)buckets))
		return;
	for (i = 0; i < 8; i++) {
		struct go_string key = bucket->keys[i], value = bucket->values[i];

		if (bucket->tophash[i] >= MAP_BUCKET_USED)
			take_label(&key, &value, tag);
	}
}

static __always_inline void labels_take(const struct go_target *t, u64 labels,
					struct go_bucket *bucket, struct task_tag *tag)
{
	if (!labels)
		return;
	if (t->labels_are_map)
		take_map(labels, bucket, tag);
	else
		take_list(labels, tag);
}

#endif
