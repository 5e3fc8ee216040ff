/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who ran while a task waited: what each CPU remembers of its run segments, and the search through
 * it. Needs what wait_machine.h needs.
 */
#ifndef SLTRACE_CULPRIT_H
#define SLTRACE_CULPRIT_H

#include "wait_state.h"

/*
 * Read from memory each time: a value that a loop compares in a register has another range on
 * each way through it, and the verifier would follow them all.
 */
#define FRESH(value) (*(volatile typeof(value) *)&(value))

static __always_inline void tally_begin(struct tally *t)
{
	t->round++;
	t->tasks = 0;
	t->most_ns = 0;
}

/*
 * Adds what a task ran. In a full set the one that ran least makes room for what is longer: so
 * nobody has more than it ran, and who ran most is there.
 */
static __always_inline void tally_add(struct tally *t, u32 tid, u32 pid, u64 cgroup, u64 ns)
{
	/* Fibonacci hashing: tids that follow each other are in different sets. */
	u32 at = (tid * 0x9e3779b1u) / ((1ULL << 32) / TALLY_SETS) * TALLY_WAYS, least_at = at, j;
	struct tally_place *place;

	LONG_LOOP for (j = 0; j < TALLY_WAYS; j++, at++)
	{
		place = &t->places[at & (TALLY_SETS * TALLY_WAYS - 1)];
		if (place->round != t->round)
			break;
		if (place->ran.tid == tid) {
			place->ran.ns += ns;
			goto added;
		}
		if (place->ran.ns < t->places[least_at & (TALLY_SETS * TALLY_WAYS - 1)].ran.ns)
			least_at = at;
	}
	t->tasks++;
	if (j == TALLY_WAYS) {
		at = least_at;
		place = &t->places[at & (TALLY_SETS * TALLY_WAYS - 1)];
		if (place->ran.ns >= ns)
			return;
	}
	place->round = t->round;
	place->ran.tid = tid;
	place->ran.pid = pid;
	place->ran.cgroup = cgroup;
	place->ran.ns = ns;
added:
	if (place->ran.ns > t->most_ns) {
		t->most_ns = place->ran.ns;
		t->most = at;
	}
}

/* Keeps of a block that is full those that ran most. */
SUBPROGRAM int keep_block(u32 cpu)
{
	struct cpu_state *c = cpu_find(cpu);
	struct block *b;
	u32 i, j, least_at;

	if (!c)
		return 0;
	b = &c->blocks[(c->head - 1) / BLOCK_SEGMENTS & (BLOCKS - 1)];
	b->start_ns = c->segments[(c->head - BLOCK_SEGMENTS) & (SEGMENTS - 1)].start_ns;
	b->others = FRESH(c->block.tasks) > CANDIDATES;
	for (j = 0; j < CANDIDATES; j++)
		b->candidates[j].ns = 0;
	LONG_LOOP for (i = 0; i < TALLY_SETS * TALLY_WAYS; i++)
	{
		struct tally_place *place = &c->block.places[i];

		if (FRESH(place->round) != FRESH(c->block.round))
			continue;
		least_at = 0;
		for (j = 1; j < CANDIDATES; j++)
			if (b->candidates[j].ns < b->candidates[least_at & (CANDIDATES - 1)].ns)
				least_at = j;
		if (place->ran.ns > b->candidates[least_at & (CANDIDATES - 1)].ns)
			b->candidates[least_at & (CANDIDATES - 1)] = place->ran;
	}
	return 0;
}

/* Ends the CPU's last run segment at `end`: adds it to its block. */
static __always_inline void close_segment(struct cpu_state *c, u32 cpu, u64 end)
{
	u32 last = c->head - 1;
	struct segment *seg = &c->segments[last & (SEGMENTS - 1)];
	u64 ns = at_least_zero(end - seg->start_ns);

	if (!(last & (BLOCK_SEGMENTS - 1)))
		tally_begin(&c->block);
	if (ns)
		tally_add(&c->block, seg->tid, seg->pid, seg->cgroup, ns);
	if (!(c->head & (BLOCK_SEGMENTS - 1)))
		keep_block(cpu);
}

static __always_inline void push_segment(struct cpu_state *c, u32 cpu, u32 tid, u32 pid, u64 cgroup,
					 u64 start)
{
	struct segment *seg;

	if (c->head)
		close_segment(c, cpu, start);
	seg = &c->segments[c->head & (SEGMENTS - 1)];
	seg->start_ns = start;
	seg->tid = tid;
	seg->pid = pid;
	seg->cgroup = cgroup;
	c->head++;
}

/* Adds to what was found by the culprit search under way on the executing CPU. */
SUBPROGRAM int found(u32 here_cpu, u32 tid, u32 pid, u64 cgroup, u64 ns)
{
	struct cpu_state *here = cpu_find(here_cpu);

	if (here && ns)
		tally_add(&here->search.tally, tid, pid, cgroup, ns);
	return 0;
}

/*
 * The same from a whole block; of one that reaches beyond the start of the search only what a
 * candidate must have run after that. Whether that was all.
 */
SUBPROGRAM int tally_block(u32 here_cpu, u32 cpu, u32 at)
{
	struct cpu_state *here = cpu_find(here_cpu), *c = cpu_find(cpu);
	struct block *b;
	u64 before;
	u32 j;

	if (!here || !c)
		return 1;
	b = &c->blocks[at & (BLOCKS - 1)];
	before = at_least_zero(FRESH(here->search.from) - FRESH(b->start_ns));
	/* In a block that the wait begins within, they may have run before it. */
	if (b->others && !before)
		here->search.others = 1;
	for (j = 0; j < CANDIDATES; j++) {
		struct candidate *k = &b->candidates[j];
		u64 ns = at_least_zero(k->ns - before);

		found(here_cpu, k->tid, k->pid, k->cgroup, ns);
		if (before)
			here->search.unseen -= ns;
	}
	if (before)
		return 1;
	here->search.unseen -= FRESH(here->search.end) - FRESH(b->start_ns);
	here->search.end = FRESH(b->start_ns);
	return FRESH(here->search.end) <= FRESH(here->search.from);
}

/* The same from the blocks up to `newest`. */
SUBPROGRAM int tally_blocks(u32 here_cpu, u32 cpu, u32 newest)
{
	u32 i;

	LONG_LOOP for (i = 0; i < SEARCH_BLOCKS && i <= newest; i++)
	{
		if (tally_block(here_cpu, cpu, newest - i))
			break;
	}
	return 0;
}

/* How many segments the search looks at in one call; divides SEARCH_SEGMENTS. */
#define SEARCH_ROUND 16

/* The same from the CPU's segments, of which `i` counts from the last; whether that was all. */
SUBPROGRAM int tally_segments(u32 here_cpu, u32 cpu, u32 i)
{
	struct cpu_state *here = cpu_find(here_cpu), *c = cpu_find(cpu);
	u32 n;

	if (!here || !c)
		return 1;
	LONG_LOOP for (n = 0; n < SEARCH_ROUND; n++, i++)
	{
		struct segment *seg = &c->segments[(c->head - i) & (SEGMENTS - 1)];
		u64 start, ns;

		if (i > c->head)
			return 1;
		start = latest(FRESH(seg->start_ns), FRESH(here->search.from));
		ns = at_least_zero(FRESH(here->search.end) - start);
		found(here_cpu, seg->tid, seg->pid, seg->cgroup, ns);
		here->search.unseen -= ns;
		/* The time of a switch that nobody asked for is about right: it may be to come. */
		here->search.end = least(FRESH(here->search.end), FRESH(seg->start_ns));
		if (FRESH(here->search.end) <= FRESH(here->search.from))
			return 1;
		/* All before this segment is in blocks. */
		if (i >= SEARCH_SEGMENTS - BLOCK_SEGMENTS &&
		    !((c->head - i) & (BLOCK_SEGMENTS - 1))) {
			if (c->head > i)
				tally_blocks(here_cpu, cpu, (c->head - i) / BLOCK_SEGMENTS - 1);
			return 1;
		}
	}
	return 0;
}

/*
 * Who ran on a CPU from `from` to `now` into the tally of the executing CPU, `here_cpu`.
 * Functions of their own with plain numbers as arguments, because the verifier then looks at each
 * once; inlined they were over its million instructions.
 */
SUBPROGRAM int tally(u32 here_cpu, u32 cpu, u64 from, u64 now)
{
	struct cpu_state *here = cpu_find(here_cpu);
	u32 i;

	if (!here)
		return 0;
	here->search.from = from;
	here->search.end = now;
	here->search.unseen = now - from;
	here->search.others = 0;
	tally_begin(&here->search.tally);
	LONG_LOOP for (i = 1; i < SEARCH_SEGMENTS; i += SEARCH_ROUND)
	{
		if (tally_segments(here_cpu, cpu, i))
			break;
	}
	return 0;
}

static __always_inline struct segment *last_segment(u32 cpu)
{
	struct cpu_state *c = cpu_find(cpu);

	return c && c->head ? &c->segments[(c->head - 1) & (SEGMENTS - 1)] : NULL;
}

/* Adds what ran on the queue that the task is leaving, or whose CPU it has got at last. */
static __always_inline void blame(struct task_state *s, struct cpu_state *here, u32 here_cpu,
				  u32 cpu, u64 from, u64 now)
{
	u32 others;
	struct segment *last = last_segment(cpu);
	struct tally *t = &here->search.tally;
	struct candidate *most;

	/* One task ran all the while: nothing to compare. True of most waits. */
	if (last && last->start_ns <= from && !s->culprit_known) {
		s->culprit_ns = now - from;
		s->culprit_tid = last->tid;
		s->culprit_pid = last->pid;
		s->culprit_cgroup = last->cgroup;
		s->culprit_others = 0;
		s->culprit_known = 1;
		return;
	}
	tally(here_cpu, cpu, from, now);
	if (here->search.unseen > (now - from) / 8)
		s->culprit_flags |= CULPRIT_PARTIAL;
	if (!s->culprit_known) {
		s->culprit_ns = 0;
		s->culprit_others = 0;
	}
	if (!t->tasks)
		return;
	most = &t->places[t->most & (TALLY_SETS * TALLY_WAYS - 1)].ran;
	others = t->tasks - 1 + here->search.others;
	/* The culprit of an earlier queue is one of the others now. */
	if (!others && s->culprit_known)
		others = most->tid != s->culprit_tid;
	s->culprit_others = latest(s->culprit_others, least(others, MAX_OTHERS));
	if (most->ns > s->culprit_ns) {
		s->culprit_ns = most->ns;
		s->culprit_tid = most->tid;
		s->culprit_pid = most->pid;
		s->culprit_cgroup = most->cgroup;
		s->culprit_known = 1;
	}
}

#endif
