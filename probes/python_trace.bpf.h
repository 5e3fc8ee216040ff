/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The trace and span id a thread works on, from where they are without any change of the process:
 * the OpenTelemetry SDK's context variable, or the thread record of OTEP 4947. Every step is one
 * bounded read; whatever does not look as expected means no id.
 */
#ifndef SLTRACE_PYTHON_TRACE_BPF_H
#define SLTRACE_PYTHON_TRACE_BPF_H

#define HAMT_LEVELS  8
#define DICT_ENTRIES 16
#define RECORD_BYTES 28 /* trace id, span id, valid, flags, size of attributes */

struct hamt {
	struct python_process *p;
	u64 node;
	u64 key;
	u64 value;
	u32 hash;
	u32 shift;
};

static __always_inline u32 ones(u32 x)
{
	x = x - (x >> 1 & 0x55555555);
	x = (x & 0x33333333) + (x >> 2 & 0x33333333);
	return ((x + (x >> 4)) & 0x0f0f0f0f) * 0x01010101 >> 24;
}

static long hamt_step(u32 i, void *data)
{
	struct hamt *h = data;
	struct python_process *p = h->p;
	u64 head[4] = {}, pair[2] = {};
	u32 part, bit;

	if (!p || bpf_probe_read_user(head, sizeof(head), (void *)h->node))
		return 1;
	part = h->hash >> (h->shift & 31) & 31;
	h->shift += 5;
	if (head[1] == p->array_node) {
		h->node = read_u64(h->node + 16 + 8 * part);
		return !h->node;
	}
	bit = 1U << part;
	/* Nodes of colliding hashes are not followed. */
	if (head[1] != p->bitmap_node || !((u32)head[3] & bit))
		return 1;
	if (bpf_probe_read_user(pair, sizeof(pair),
				(void *)(h->node + 32 + 16 * ones((u32)head[3] & (bit - 1)))))
		return 1;
	if (!pair[0]) {
		h->node = pair[1];
		return 0;
	}
	if (pair[0] == h->key)
		h->value = pair[1];
	return 1;
}

/* Address of the value of a context variable in the thread's context; 0 if it has none. */
__noinline u64 context_value(struct python_process *p, u64 state, u64 variable, u32 hash)
{
	struct hamt h = {.p = p, .key = variable, .hash = hash};
	u64 context, variables;

	if (!p || !p->bitmap_node)
		return 0;
	context = read_u64(state + p->context);
	variables = context ? read_u64(context + 24) : 0;
	h.node = variables ? read_u64(variables + 16) : 0;
	if (!h.node)
		return 0;
	bpf_loop(HAMT_LEVELS, hamt_step, &h, 0);
	return h.value;
}

struct lookup {
	u64 entries;
	u64 key;
	u64 value;
	u32 count;
	u32 each;
};

static long lookup_step(u32 i, void *data)
{
	struct lookup *l = data;
	u64 entry[2] = {};

	if (i >= l->count)
		return 1;
	/* An entry ends with key and value. */
	if (bpf_probe_read_user(entry, sizeof(entry),
				(void *)(l->entries + (u64)i * l->each + l->each - 16)))
		return 1;
	if (entry[0] != l->key)
		return 0;
	l->value = entry[1];
	return 1;
}

/* Where a dict has its entries, and how many of them there are to look at. */
static __always_inline bool dict_entries(u64 dict, u8 minor, struct lookup *l)
{
	u64 keys = read_u64(dict + 32), head[5] = {};

	if (!keys || bpf_probe_read_user(head, sizeof(head), (void *)keys))
		return false;
	if (minor == 10) {
		l->each = 24;
		l->count = head[4];
		l->entries = keys + 40 +
			     head[1] * (head[1] <= 0xff     ? 1
					: head[1] <= 0xffff ? 2
							    : 4);
	} else {
		l->each = head[1] >> 16 & 0xff ? 16 : 24;
		l->count = head[3];
		l->entries = keys + 32 + (1ULL << (head[1] >> 8 & 31));
	}
	if (l->count > DICT_ENTRIES)
		l->count = DICT_ENTRIES;
	return true;
}

__noinline u64 dict_value(u64 dict, u64 key, u8 minor)
{
	struct lookup l = {.key = key};

	if (!dict_entries(dict, minor, &l))
		return 0;
	bpf_loop(DICT_ENTRIES, lookup_step, &l, 0);
	return l.value;
}

/* Where an instance's attributes are, in the order in which its class first got them. */
__noinline u64 instance_values(u64 object, u8 minor)
{
	u64 word, values;

	if (minor == 10) {
		word = read_u64(object + 16);
		return word ? read_u64(word + 40) : 0;
	}
	if (minor == 11) {
		values = read_u64(object - 32);
		if (values)
			return values;
		word = read_u64(object - 24);
		return word ? read_u64(word + 40) : 0;
	}
	if (minor == 12) {
		word = read_u64(object - 24);
		if (word & 1)
			return word + 1;
		return word ? read_u64(word + 40) : 0;
	}
	/* 3.13: within the object, after capacity, size, embedded and valid. */
	if (read_u64(object + 16) >> 24 & 0xff)
		return object + 24;
	word = read_u64(object - 24);
	values = word ? read_u64(word + 40) : 0;
	return values ? values + 8 : 0;
}

static __always_inline void put_big_endian(u8 *to, u64 value)
{
	value = __builtin_bswap64(value);
	__builtin_memcpy(to, &value, sizeof(value));
}

/* Digits of 30 bits of an int; how many there are, 0 if it is none or longer than `most`. */
static __noinline u32 int_digits(u64 address, u32 *digits, u8 minor, u32 most)
{
	u64 size = read_u64(address + 16);
	u32 i;

	if (!digits)
		return 0;
	if (minor >= 12)
		size >>= 3;
	if (!size || size > most || size > 5)
		return 0;
	if (bpf_probe_read_user(digits, 20, (void *)(address + 24)))
		return 0;
	for (i = 0; i < 5; i++) {
		if (i >= size)
			digits[i] = 0;
	}
	return size;
}

__noinline int otel_ids(struct python_process *p, u64 state, struct task_tag *tag)
{
	u64 context, span, values, slots[4] = {}, items[2] = {}, found = 0, first, high, low;
	u32 digits[6] = {};
	int i;

	if (!p || !tag || !p->otel_var)
		return 0;
	context = context_value(p, state, p->otel_var, p->otel_hash);
	span = context ? dict_value(context, p->otel_key, p->minor) : 0;
	values = span ? instance_values(span, p->minor) : 0;
	if (!values || bpf_probe_read_user(slots, sizeof(slots), (void *)values))
		return 0;
	for (i = 0; i < 4; i++) {
		if (!found && slots[i] && read_u64(slots[i] + 8) == p->span_context)
			found = slots[i];
	}
	/* A tuple: 3.14 has its hash before the items. */
	first = p->minor >= 14 ? 32 : 24;
	if (!found || bpf_probe_read_user(items, sizeof(items), (void *)(found + first)))
		return 0;
	if (!int_digits(items[0], digits, p->minor, 5))
		return 0;
	low = digits[0] | (u64)digits[1] << 30 | (u64)digits[2] << 60;
	high = digits[2] >> 4 | (u64)digits[3] << 26 | (u64)digits[4] << 56;
	if (!int_digits(items[1], digits, p->minor, 3))
		return 0;
	put_big_endian(tag->trace_id, high);
	put_big_endian(tag->trace_id + 8, low);
	put_big_endian(tag->span_id, digits[0] | (u64)digits[1] << 30 | (u64)digits[2] << 60);
	tag->id_source = ID_CONTEXTVARS;
	return 1;
}

/* The record of OTEP 4947 at an address. */
static __always_inline int record_ids(u64 address, struct task_tag *tag, u8 source)
{
	u8 record[RECORD_BYTES] = {};

	if (!address || bpf_probe_read_user(record, sizeof(record), (void *)address) ||
	    record[24] != 1)
		return 0;
	__builtin_memcpy(tag->trace_id, record, 16);
	__builtin_memcpy(tag->span_id, record + 16, 8);
	tag->id_source = source;
	return 1;
}

__noinline int thread_record_ids(struct python_process *p, struct python_thread *th,
				 struct task_tag *tag)
{
	u64 pointer = current_pointer(), block = pointer;

	if (!p || !th || !tag || !p->has_tls)
		return 0;
	if (p->loops_behind && (th->coroutine || th->poll_depth || !th->depth))
		return 0;
	if (p->tls_module) {
		/* The dynamic thread vector: 16 bytes a module. */
		block = read_u64(read_u64(pointer + 8) + 16 * (u64)p->tls_module);
		if (!block || block == ~0ULL)
			return 0;
	}
	return record_ids(read_u64(block + p->tls_offset), tag, ID_THREAD_CONTEXT);
}

static __always_inline void trace_ids(struct python_process *p, struct python_thread *th, u64 state,
				      struct task_tag *tag)
{
	u64 record;

	if (state && p->record_var) {
		/* sltrace.otel keeps the record in a bytes object, its contents from byte 32 on. */
		record = context_value(p, state, p->record_var, p->record_hash);
		if (record && read_u64(record + 16) == RECORD_BYTES &&
		    record_ids(record + 32, tag, ID_THREAD_CONTEXT))
			return;
	}
	if (state && otel_ids(p, state, tag))
		return;
	thread_record_ids(p, th, tag);
}

#endif
