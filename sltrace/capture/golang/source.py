"""Go processes as a source: what is attached to which, and what became of it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sltrace.capture.golang import cost
from sltrace.capture.golang import rows as go_rows
from sltrace.capture.golang.probes import SPAN_KEYS, GoProbes
from sltrace.capture.golang.sampler import Sampler, SamplerThread
from sltrace.capture.settings import Settings
from sltrace.capture.sources import Context, Rows
from sltrace.errors import CannotRecord
from sltrace.names.cgroups import choose_hierarchy
from sltrace.target.go.errors import NotGoError, RefusedError
from sltrace.target.go.offsets import TRACKED_ONE_IN
from sltrace.target.go.process import GoProcess, Identity, identify, look_into
from sltrace.trace.schema import arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

MAX_STACKS = 1 << 18


class GoSource:
    """Go processes that are recorded.

    Args:
        processes: Those that can be looked into.
        refused: Those that cannot, with the reason.
        level: How much to record.
        trace_keys: pprof labels that hold a trace id.
    """

    name = "go"

    def __init__(
        self,
        processes: Sequence[GoProcess],
        refused: Sequence[tuple[Identity, str]],
        level: int,
        trace_keys: tuple[str, ...],
    ) -> None:
        self._processes = {p.pid: p for p in processes}
        self._refused = list(refused)
        self._level = level
        self._trace_keys = trace_keys
        self._reached: dict[int, tuple[int, str]] = {}
        self._samplers = {p.pid: Sampler(p) for p in processes}
        self._thread = SamplerThread(list(self._samplers.values()))
        self._probes: GoProbes | None = None
        self._drained: deque[NDArray[Any]] = deque()
        self._stacks_drained: deque[NDArray[Any]] = deque()
        self._known_stacks: set[int] = set()
        self._addresses: dict[int, set[int]] = {pid: set() for pid in self._processes}
        self._expected: cost.Expected | None = None
        self._from_ns = 0
        self._closed = False

    def attach(self, context: Context) -> None:
        """Loads the probes and attaches them to each process."""
        self._tasks, self._groups = context.tasks, context.groups
        self._from_ns = time.monotonic_ns()
        if not self._processes:
            return
        before = cost.noted(list(self._processes.values()))
        self._reasons = {pid: go_rows.Reasons(p) for pid, p in self._processes.items()}
        try:
            self._probes = GoProbes(
                context.tags_fd,
                cgroup_v1=choose_hierarchy().kind != "v2",
                trace_keys=self._trace_keys,
            )
        except CannotRecord as err:
            # Memory can be read where nothing can be probed.
            self._reached = {pid: (0, str(err)) for pid in self._processes}
            return
        if self._level:
            self._tell_cost(context, before)
        for pid, process in self._processes.items():
            self._reached[pid] = self._probes.add(
                process, self._level, switch_stacks=not context.settings.stacks.user
            )
        self._probes.begin()

    def _tell_cost(self, context: Context, before: cost.Noted) -> None:
        assert self._probes
        time.sleep(max(before.at + cost.OBSERVED_S - time.monotonic(), 0))
        after = cost.noted(list(self._processes.values()))
        self._expected = cost.expected(self._level, before, after, self._probes.hit_ns)
        context.say(cost.sentence(self._level, len(self._processes), self._expected))

    def drain(self) -> float:
        """Empties the rings; the samplers begin here, with the privileges that are left."""
        if not self._thread.started and self._samplers:
            self._thread.start()
        if self._probes is None or self._closed:
            return 0.0
        fill = max(self._probes.ring.fill(), self._probes.stack_ring.fill())
        for ring, into in (
            (self._probes.ring, self._drained),
            (self._probes.stack_ring, self._stacks_drained),
        ):
            if (records := ring.drain()) is not None:
                into.append(records)
        return fill

    def rows(self) -> Rows:
        """Waits, stacks, gauges, samples and histograms since the last call."""
        if self._drained:
            records = np.concatenate([self._drained.popleft() for _ in range(len(self._drained))])
            yield "waits", go_rows.waits(records, self._reasons, self._tasks, self._groups)
        for _ in range(len(self._stacks_drained)):
            yield from self._stack_rows(self._stacks_drained.popleft())
        for pid, sampler in self._samplers.items():
            for table, data in go_rows.sampled(pid, sampler.samples):
                if table != "stacks":
                    yield table, data
                    continue
                found = dict(
                    zip(data["stack_id"].to_pylist(), data["addresses"].to_pylist(), strict=True)
                )
                yield from self._new_stacks(pid, found)

    def _stack_rows(self, records: NDArray[Any]) -> Rows:
        for pid in np.unique(records["pid"]).tolist():
            mine = records[records["pid"] == pid]
            found = {
                int(r["id"]): r["addresses"][: min(int(r["depth"]), len(r["addresses"]))].tolist()
                for r in mine
            }
            yield from self._new_stacks(pid, found)

    def _new_stacks(self, pid: int, found: dict[int, list[int]]) -> Rows:
        fresh = {i: a for i, a in found.items() if i not in self._known_stacks}
        if not fresh or len(self._known_stacks) >= MAX_STACKS or pid not in self._addresses:
            return
        self._known_stacks.update(fresh)
        for addresses in fresh.values():
            self._addresses[pid].update(addresses)
        yield "stacks", go_rows.stacks(pid, fresh)

    def detach(self) -> None:
        """Takes every probe out of the processes; what they told can still be read."""
        if self._probes is not None:
            self._probes.detach()

    def finish(self) -> Rows:
        """What was drained last, the names of all addresses, and what became of each process."""
        yield from self.rows()
        for pid, addresses in self._addresses.items():
            if addresses:
                yield "frames", go_rows.frames(self._processes[pid], addresses)
        yield "targets", self._targets()

    def _targets(self) -> pa.Table:
        import pyarrow as pa

        rows = []
        known = [
            (p.identity, *self._reached.get(pid, (0, ""))) for pid, p in self._processes.items()
        ]
        for identity, level, why in [*known, *((i, None, why) for i, why in self._refused)]:
            sampler = self._samplers.get(identity.pid)
            rows.append(
                {
                    "pid": identity.pid,
                    "runtime": "go",
                    "version": identity.version,
                    "exe": identity.exe,
                    "build_id": identity.build_id,
                    "level": level,
                    "why": why,
                    "from_ns": self._from_ns,
                    "until_ns": sampler.ended_ns if sampler else None,
                }
            )
        return pa.Table.from_pylist(rows, schema=arrow_schema("targets"))

    def describe(self) -> dict[str, Any]:
        """Levels, counts and what it costs the services: hits times what one was measured to."""
        counters = self._probes.counters() if self._probes else {}
        hit_ns = self._probes.hit_ns if self._probes else 0.0
        return {
            "level_asked_for": self._level,
            "processes": [
                {
                    "pid": pid,
                    "version": p.identity.version,
                    "level": level,
                    "why": why,
                    "offsets": p.offsets_from,
                }
                for pid, p in self._processes.items()
                for level, why in [self._reached.get(pid, (0, ""))]
            ]
            + [
                {"pid": i.pid, "version": i.version, "level": None, "why": why}
                for i, why in self._refused
            ],
            "sampled": TRACKED_ONE_IN if self._is_sampled() else None,
            "labels": {"trace": list(self._trace_keys), "span": list(SPAN_KEYS)},
            "hit_ns": round(hit_ns, 1),
            "expected": asdict(self._expected) if self._expected else None,
            "program_ns": {n: round(v) for n, v in self._probes.program_ns.items()}
            if self._probes
            else {},
            "probe_ns": self._probes.cost_ns() if self._probes else 0,
            "sampler_cpu_ns": sum(s.cpu_ns for s in self._samplers.values()),
            "sampler_ticks": sum(s.ticks for s in self._samplers.values()),
            "counters": counters,
        }

    def _is_sampled(self) -> bool:
        return any(level in (1, 2) for level, _ in self._reached.values())

    def close(self) -> None:
        """Detaches everything."""
        if self._closed:
            return
        if self._probes:
            self._probes.close()
            self.drain()
        self._closed = True
        self._thread.stop()


def go_source(pids: Sequence[int], settings: Settings) -> GoSource | None:
    """The Go processes among these; None where there is none.

    A Go process that cannot be looked into is part of the source, with the reason.
    """
    processes, refused = [], []
    for pid in pids:
        try:
            identity = identify(pid)
        except NotGoError:
            continue
        try:
            processes.append(look_into(identity))
        except RefusedError as err:
            refused.append((identity, str(err)))
    if not processes and not refused:
        return None
    return GoSource(processes, refused, settings.go.level, settings.go.trace_labels)
