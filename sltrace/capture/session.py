"""One recording from start to end: attach, drain on a timer, write, finish."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sltrace.capture import cputimes, overhead, priority, privileges, tags
from sltrace.capture.asynciotasks import AsyncioTasks
from sltrace.capture.description import describe
from sltrace.capture.feed import Feed
from sltrace.capture.probes import LibbpfProbes, Probes, Targets
from sltrace.capture.rows import RowMaker
from sltrace.capture.settings import Settings
from sltrace.capture.sources import Context, Source
from sltrace.capture.stacks import StackTable
from sltrace.capture.tallies import CounterIntervals, HistogramIntervals
from sltrace.names.cgroups import CgroupNames, choose_hierarchy
from sltrace.names.processes import ProcessNames
from sltrace.names.topology import read_topology
from sltrace.symbols.recorder import SymbolRecorder
from sltrace.trace.writer import TraceWriter, refuse_existing

TICK_S = 0.05
"""How often the rings are drained."""
SEGMENT_S = 0.5
"""How long a segment of waits is added to; a killed recorder loses at most this much."""
INTERVAL_S = 1.0
"""Length of the intervals of counters and histograms."""
_BUSY_FILL = 0.25
_MAX_BACKLOG = 32 << 20
_PIECE = 2 << 20


@dataclass(frozen=True)
class Status:
    """How the recording goes, for the terminal.

    Attributes:
        seconds: Since it began.
        switches_per_s: Context switches seen, in the last interval.
        waits: Rows written so far.
        lost: Waits that could not be handed over so far.
        missed: Waits not seen whole so far.
        recorder_share: CPUs the recorder uses, in the last interval.
        probe_share: CPUs the probes use, estimated, in the last interval.
    """

    seconds: float
    switches_per_s: float
    waits: int
    lost: int
    missed: int
    recorder_share: float
    probe_share: float


class Recording:
    """A recording.

    Args:
        path: Trace to write, `NAME.slt`.
        settings: What to record.
        loader: `libbpf` or `bcc`.
        force: Replace a trace that is there.
        command_line: For the trace's description.
        sources: What to record besides the scheduler; needs the libbpf loader.
        say: Shows a line to the user before the recording begins.
    """

    def __init__(
        self,
        path: Path,
        settings: Settings,
        *,
        loader: str = "libbpf",
        force: bool = False,
        command_line: Sequence[str] | None = None,
        sources: Sequence[Source] = (),
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.path = path
        self._settings = settings
        self._closing = threading.Event()
        self._failure: Exception | None = None
        self._hierarchy = choose_hierarchy()
        self._groups = CgroupNames(self._hierarchy)
        self._tasks = ProcessNames()
        self._topology = read_topology()
        self._asyncio_tasks = AsyncioTasks()
        stacks = settings.stacks
        self._symbols = SymbolRecorder(kernel=stacks.kernel or stacks.waker)
        self._native = StackTable(self._symbols)
        refuse_existing(path, force=force)
        self._start_ns = time.monotonic_ns()
        self._clock = {"start_ns": self._start_ns, "start_unix_ns": time.time_ns()}
        self._sources = tuple(sources)
        self._say = say
        try:
            self._probes = self._load(loader)
        except BaseException:
            self._close_sources()
            raise
        try:
            self._calibration = overhead.calibrate(self._probes)
            # Only now, so that a recording that cannot start replaces nothing.
            description = describe(
                settings,
                self._hierarchy,
                self._topology,
                loader=loader,
                command_line=command_line or (),
                clock=self._clock,
            )
            self._writer = TraceWriter.create(path, description, force=force)
            self._feed = Feed(
                self._writer,
                self._probes,
                self._sources,
                rows=RowMaker(
                    self._tasks,
                    self._groups,
                    self._topology.node_of_cpu,
                    settings.min_latency_ns,
                    self._asyncio_tasks,
                ),
                tasks=self._tasks,
                groups=self._groups,
                native=self._native,
                symbols=self._symbols,
            )
            # Loading and verifying take seconds of CPU, and are in no hurry.
            priority.raise_for_reading()
            self._begin()
        except BaseException:
            self._detach()
            raise

    def _load(self, loader: str) -> Probes:
        targets = Targets(
            cgroup_ids=tuple(
                i for path in self._settings.filters.cgroups for i in self._groups.subtree_ids(path)
            ),
            hierarchy_id=self._hierarchy.hierarchy_id,
            cgroup_v1=self._hierarchy.kind != "v2",
            start_ns=self._start_ns,
            tags_fd=self._attach_sources(),
        )
        if loader == "bcc":
            from sltrace.capture.bcc import BccProbes

            return BccProbes(self._settings, targets)
        return LibbpfProbes(self._settings, targets)

    def _attach_sources(self) -> int:
        """Attaches the sources; the map of their tags, or -1 where there are none."""
        if not self._sources:
            return -1
        context = Context(
            settings=self._settings,
            start_ns=self._start_ns,
            tags_fd=tags.create_map(),
            tasks=self._tasks,
            groups=self._groups,
            cgroup_v1=self._hierarchy.kind != "v2",
            say=self._say,
            asyncio_tasks=self._asyncio_tasks,
            native=self._native.add,
        )
        for source in self._sources:
            source.attach(context)
        return context.tags_fd

    def _close_sources(self) -> None:
        for source in self._sources:
            source.close()

    def _begin(self) -> None:
        """Forgets what the calibration left behind; from here on everything counts."""
        for ring in self._probes.wait_rings:
            ring.drain()
        values = self._probes.counters()
        self._counters = CounterIntervals(self._probes.counter_names, values)
        self._baseline = dict(zip(self._probes.counter_names, values.sum(axis=0), strict=True))
        self._histograms = HistogramIntervals(
            self._groups, self._probes.histogram_slots(), values.shape[0]
        )
        self._start_ns = time.monotonic_ns()
        self._clock = {"start_ns": self._start_ns, "start_unix_ns": time.time_ns()}
        self._feed.since_ns = self._start_ns
        self._interval_start = self._start_ns
        self._cpu_times = cputimes.read_cpu_times()
        self._last_switches = 0
        self._cpu_at_start = self._cpu_at_interval = time.process_time_ns()
        self._writer.update_meta(
            clock=self._clock_now(),
            probes={
                "attached": self._probes.attached,
                "not_attached": [{"name": n, "why": w} for n, w in self._probes.not_attached],
            },
        )

    def want_pid(self, pid: int) -> None:
        """Adds a process to the pid filter, which must have been on from the start."""
        self._probes.want_pid(pid)

    def drop_privileges(self) -> list[str]:
        """Keeps only the capabilities that recording still needs; their names."""
        kept = privileges.keep_only(
            privileges.needed_after_attach(
                other_processes=self._settings.stacks.user
                or self._settings.stacks.waker
                or any(source.reads_processes for source in self._sources),
                for_another_user="SUDO_UID" in os.environ,
            )
        )
        self._writer.update_meta(capabilities=kept)
        return kept

    def run(self, done: Callable[[], bool], report: Callable[[Status], None]) -> None:
        """Records until `done()`; `report` gets a status about once a second.

        Writing is a thread of its own: a file system that is busy or starved (its journal runs at
        normal priority) must not keep the rings from being emptied.

        Raises:
            OutputError: The trace cannot be written any more; what was written is whole.
        """
        writing = threading.Thread(target=self._write_until_closed, args=(report,), daemon=True)
        writing.start()
        tick = TICK_S
        while not done() and not self._failure:
            time.sleep(tick)
            fill = self._drain()
            # Under a load that fills a quarter of a ring in one tick, look more often.
            tick = TICK_S / 5 if fill > _BUSY_FILL else TICK_S
        # Before the last reading, so that what is counted and what is handed over agree.
        self._probes.detach()
        self._feed.until_ns = time.monotonic_ns()
        self._clock |= {"end_ns": self._feed.until_ns, "end_unix_ns": time.time_ns()}
        for source in self._sources:
            source.detach()
        self._drain(limit=None)
        self._closing.set()
        writing.join()
        priority.lower()
        if self._failure:
            raise self._failure

    def finish(self) -> None:
        """Detaches, writes what is left, resolves symbols and marks the trace as whole."""
        try:
            skipped = overhead.missed_runs(self._probes)
        finally:
            self.abandon()
        clock = self._clock_now()
        self._writer.update_meta(cpu_times=cputimes.since(self._cpu_times))
        self._feed.finish()
        self._writer.update_meta(
            clock=clock,
            overhead=self._overhead(),
            skipped_probe_runs=skipped,
            sources=self._describe_sources(),
        )
        self._writer.close()

    def abandon(self) -> None:
        """Detaches everything; what was written stays readable."""
        self._feed.abandon()
        self._detach()

    def _detach(self) -> None:
        self._probes.close()
        self._close_sources()

    # ---- draining ----------------------------------------------------------------------------

    def _drain(self, limit: int | None = _MAX_BACKLOG) -> float:
        """Empties the rings into memory, unless `limit` bytes are waiting there to be written."""
        fill, taken, size = 0.0, [], 0
        for ring in self._probes.wait_rings:
            fill = max(fill, ring.fill())
            room = limit is None or self._feed.backlog + size < limit
            if room and (records := ring.drain()) is not None:
                taken.append(records)
                size += records.nbytes
        # A wait is told by what the sources saw before it: that is taken after it, and is there
        # when the wait is handed on.
        fill = max([fill, *(source.drain() for source in self._sources)])
        for records in taken:
            self._feed.put(records)
        return fill

    # ---- the writing thread ------------------------------------------------------------------

    def _write_until_closed(self, report: Callable[[Status], None]) -> None:
        next_segment = time.monotonic() + SEGMENT_S
        next_interval = time.monotonic() + INTERVAL_S
        try:
            while not self._closing.wait(TICK_S):
                now = time.monotonic()
                # A row group costs 1.5 ms however small it is; a large one 1 kB of memory a wait.
                if now >= next_segment or self._feed.backlog > _PIECE:
                    self._feed.encode(sources=now >= next_segment)
                if now >= next_segment:
                    self._feed.close_segment()
                    next_segment = now + SEGMENT_S
                if now >= next_interval:
                    report(self._close_interval())
                    next_interval = now + INTERVAL_S
            self._feed.encode(sources=True)
            self._feed.close_segment()
            self._close_interval()
        except Exception as err:
            self._failure = err

    def _close_interval(self) -> Status:
        start, end = self._interval_start, time.monotonic_ns()
        self._interval_start = end
        self._writer.append("counters", self._counters.rows(self._probes.counters(), start, end))
        histograms, sums = self._histograms.rows(self._probes.histogram_slots(), start, end)
        self._writer.append("histograms", histograms)
        self._writer.append("histogram_sums", sums)
        self._feed.write_names()
        self._writer.update_meta(
            clock=self._clock_now(),
            overhead=self._overhead(),
            cpu_times=cputimes.since(self._cpu_times),
            sources=self._describe_sources(),
        )
        return self._status(end - start)

    def _status(self, interval_ns: int) -> Status:
        cpu = time.process_time_ns()
        used, self._cpu_at_interval = cpu - self._cpu_at_interval, cpu
        switches = self._counted("switches")
        fresh, self._last_switches = switches - self._last_switches, switches
        return Status(
            seconds=(time.monotonic_ns() - self._start_ns) / 1e9,
            switches_per_s=fresh * 1e9 / interval_ns,
            waits=self._feed.waits,
            lost=self._counted("ring_full") + self._counted("state_lost"),
            missed=self._counted("holes") + self._counted("unstamped"),
            recorder_share=used / interval_ns,
            probe_share=fresh * self._calibration.ns_per_switch / interval_ns,
        )

    # ---- accounts ----------------------------------------------------------------------------

    def _counted(self, name: str) -> int:
        return self._counters.total(name) - int(self._baseline[name])

    def _clock_now(self) -> dict[str, int]:
        return {"end_ns": time.monotonic_ns(), "end_unix_ns": time.time_ns()} | self._clock

    def _overhead(self) -> dict[str, Any]:
        switches = self._counted("switches")
        return {
            "probe_ns": round(switches * self._calibration.ns_per_switch),
            "probe_ns_per_switch": round(self._calibration.ns_per_switch, 1),
            "switches": switches,
            "recorder_cpu_ns": time.process_time_ns() - self._cpu_at_start,
            "wall_ns": time.monotonic_ns() - self._start_ns,
        }

    def _describe_sources(self) -> dict[str, Any]:
        return {source.name: source.describe() for source in self._sources}
