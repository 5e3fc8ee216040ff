"""The source of a recording that looks into Python processes."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sltrace.capture import privileges
from sltrace.capture.handover import Handover
from sltrace.capture.python import rows
from sltrace.capture.python.frames import FrameTable
from sltrace.capture.python.holders import Holders
from sltrace.capture.python.probes import SAMPLE_HZ, Collector, PythonProbes
from sltrace.capture.python.targets import EXIT, Targets
from sltrace.capture.python.told import Told
from sltrace.capture.ring import Ring
from sltrace.capture.sources import Context, Rows
from sltrace.capture.tallies import CounterIntervals
from sltrace.errors import CannotRecord
from sltrace.procfs import folder_of
from sltrace.symbols.elf import Elf, ElfError
from sltrace.symbols.filebytes import FileBytes, open_regular
from sltrace.symbols.usdt import markers
from sltrace.target.python.interpreter import Interpreter

if TYPE_CHECKING:
    import pyarrow as pa

_COLLECTOR = "gc_collect_main"
_COLLECTOR_3_14 = "_PyGC_Collect"
"""Of the first versions of 3.14, which have not the other. Before, it is one of its callers."""
_MAX_BACKLOG = 64 << 20
_NEVER = (1 << 63) - 1


class PythonSource:
    """Python processes, their threads and their children.

    Args:
        pids: Processes to look into.
    """

    name = "python"
    privileges = privileges.READ_MAPPINGS

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = tuple(pids)
        self._probes: PythonProbes | None = None
        self._targets: Targets | None = None
        self._refused = ""
        self._until_ns = _NEVER
        self._rings: dict[str, Ring] = {}
        self._drained: dict[str, Handover] = {}
        self._holders = Holders()
        self._told = Told()
        self._learned: list[tuple[str, pa.Table]] = []

    def attach(self, context: Context) -> None:
        """Looks at the processes and attaches; what the kernel refuses leaves its view alone."""
        self._context = context
        try:
            probes = PythonProbes(context.settings, context.tags_fd, cgroup_v1=context.cgroup_v1)
        except CannotRecord as err:
            self._refused = str(err)
            return
        self._probes = probes
        # What is told by the others before those.
        self._rings = {
            "waits": probes.waits,
            "samples": probes.samples,
            "stacks": probes.stacks,
            "native": probes.native,
            "names": probes.names,
            "events": probes.events,
        }
        self._drained = {name: Handover() for name in self._rings}
        self._counters = CounterIntervals(probes.counter_names, probes.counters(), rows.CLASSES)
        self._since_ns = time.monotonic_ns()
        self._targets = Targets(
            probes.add_process, probes.set_process, probes.process_layout, self._recognised
        )
        self._frames = FrameTable(self._targets.memories, context.asyncio_tasks.of_stack)
        try:
            probes.attach()
        except CannotRecord as err:
            self._refused = str(err)
            probes.close()
            self._probes = None
        if self._probes is not None:
            context.take_tags()
            context.before_tasks(self._learn)
            context.doubted.ask(self._targets.doubted)
        self._targets.start(self._pids)

    def fill(self) -> float:
        """How full the fullest ring is."""
        return max((ring.fill() for ring in self._rings.values()), default=0.0)

    def drain(self) -> None:
        """Empties the rings into memory."""
        if self._probes is None:
            return
        taken = []
        room = _MAX_BACKLOG - sum(drained.backlog for drained in self._drained.values())
        for name, ring in self._rings.items():
            if room >= 0 and (records := ring.drain()) is not None:
                room -= records.nbytes
                taken.append((name, records))
        # So that the stacks and names of every wait are there when it is.
        for name, records in reversed(taken):
            self._drained[name].put(records)

    def rows(self) -> Rows:
        """What became known since the last call."""
        if self._probes is None or self._targets is None:
            return
        waits, samples = self._drained["waits"].take(), self._drained["samples"].take()
        self._learn()
        learned, self._learned = self._learned, []
        yield from learned
        # Nothing is recorded of who is recognised after the end.
        if self._until_ns == _NEVER:
            self._targets.look()
        if mapped := self._targets.newly_mapped():
            yield "mappings", rows.mappings(mapped)
        for pid in self._frames.check_some(self._targets.running):
            self._probes.renew_stacks(pid)
        if (native := self._drained["native"].take()) is not None:
            yield from self._context.native(native)
        for records in (waits, samples):
            if records is not None:
                self._context.doubted.take_out(records["pid"], records["tag"])
        if samples is not None:
            self._holders.sampled(samples)
        if waits is not None:
            self._holders.settle(waits)
            yield "waits", rows.waits(waits, self._context)
        if samples is not None:
            yield "samples", rows.samples(samples, self._context)
        yield "counters", self._changed_counters()

    def finish(self) -> Rows:
        """The rest."""
        if self._probes is not None:
            self.drain()
            yield from self.rows()
        if self._targets is not None:
            self._targets.close()

    def targets(self) -> Sequence[pa.Table]:
        """What became of the processes."""
        if self._targets is None:
            return ()
        ended, there = self._targets.newly_ended(), self._targets.told()
        return self._told.rows(ended, there, self._until_ns)

    def describe(self) -> dict[str, Any]:
        """What is attached, how much of it was lost, and what it cost."""
        settings = self._context.settings.python
        described: dict[str, Any] = {
            "stack_rate_per_cpu": settings.rate_per_cpu,
            "loops": "exact" if settings.loops else "upper bound",
            "sample_hz": SAMPLE_HZ,
        }
        if self._refused:
            described["refused"] = self._refused
        if self._probes is not None:
            totals = self._probes.counters().sum(axis=0).tolist()
            described |= {
                "attached": self._probes.attached,
                "not_attached": [{"name": n, "why": w} for n, w in self._probes.not_attached],
                "counters": dict(zip(self._probes.counter_names, totals, strict=True)),
                "cpus_not_sampled": self._probes.cpus_not_sampled(),
                "frames_unreadable": self._frames.unreadable,
                "code_replaced": self._frames.replaced,
                "stacks_refused": self._frames.refused,
                "processes_refused": self._targets.refused if self._targets else 0,
                "ended_targets_refused": self._told.refused,
                "processes_unknown": self._targets.unknown if self._targets else 0,
            }
        return described

    def detach(self, end_ns: int) -> None:
        """Takes every probe out; what it told can still be read."""
        self._until_ns = end_ns
        if self._probes is not None:
            self._probes.detach()

    def close(self) -> None:
        """Detaches everything; what was drained stays."""
        if self._probes is not None:
            self._probes.close()

    def _recognised(self, pid: int, interpreter: Interpreter) -> None:
        """Times the collector where the interpreter's file names or marks it."""
        assert self._probes
        # An upgrade removes the file, or puts another there, while the process runs on.
        root, held = (folder_of(pid) / name for name in ("root", "map_files"))
        for path in (root / interpreter.path.lstrip("/"), held / interpreter.mapped):
            try:
                with open_regular(path) as file:
                    status, data = os.fstat(file.fileno()), FileBytes(file)
                elf = Elf(data)
                places = _collector(elf, interpreter.layout.minor)
            except (OSError, ElfError):
                continue
            if places and elf.build_id == interpreter.build_id:
                # Into this very file: its owner may put another, or a link, in its place.
                self._probes.attach_collector((status.st_dev, status.st_ino), data.path, places)
                return

    def _learn(self) -> None:
        """Reads the code of new stacks, on the writing thread; their rows are kept."""
        assert self._targets
        stacks, events = self._drained["stacks"].take(), self._drained["events"].take()
        if (names := self._drained["names"].take()) is not None:
            self._context.asyncio_tasks.name(names)
        # A child's stacks need its fork; a process that has ended since left its stacks before.
        if events is not None:
            self._targets.feed(events[events["kind"] != EXIT])
        if stacks is not None:
            self._learned += zip(("stacks", "frames"), self._frames.add(stacks), strict=True)
        if events is not None:
            self._targets.feed(events[events["kind"] == EXIT])

    def _changed_counters(self) -> pa.Table:
        assert self._probes
        start, self._since_ns = self._since_ns, time.monotonic_ns()
        return self._counters.rows(self._probes.counters(), start, self._since_ns)


def _collector(elf: Elf, minor: int) -> Collector | None:
    addresses = elf.functions(_COLLECTOR)
    if not addresses and minor >= 14:
        addresses = elf.functions(_COLLECTOR_3_14)
    offsets = (elf.offset_of(address) for address in addresses)
    if functions := [offset for offset in offsets if offset is not None]:
        return Collector(functions)
    begins, ends = (markers(elf, "python", name) for name in ("gc__start", "gc__done"))
    return Collector(begins=begins, ends=ends) if begins and ends else None
