/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who ran while a task waited: what each CPU remembers of its run segments, and the search through
 * it. Needs what wait_machine.h needs.
 */
#ifndef SLTRACE_CULPRIT_H
#define SLTRACE_CULPRIT_H

#include "wait_state.h"

/* Adds run time to a task among candidates; false where there is no room for it. */
static __always_inline bool add_to(struct candidate *candidates, u32 tid, u32 pid, u64 cgroup,
				   u64 ns)
{
	u32 j;

	for (j = 0; j < CANDIDATES; j++) {
		struct candidate *k = &candidates[j];

		if (!k->ns) {
			k->tid = tid;
			k->pid = pid;
			k->cgroup = cgroup;
		}
		if (k->tid == tid) {
			k->ns += ns;
			return true;
		}
	}
	return false;
}

/* Ends the CPU's last run segment at `end`: adds it to its block. */
static __always_inline void close_segment(struct cpu_state *c, u64 end)
{
	u32 last = c->head - 1, j, least_at = 0;
	struct segment *seg = &c->segments[last & (SEGMENTS - 1)];
	struct block *b = &c->blocks[last / BLOCK_SEGMENTS & (BLOCKS - 1)];
	u64 ns = at_least_zero(end - seg->start_ns);

	if (!(last & (BLOCK_SEGMENTS - 1))) {
		b->start_ns = seg->start_ns;
		b->others = 0;
		for (j = 0; j < CANDIDATES; j++)
			b->candidates[j].ns = 0;
	}
	if (!ns || add_to(b->candidates, seg->tid, seg->pid, seg->cgroup, ns))
		return;
	/* The one that ran least makes room, so that a long run cannot go unnoticed. */
	b->others = 1;
	for (j = 1; j < CANDIDATES; j++)
		if (b->candidates[j].ns < b->candidates[least_at].ns)
			least_at = j;
	if (ns > b->candidates[least_at & (CANDIDATES - 1)].ns) {
		struct candidate *k = &b->candidates[least_at & (CANDIDATES - 1)];

		k->ns = ns;
		k->tid = seg->tid;
		k->pid = seg->pid;
		k->cgroup = seg->cgroup;
	}
}

static __always_inline void push_segment(struct cpu_state *c, u32 tid, u32 pid, u64 cgroup,
					 u64 start)
{
	struct segment *seg;

	if (c->head)
		close_segment(c, start);
	seg = &c->segments[c->head & (SEGMENTS - 1)];
	seg->start_ns = start;
	seg->tid = tid;
	seg->pid = pid;
	seg->cgroup = cgroup;
	c->head++;
}

/*
 * Read from memory each time: a value that a loop compares in a register has another range on
 * each way through it, and the verifier would follow them all.
 */
#define FRESH(value) (*(volatile typeof(value) *)&(value))

/* Adds to the candidates of the culprit search under way on the executing CPU. */
SUBPROGRAM int add_candidate(u32 here_cpu, u32 tid, u32 pid, u64 cgroup, u64 ns)
{
	struct cpu_state *here = cpu_find(here_cpu);

	if (here && ns && !add_to(here->search.candidates, tid, pid, cgroup, ns))
		here->search.others = 1;
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
	/* Of a block that is cut they may have run before. */
	if (b->others && !before)
		here->search.others = 1;
	for (j = 0; j < CANDIDATES; j++) {
		struct candidate *k = &b->candidates[j];
		u64 ns = at_least_zero(k->ns - before);

		add_candidate(here_cpu, k->tid, k->pid, k->cgroup, ns);
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
		add_candidate(here_cpu, seg->tid, seg->pid, seg->cgroup, ns);
		here->search.unseen -= ns;
		here->search.end = FRESH(seg->start_ns);
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
 * Who ran on a CPU from `from` to `now` into the candidates of the executing CPU, `here_cpu`.
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
	for (i = 0; i < CANDIDATES; i++)
		here->search.candidates[i].ns = 0;
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

/* Adds what ran on the queue that the task is leaving, or has at last got the CPU of. */
static __always_inline void blame(struct task_state *s, struct cpu_state *here, u32 here_cpu,
				  u32 cpu, u64 from, u64 now)
{
	u32 others = 0, before = s->culprit_tid, j;
	struct segment *last = last_segment(cpu);

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
	for (j = 0; j < CANDIDATES; j++) {
		struct candidate *k = &here->search.candidates[j];

		if (!k->ns)
			break;
		/* The culprit of an earlier queue is one of the others now. */
		others |= s->culprit_known && k->tid != before;
		if (k->ns > s->culprit_ns) {
			s->culprit_ns = k->ns;
			s->culprit_tid = k->tid;
			s->culprit_pid = k->pid;
			s->culprit_cgroup = k->cgroup;
			s->culprit_known = 1;
		}
	}
	/* Of the candidates one is the culprit; whether more than those ran is in `others`. */
	if (j)
		others = latest(others, j - 1 + here->search.others);
	s->culprit_others = latest(s->culprit_others, others);
}

#endif
