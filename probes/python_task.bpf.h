/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The name of the asyncio task that a thread is in. Which task that is, is told by its coroutine:
 * the outermost generator on the stack, so a task read by wrong offsets, or one that has ended
 * meanwhile, is none.
 */
#ifndef SLTRACE_PYTHON_TASK_BPF_H
#define SLTRACE_PYTHON_TASK_BPF_H

#define TEXT_COMPACT_ASCII (3 << 5) /* of the state of a str, after `interned` and `kind` */

/* How many were given; not more than MAX_NAMES, but for those that came at once. */
static u32 names_given;

struct task_search {
	struct python_process *p;
	struct lookup entries;
	u64 coroutine;
	u64 found;
};

static long task_step(u32 i, void *data)
{
	struct task_search *s = data;
	u64 task;

	if (!s->p || i >= s->entries.count)
		return 1;
	/* Value of an entry, which ends with it. */
	task = read_u64(s->entries.entries + (u64)(i + 1) * s->entries.each - 8);
	if (!task || read_u64(task + s->p->task_coro) != s->coroutine)
		return 0;
	s->found = task;
	return 1;
}

/* The running task of this coroutine; 0 if there is none. */
static __noinline u64 running_task(struct python_process *p, u64 state, u64 coroutine)
{
	struct task_search s = {.p = p, .coroutine = coroutine};

	if (!p)
		return 0;
	if (p->running_task) {
		s.found = read_u64(state + p->running_task);
		return read_u64(s.found + p->task_coro) == coroutine ? s.found : 0;
	}
	if (!p->current_tasks || !dict_entries(p->current_tasks, p->minor, &s.entries))
		return 0;
	bpf_loop(DICT_ENTRIES, task_step, &s, 0);
	return s.found;
}

/* Number of a name: a new one is handed over. 0 if there are too many. */
static __noinline u32 name_number(struct python_name *name)
{
	u32 *known = bpf_map_lookup_elem(&python_names, name->text);
	struct python_cpu *c = this_cpu();

	if (known)
		return *known;
	if (names_given >= MAX_NAMES) {
		if (c)
			count(c, PYTHON_NAMES_LOST);
		return 0;
	}
	name->id = __sync_fetch_and_add(&names_given, 1) + 1;
	if (bpf_map_update_elem(&python_names, name->text, &name->id, BPF_NOEXIST)) {
		/* Another CPU was first, or the table is full. */
		known = bpf_map_lookup_elem(&python_names, name->text);
		return known ? *known : 0;
	}
	bpf_ringbuf_output(&python_name_ring, name, sizeof(*name), BPF_RB_NO_WAKEUP);
	return name->id;
}

/*
 * Number of the name that someone gave the task with this coroutine; 0 if it has none. asyncio
 * itself numbers tasks, Task-1 and on; from 3.12 on it keeps an int until someone asks.
 */
__noinline u32 task_name_of(struct python_process *p, u64 state, u64 coroutine)
{
	struct python_name name = {};
	u64 task, text, head[5] = {};
	u32 size;

	if (!p)
		return 0;
	task = running_task(p, state, coroutine);
	text = task ? read_u64(task + p->task_name) : 0;
	if (!text || bpf_probe_read_user(head, sizeof(head), (void *)text))
		return 0;
	if (head[1] != p->text_type || (head[4] & TEXT_COMPACT_ASCII) != TEXT_COMPACT_ASCII)
		return 0;
	size = head[2] < PYTHON_NAME_BYTES ? head[2] : PYTHON_NAME_BYTES - 1;
	size &= 63;
	if (size > PYTHON_NAME_BYTES - 1)
		size = PYTHON_NAME_BYTES - 1;
	if (!size ||
	    bpf_probe_read_user(name.text, size, (void *)(text + (p->minor < 12 ? 48 : 40))))
		return 0;
	if (!__builtin_memcmp(name.text, "Task-", 5) && name.text[5] >= '0' && name.text[5] <= '9')
		return 0;
	return name_number(&name);
}

#endif
