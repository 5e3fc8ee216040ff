/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Python stacks, read from the memory of the process that is current. Its thread state is found
 * by the thread pointer in the interpreter's list: the thread-local that has it is NULL while a
 * thread waits without the GIL, which is when it is needed.
 */
#ifndef SLTRACE_PYTHON_STACK_BPF_H
#define SLTRACE_PYTHON_STACK_BPF_H

#define STATE_INTERPRETER  16        /* of a thread state, in every version */
#define MAX_PID            (1 << 22) /* PID_MAX_LIMIT */
#define SEARCH_STEPS       2048
#define SEARCH_SHARE       100 /* of its time a thread is looked for a hundredth, */
#define SEARCH_SHARE_NEW   10  /* and one that never had a state a tenth of that, not at once */
#define SEARCH_MIN_NS      8000000ULL
#define SEARCH_MAX_NS      1000000000ULL
#define OWNED_BY_GENERATOR 1
#define EXTRA_FRAMES       32 /* the interpreter's own, between those of Python code */
#define FRAMES_A_STEP      4  /* a step of bpf_loop is an indirect call */

struct search {
	struct python_process *p;
	u64 interpreter;
	u64 state;
	u64 pointer;
	u64 found;
};

static long search_step(u32 i, void *data)
{
	struct search *s = data;
	struct python_process *p = s->p;

	if (!p)
		return 1;
	if (!s->state) {
		if (!s->interpreter)
			return 1;
		s->state = read_u64(s->interpreter + p->threads);
		s->interpreter = read_u64(s->interpreter + p->interpreter_next);
		return 0;
	}
	if (read_u64(s->state + p->thread_id) == s->pointer) {
		s->found = s->state;
		return 1;
	}
	s->state = read_u64(s->state + p->thread_next);
	return 0;
}

/* From 3.12 on a sub-interpreter can have its own (PEP 684). */
static __always_inline u64 gil_of(struct python_process *p, u64 state)
{
	u64 gil = p->own_gil ? read_u64(read_u64(state + STATE_INTERPRETER) + p->own_gil) : 0;

	return gil ? gil : p->gil;
}

/* Innermost frame of a thread state; 0 if it is in no Python code. */
static __always_inline u64 innermost_frame(struct python_process *p, u64 state)
{
	u64 frame = read_u64(state + p->frame);

	return p->cframe && frame ? read_u64(frame + p->cframe_current) : frame;
}

/* When to look again for the thread state of a task that a search of so long did not find. */
static __always_inline u64 next_search_ns(struct python_thread *th, u64 now, u64 took_ns)
{
	u64 after = SEARCH_SHARE * took_ns;

	/* Threads that never ran any Python hardly ever will. */
	if (!th->had_state && !th->search_state) {
		after *= SEARCH_SHARE_NEW;
		if (after < SEARCH_MIN_NS)
			after = SEARCH_MIN_NS;
	}
	if (after > SEARCH_MAX_NS)
		after = SEARCH_MAX_NS;
	/* In step with what the thread does, it would always be looked for while it has none. */
	return now + after / 2 + bpf_get_prandom_u32() % (after + 1);
}

/* Looks for it in the lists of threads; thousands take several searches. */
static __always_inline u64 search_state(struct python_process *p, struct python_thread *th,
					u64 pointer, u64 now)
{
	struct search s = {.p = p, .state = th->search_state, .pointer = pointer};

	s.interpreter = s.state ? th->search_interpreter : read_u64(p->interpreters);
	bpf_loop(SEARCH_STEPS, search_step, &s, 0);
	th->search_state = s.found ? 0 : s.state;
	th->search_interpreter = s.interpreter;
	th->search_ns = s.found ? 0 : next_search_ns(th, now, bpf_ktime_get_ns() - now);
	return s.found;
}

/*
 * Whose a thread state is: the number of its thread in its pid namespace. Before 3.11 no state has
 * that, so that it is the state's own address, which the next thread may get.
 */
static __always_inline u64 owner_of(struct python_process *p, u64 state)
{
	return p->native_id ? read_u64(state + p->native_id) : state;
}

static __always_inline void own(struct python_thread *th, u32 pid, u32 tid, u64 owner)
{
	struct owner_key key = {.owner = owner, .pid = pid};

	th->owner = owner;
	bpf_map_update_elem(&python_owners, &key, &tid, BPF_ANY);
}

static __always_inline void disown(struct python_thread *th, u32 pid, u32 tid)
{
	struct owner_key key = {.owner = th->owner, .pid = pid};
	u32 *known = bpf_map_lookup_elem(&python_owners, &key);

	if (known && *known == tid)
		bpf_map_delete_elem(&python_owners, &key);
}

/* The thread of the current process that is an owner; 0: it is not known. */
__noinline u32 thread_that_is(struct python_process *p, u64 owner)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32, *tid;
	struct owner_key key = {.owner = owner, .pid = pid};
	struct python_thread *first;

	if (!p)
		return 0;
	tid = bpf_map_lookup_elem(&python_owners, &key);
	if (tid)
		return *tid;
	/*
	 * Of a fork by C, which does not tell CPython, the first thread's number is that of who
	 * forked: what is not its number is right.
	 */
	first = bpf_map_lookup_elem(&python_threads, &pid);
	if (!p->native_id || !first || !first->owner || owner >= MAX_PID ||
	    BPF_CORE_READ(bpf_get_current_task_btf(), thread_pid, level))
		return 0;
	return owner;
}

/* Address of the current task's thread state, whose innermost frame is noted; 0 if it has none. */
__noinline u64 thread_state(struct python_process *p, struct python_thread *th, u64 now)
{
	u64 both = bpf_get_current_pid_tgid(), pointer = current_pointer(), known = 0;
	u64 owner;

	if (!p || !th)
		return 0;
	if (th->state && read_u64(th->state + p->thread_id) == pointer)
		known = th->state;
	/*
	 * A thread of C gets a new one with each call of Python (PyGILState_Ensure), and freed
	 * memory still looks like its last one; but that has no frame.
	 */
	th->frame = known ? innermost_frame(p, known) : 0;
	if (th->frame || now < th->search_ns)
		return known;
	th->state = search_state(p, th, pointer, now);
	th->gil = th->state ? gil_of(p, th->state) : p->gil;
	if (!th->state)
		return 0;
	th->had_state = 1;
	th->frame = innermost_frame(p, th->state);
	owner = owner_of(p, th->state);
	if (th->owner != owner)
		disown(th, both >> 32, both);
	own(th, both >> 32, both, owner);
	return th->state;
}

struct walk {
	struct python_process *p;
	struct python_scratch *scratch;
	u64 frame;
	u64 generator; /* of the outermost frame that is one's; 0: none is */
	u64 hash;
	u64 window; /* address of what was read last */
	u32 read;   /* bytes of it */
	u32 depth;
	u8 cut;
	u8 failed;
};

/*
 * Where the frame is in the scratch buffer, once it is there; NULL if it cannot be read.
 *
 * Since 3.11 frames of calls are one below the other in memory that the interpreter keeps for
 * them. A read takes 30 to 150 ns (measured; it depends on the mitigations of the CPU's faults)
 * and hardly more for a page than for a frame, so whoever is just below the last one is read with
 * what is below it on its page. Frames of generators and coroutines are elsewhere, each by itself.
 */
static __always_inline u8 *walk_read(struct walk *w, struct python_process *p,
				     struct python_scratch *s)
{
	u64 frame = w->frame, start = frame, on_page = frame & (PYTHON_WINDOW - 1);
	u32 size = p->frame_bytes;
	u64 length;

	if (size > PYTHON_FRAME)
		return NULL;
	if (!w->read || frame - w->window > w->read - size) {
		if (w->read && w->window - frame <= PYTHON_WINDOW && p->minor != 10)
			start = on_page + size > PYTHON_WINDOW ? frame + size - PYTHON_WINDOW
							       : frame - on_page;
		length = frame + size - start;
		if (length > PYTHON_WINDOW || bpf_probe_read_user(s->window, length, (void *)start))
			return NULL;
		w->window = start;
		w->read = length;
	}
	return s->window + ((frame - w->window) & (PYTHON_WINDOW - 1));
}

static __always_inline u64 frame_field(u8 *frame, u32 offset)
{
	return *(u64 *)(frame + (offset & (PYTHON_FRAME - sizeof(u64))));
}

/* Goes one frame outwards; false where that was the last. */
static __always_inline bool walk_frame(struct walk *w)
{
	struct python_process *p = w->p;
	struct python_scratch *s = w->scratch;
	u64 code, instr, address;
	u32 depth = w->depth;
	u8 owner, *frame;

	if (!p || !s || !w->frame)
		return false;
	address = w->frame;
	frame = walk_read(w, p, s);
	if (!frame) {
		w->failed = 1;
		return false;
	}
	owner = frame[p->owner & (PYTHON_FRAME - 1)];
	code = frame_field(frame, p->frame_code);
	instr = frame_field(frame, p->instr);
	w->frame = frame_field(frame, p->back);
	if (p->tagged)
		code &= ~3ULL;
	if (p->instr_is_index)
		instr = (u32)instr;
	if (p->minor == 10) {
		if (frame_field(frame, p->generator))
			w->generator = frame_field(frame, p->generator);
	} else if (owner == OWNED_BY_GENERATOR) {
		w->generator = address - p->generator;
	}
	if (p->skip_from && owner >= p->skip_from)
		return true;
	if (depth >= PYTHON_DEPTH) {
		w->cut = 1;
		return false;
	}
	s->stack.frames[depth].code = code;
	s->stack.frames[depth].instr = instr;
	w->hash = stack_id_add(stack_id_add(w->hash, code), instr);
	w->depth = depth + 1;
	return true;
}

static long walk_step(u32 i, void *data)
{
	u32 j;

	for (j = 0; j < FRAMES_A_STEP; j++)
		if (!walk_frame(data))
			return 1;
	return 0;
}

static __always_inline bool stack_allowed(struct python_cpu *c, u64 now)
{
	if (allowance_take(&c->paid_ns, CFG(stack_ns), now))
		return true;
	count(c, PYTHON_STACKS_CAPPED);
	return false;
}

/* What is outside of a frame that could not be read is one frame of unknown code. */
static __always_inline void walk_failed(struct walk *w)
{
	u32 depth = w->depth;

	if (!depth || depth >= PYTHON_DEPTH)
		return;
	w->scratch->stack.frames[depth].code = 0;
	w->scratch->stack.frames[depth].instr = 0;
	w->hash = stack_id_add(stack_id_add(w->hash, 0), 0);
	w->depth = depth + 1;
}

/* Hands the stack of a walk over unless that was done before; its id, 0 if it is none. */
static __always_inline u64 stack_intern(struct walk *w, struct python_cpu *c, u32 pid)
{
	u64 *seen;
	u32 index;

	if (!w->depth)
		return 0;
	w->hash = stack_id_end(w->hash);
	index = w->hash & (SEEN_PYTHON - 1);
	seen = bpf_map_lookup_elem(&python_seen, &index);
	if (!seen || *seen == w->hash)
		return w->hash;
	w->scratch->stack.id = w->hash;
	w->scratch->stack.pid = pid;
	w->scratch->stack.depth = w->depth;
	if (bpf_ringbuf_output(&python_stack_ring, &w->scratch->stack, sizeof(w->scratch->stack),
			       BPF_RB_NO_WAKEUP)) {
		count(c, PYTHON_STACKS_LOST);
		return 0;
	}
	*seen = w->hash;
	return w->hash;
}

/* What a walk found besides the stack; 0: it was not walked to its end. */
struct walked {
	u64 coroutine; /* of the task that the stack is of, the outermost generator; 0: none */
	u32 depth;
};

/* Id of the stack of a thread state of the current process; 0 if it is in no Python code. */
__noinline u64 python_stack_of(struct python_process *p, u64 frame, struct walked *walked)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32, zero = 0;
	struct walk w = {.p = p, .hash = 0x9e3779b97f4a7c15ULL ^ pid, .depth = unknown_zero};
	struct python_maybe *m = bpf_map_lookup_elem(&python_maybe, &zero);
	struct python_cpu *c = this_cpu();
	u64 id;

	if (!p || !c || !m || !frame || !walked)
		return 0;
	/* Code that is freed makes room for other code: the same addresses are another stack then.
	 */
	w.hash ^= (u64)m->epoch[pid & (PYTHON_MAYBE - 1)] << 32;
	w.scratch = scratch_claim(&python_scratch_slots);
	if (!w.scratch) {
		count(c, PYTHON_STACKS_LOST);
		return 0;
	}
	w.frame = frame;
	bpf_loop((PYTHON_DEPTH + EXTRA_FRAMES) / FRAMES_A_STEP, walk_step, &w, 0);
	count(c, PYTHON_STACKS);
	if (w.failed) {
		count(c, PYTHON_STACKS_FAILED);
		walk_failed(&w);
	}
	if (w.cut)
		count(c, PYTHON_STACKS_CUT);
	id = stack_intern(&w, c, pid);
	scratch_release(w.scratch);
	if (!w.failed && !w.cut) {
		walked->depth = w.depth;
		walked->coroutine = w.generator;
	}
	return id;
}

/* Into the tag: the stack of a thread, whose depth is noted, and the name of its task. */
static __always_inline void tag_stack(struct python_process *p, struct python_thread *th,
				      struct task_tag *tag)
{
	struct walked walked = {};

	tag->stack_runtime = python_stack_of(p, th->frame, &walked);
	th->depth = walked.depth;
	th->coroutine = walked.coroutine != 0;
	if (p->task_coro && walked.coroutine)
		/* Not from within: up to 6.12 all frames of a chain of calls are 512 bytes. */
		tag->task_name = task_name_of(p, th->state, walked.coroutine);
}

#endif
