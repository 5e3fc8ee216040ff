"""Go processes as a source: what is attached to which, and what became of it."""

from __future__ import annotations

import math
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from sltrace.capture import privileges
from sltrace.capture.golang import cost
from sltrace.capture.golang import rows as go_rows
from sltrace.capture.golang.budget import DEFAULT_SHARE
from sltrace.capture.golang.finder import Finder, Found
from sltrace.capture.golang.past import Past
from sltrace.capture.golang.probes import SPAN_KEYS, GoProbes
from sltrace.capture.golang.probing import Probing
from sltrace.capture.golang.sampler import Sampler
from sltrace.capture.golang.samplerthread import SamplerThread
from sltrace.capture.golang.stacks import GoStacks
from sltrace.capture.handover import Handover
from sltrace.capture.ring import Ring
from sltrace.capture.settings import Settings
from sltrace.capture.sources import Context, Rows
from sltrace.target.go.offsets import TRACKED_ONE_IN
from sltrace.target.go.process import GoProcess, Identity, program_of

if TYPE_CHECKING:
    import pyarrow as pa

_MAX_BACKLOG = 64 << 20
_ALL_TOLD = 2
"""Times that the rings must be emptied after a process has ended: the first may have begun before.
"""


class GoSource:
    """Go processes that are recorded.

    Args:
        finder: Knows which.
        level: How much to record.
        trace_keys: pprof labels that hold a trace id.
        share: Of the CPU time of each process, what its probes may cost; None for no limit.
        expected: Whether Go processes are to be expected where none is there yet.
        yields: Whether another source fills in what the probes do not find: theirs come first.
    """

    name = "go"
    privileges = privileges.READ_MEMORY

    def __init__(
        self,
        finder: Finder,
        level: int,
        trace_keys: tuple[str, ...],
        *,
        share: float | None,
        expected: bool,
        yields: bool = False,
    ) -> None:
        self._finder = finder
        self._level = level
        self._trace_keys = trace_keys
        self._is_expected = expected
        self._yields = yields
        self._refused: list[tuple[Identity, str, int]] = []
        # By their own numbers: what a process becomes by exec is another, with the same pid.
        self._reasons: dict[int, go_rows.Reasons] = {}
        self._samplers: dict[int, Sampler] = {}
        # Likewise; not those that were found to be gone.
        self._there: dict[int, Sampler] = {}
        self._past = Past()
        self._until_ns = math.inf
        # How often the rings were emptied, in all and when a process was seen to have ended.
        self._emptied = 0
        self._ended_at: dict[int, int] = {}
        self._stacks = GoStacks()
        self._thread = SamplerThread(self._look)
        self._probing = Probing(level, share)
        self._drained, self._stacks_drained = Handover(), Handover()
        self._expected: cost.Expected | None = None
        self._overwritten = 0
        # Waits that the probes told, by the processes' own numbers.
        self._counted: Counter[int] = Counter()
        self._closed = False

    def attach(self, context: Context) -> None:
        """Loads the probes, and attaches them to each process that is there."""
        self._tasks, self._groups = context.tasks, context.groups
        self._take_tags = context.take_tags
        first = self._finder.look()
        # Others will be at level 0, whatever was asked for.
        probed = [p for p in first.processes if p.sites.record is not None]
        before = cost.noted(probed)
        self._probing.load(
            context.tags_fd,
            switch_stacks=not context.settings.stacks.user,
            cgroup_v1=context.cgroup_v1,
            trace_keys=self._trace_keys,
            measured=bool(first.processes) or self._is_expected,
        )
        if self._probes and self._level:
            self._tell_cost(context, probed, before, unknown=not first.processes)
        if self._yields:
            self._probing.attach()
        self._take(first)
        self._probing.hold()
        context.watch_programs(self._began)

    @property
    def _probes(self) -> GoProbes | None:
        return self._probing.probes

    def _tell_cost(
        self, context: Context, processes: Sequence[GoProcess], before: cost.Noted, *, unknown: bool
    ) -> None:
        assert self._probes
        if processes:
            time.sleep(max(before.at + cost.OBSERVED_S - time.monotonic(), 0))
            after = cost.noted(processes)
            self._expected = cost.expected(self._level, before, after, self._probes.runs.hit_ns)
            context.say(
                cost.sentence(self._level, len(processes), self._expected, self._probing.budget)
            )
        elif unknown and self._is_expected:
            context.say(
                f"go level {self._level}: a probe hit costs {self._probes.runs.hit_ns:.0f} ns and "
                "its program; how many there will be is not known before it runs"
            )

    def _began(self, pids: Sequence[int]) -> None:
        """Processes that have become another program; on the reading thread."""
        self._finder.began(pids)
        self._thread.wake()

    def _look(self) -> tuple[Sequence[Sampler], bool]:
        """Takes in processes that began meanwhile; on the samplers' thread."""
        # At once: what the kernel puts probes into is a file, which a later program may have again.
        self._let_go()
        samplers = self._take(self._finder.look())
        return samplers, not self._finder.is_done

    def _let_go(self) -> None:
        """Of processes that have ended, or become another program."""
        for number, sampler in list(self._there.items()):
            if not sampler.process.is_alive():
                self._probing.end(sampler.process)
                # After the last that its probes told.
                sampler.end(time.monotonic_ns())
                del self._there[number]

    def _take(self, found: Found) -> Sequence[Sampler]:
        now = time.monotonic_ns()
        self._refused += [(identity, why, now) for identity, why in found.refused]
        if found.processes:
            # One of them may have become another program while it was looked into.
            self._let_go()
        known = {sampler.process.pid for sampler in self._there.values()}
        fresh = []
        for process in found.processes:
            if process.pid in known:
                process.let_go()
                continue
            number = process.number
            try:
                sampler = Sampler(process)
            except ValueError as err:
                process.let_go()
                self._refused.append((process.identity, f"its structures overlap: {err}", now))
                continue
            self._reasons[number] = go_rows.Reasons(process)
            self._probing.take(process)
            # Last, as the writing thread tells of those that have one.
            self._there[number] = self._samplers[number] = sampler
            fresh.append(sampler)
        if fresh and self._probes:
            self._take_tags()
        return fresh

    def fill(self) -> float:
        """How full the fuller ring is."""
        return max((ring.fill() for ring, _ in self._told()), default=0.0)

    def _told(self) -> Sequence[tuple[Ring, Handover]]:
        """The rings that something may be in, and where that goes."""
        if self._probes is None or self._closed or not self._reasons:
            return ()
        into = (self._drained, self._stacks_drained)
        return tuple(zip(self._probes.rings, into, strict=True))

    def drain(self) -> None:
        """Empties the rings; the samplers begin here, with the privileges that are left."""
        if self._thread.failure:
            raise self._thread.failure
        if not self._thread.started:
            self._thread.start(self._samplers.values())
            self._probing.begin()
        self._empty(_MAX_BACKLOG)

    def _empty(self, limit: float) -> None:
        """Into memory, unless more than `limit` bytes are waiting there to be written."""
        room = limit - self._drained.backlog - self._stacks_drained.backlog
        for ring, drained in self._told():
            if room < 0:
                return
            if (records := ring.drain()) is not None:
                room -= records.nbytes
                drained.put(records)
        self._emptied += 1

    def rows(self) -> Rows:
        """Waits, stacks, gauges, samples and histograms since the last call."""
        emptied = self._emptied
        if (records := self._drained.take()) is not None:
            self._counted.update(go_rows.counted(records))
            yield "waits", go_rows.waits(records, self._reasons, self._tasks, self._groups)
        if (records := self._stacks_drained.take()) is not None:
            yield from self._stacks.recorded(records)
        if edges := self._probing.edges():
            yield "gauges", go_rows.edges(edges)
        for sampler in list(self._samplers.values()):
            process = sampler.process
            told = partial(self._stacks.sampled, process)
            shape = process.offsets.histogram
            yield from go_rows.sampled(process.pid, sampler.samples, shape, told, self._until_ns)
        self._let_past(emptied)
        yield from self._named(self._past.frames())

    def _let_past(self, emptied: int) -> None:
        """Keeps only what must be of processes that have ended and told all; on the writing thread.

        Args:
            emptied: How often the rings had been before the last rows were made.
        """
        for number, sampler in list(self._samplers.items()):
            if sampler.ended_ns is None or number in self._there:
                continue
            if emptied < self._ended_at.setdefault(number, emptied) + _ALL_TOLD:
                continue
            process, past = sampler.process, self._past
            past.name(process, self._stacks.take(number))
            past.add(sampler, self._row_of(sampler), self._describe(sampler, sampler.ended_ns))
            self._probing.forget(process)
            for known in (self._samplers, self._reasons, self._ended_at, self._counted):
                known.pop(number, None)

    def detach(self, end_ns: int) -> None:
        """Takes every probe out of the processes, whose memory is read a last time meanwhile."""
        self._until_ns = end_ns
        self._thread.end(end_ns)
        self._probing.detach()

    def finish(self) -> Rows:
        """What was drained last, and the names of all addresses."""
        yield from self.rows()
        found = [
            (self._samplers[number].process, addresses)
            for number, addresses in self._stacks.addresses.items()
            if number in self._samplers
        ]
        yield from self._named(go_rows.frames([*self._past.unnamed, *found]))

    def _named(self, tables: Iterable[pa.Table]) -> Rows:
        for table in tables:
            self._overwritten += table["name"].to_pylist().count(go_rows.OVERWRITTEN)
            yield "frames", table

    def targets(self) -> Sequence[pa.Table]:
        """What became of each process; refused for now are those that are asked again."""
        found = [*self._past.told, *map(self._row_of, list(self._samplers.values()))]
        found += [(identity, None, why, ns, None) for identity, why, ns in self._left_alone()]
        return [go_rows.targets(found)]

    def _row_of(self, sampler: Sampler) -> go_rows.Told:
        process = sampler.process
        level, why = self._probing.reached(process)
        why = "; ".join(filter(None, (why, sampler.failure)))
        return process.identity, level, why, self._probing.from_ns(process), sampler.ended_ns

    def _left_alone(self) -> list[tuple[Identity, str, int]]:
        """Those that could not be looked into, why, and since when (ns)."""
        now = time.monotonic_ns()
        return [*self._refused, *((who, why, now) for who, why in self._finder.unsettled())]

    def describe(self) -> dict[str, Any]:
        """Levels, counts and what it costs the services: hits times what one was measured to."""
        counters = self._probes.counters() if self._probes else {}
        runs = self._probes.runs if self._probes else None
        samplers, past = list(self._samplers.values()), self._past
        processes = self._described()
        is_sampled = any(process["level"] in (1, 2) for process in processes)
        return {
            "level_asked_for": self._level,
            "processes": processes,
            "left_out": self._finder.left_out,
            "not_looked_at": self._finder.not_looked_at,
            "sampled": TRACKED_ONE_IN if is_sampled else None,
            "labels": {"trace": list(self._trace_keys), "span": list(SPAN_KEYS)},
            "budget": self._probing.budget,
            "hit_ns": round(runs.hit_ns, 1) if runs else 0.0,
            "expected": asdict(self._expected) if self._expected else None,
            "program_ns": {n: round(v) for n, v in runs.program_ns.items()} if runs else {},
            "probe_ns": self._probes.cost_ns() if self._probes else 0,
            "sampler_cpu_ns": past.sampler_cpu_ns + sum(s.cpu_ns for s in samplers),
            "sampler_ticks": past.sampler_ticks + sum(s.ticks for s in samplers),
            "counters": counters,
            "stacks_refused": self._stacks.refused,
            "frames_without_lines": past.unplaced,
            "addresses_overwritten": self._overwritten,
        }

    def _described(self) -> list[dict[str, Any]]:
        now = time.monotonic_ns()
        found = [dict(one) for one in self._past.described]
        found += [self._describe(s, s.ended_ns or now) for s in list(self._samplers.values())]
        programs: Counter[int] = Counter()
        for one in found:
            programs[one["pid"]] += 1
            one["nth"] = programs[one["pid"]]
        return found + [
            {"pid": identity.pid, "version": identity.version, "level": None, "why": why}
            for identity, why, _ in self._left_alone()
        ]

    def _describe(self, sampler: Sampler, until_ns: int) -> dict[str, Any]:
        process = sampler.process
        return {
            "pid": process.pid,
            "nth": 0,
            "version": process.identity.version,
            "offsets": process.offsets_from,
            "noted": sampler.noted,
            "told": self._counted[process.number],
            **self._probing.describe(process, until_ns),
        }

    def close(self) -> None:
        """Detaches everything."""
        if self._closed:
            return
        # While the rings are there; of one that never began, nobody wants what is in them.
        if self._thread.started:
            self._empty(math.inf)
        self._probing.close()
        self._closed = True
        self._thread.stop()
        now = time.monotonic_ns()
        self._refused += [(identity, why, now) for identity, why in self._finder.left()]


def go_source(
    pids: Sequence[int], settings: Settings, command: str = "", *, yields: bool = False
) -> GoSource:
    """The Go processes of a recording: those that are there, and those that will be.

    One that cannot be looked into is part of the source, with the reason.

    Args:
        pids: Processes that are named, or the one that will be the command.
        settings: What to record.
        command: What it will run; empty where it is not started by the recorder.
        yields: Whether another source fills in what the probes do not find.
    """
    wanted, filters = settings.go, settings.filters
    level = 0 if settings.histogram_only else wanted.level
    if level is None:
        # A probe in a service that nobody named is for its owner to decide.
        level = 1 if pids or filters.cgroups or filters.comms else 0
    share = DEFAULT_SHARE[level] if wanted.budget is None else wanted.budget
    starting = program_of(shutil.which(command) or "", pids[0]) if command and pids else None
    return GoSource(
        Finder(filters, pids, starting),
        level,
        wanted.trace_labels,
        share=None if share == math.inf else share,
        expected=bool(wanted.level or starting),
        yields=yields,
    )
