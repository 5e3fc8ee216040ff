"""One recording from start to end: attach, drain on a timer, write, finish."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sltrace.capture import (
    kernel,
    memory,
    openfiles,
    overhead,
    pidspace,
    priority,
    privileges,
    tags,
)
from sltrace.capture.accounts import Accounts, Status
from sltrace.capture.asynciotasks import AsyncioTasks
from sltrace.capture.description import describe
from sltrace.capture.feed import Feed
from sltrace.capture.guarded import Guarded
from sltrace.capture.probeconfig import Targets
from sltrace.capture.probes import LibbpfProbes, Probes
from sltrace.capture.reading import Reading
from sltrace.capture.rows import RowMaker
from sltrace.capture.settings import Settings
from sltrace.capture.sources import Context, Source
from sltrace.capture.stacks import StackTable
from sltrace.capture.writing import Writing, moment
from sltrace.errors import TargetError
from sltrace.names.cgroups import CgroupNames
from sltrace.names.hierarchy import choose_hierarchy
from sltrace.names.processes import ProcessNames
from sltrace.names.quotas import QuotaHolders
from sltrace.names.topology import read_topology
from sltrace.symbols.recorder import SymbolRecorder
from sltrace.trace.clock import Clock
from sltrace.trace.compact import compact
from sltrace.trace.writer import TraceWriter, refuse_existing, warm_up


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
        pidspace.refuse_another()
        self._hierarchy = choose_hierarchy()
        self._groups = CgroupNames(self._hierarchy)
        self._tasks = ProcessNames()
        self._topology = read_topology()
        self._asyncio_tasks, self._doubted = AsyncioTasks(), tags.Doubted()
        stacks = settings.stacks
        self._symbols = SymbolRecorder(kernel=stacks.kernel or stacks.waker)
        self._native = StackTable(self._symbols)
        refuse_existing(path, force=force)
        self._wanted_cgroups()
        memory.use_one_heap()
        warm_up()
        openfiles.raise_limit()
        self._clock = {"start_ns": time.monotonic_ns(), "start_unix_ns": time.time_ns()}
        self._sources = tuple(map(Guarded, sources))
        self._say = say
        self._tagged = False
        self._tag_records: Callable[[], None] = lambda: None
        self._told_programs: list[Callable[[Sequence[int]], None]] = []
        try:
            self._probes = self._load(loader)
        except BaseException:
            self._close_sources()
            raise
        self._tag_records = self._probes.take_tags
        try:
            # It has a name of each task by now, and there is time until it is read by and by.
            names = self._probes.task_ring.drain()
            filtered = bool(settings.filters.as_meta())
            self._calibration = overhead.calibrate(self._probes, filtered=filtered)
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
            self.folder = self._writer.folder
            self._feed = self._make_feed()
            self._reading = Reading(self._probes, self._sources, self._feed, self._told_programs)
            self._reading.tell_tasks(names)
            # Loading and verifying take seconds of CPU, and are in no hurry.
            priority.raise_for_reading()
            memory.give_back()
            self._begin()
        except BaseException:
            self._detach()
            raise

    def _load(self, loader: str) -> Probes:
        tags_fd = self._attach_sources()
        targets = Targets(
            cgroup_ids=self._wanted_cgroups,
            hierarchy_id=self._hierarchy.hierarchy_id,
            cgroup_v1=self._hierarchy.kind != "v2",
            start_ns=self._clock["start_ns"],
            tags_fd=tags_fd,
            tagged=self._tagged,
        )
        if loader == "bcc":
            from sltrace.capture.bcc import BccProbes

            return BccProbes(self._settings, targets)
        return LibbpfProbes(self._settings, targets)

    def _wanted_cgroups(self) -> list[int]:
        """Ids of the cgroups asked for; asked anew when the probes follow what is made in them."""
        paths = self._settings.filters.cgroups
        wanted = [number for path in paths for number in self._groups.subtree_ids(path)]
        if paths and not wanted:
            raise TargetError(
                f"{' and '.join(paths)} was removed while the probes were being loaded",
                "name a cgroup that stays, as the one above it",
            )
        return wanted

    def _attach_sources(self) -> int:
        """Attaches the sources; the map of their tags, or -1 where there are none."""
        if not self._sources:
            return -1
        context = Context(
            settings=self._settings,
            start_ns=self._clock["start_ns"],
            tags_fd=tags.create_map(),
            tasks=self._tasks,
            groups=self._groups,
            take_tags=self._take_tags,
            watch_programs=self._told_programs.append,
            before_tasks=self._asyncio_tasks.learn_from,
            cgroup_v1=self._hierarchy.kind != "v2",
            say=self._say,
            asyncio_tasks=self._asyncio_tasks,
            doubted=self._doubted,
            native=self._native.add,
        )
        for source in self._sources:
            source.attach(context)
        return context.tags_fd

    def _take_tags(self) -> None:
        if not self._tagged:
            self._tagged = True
            self._tag_records()

    def _make_feed(self) -> Feed:
        rows = RowMaker(
            tasks=self._tasks,
            groups=self._groups,
            quotas=QuotaHolders(self._hierarchy, self._groups.path_of),
            node_of_cpu=self._topology.node_of_cpu,
            min_latency_ns=self._settings.min_latency_ns,
            asyncio_tasks=self._asyncio_tasks,
            doubted=self._doubted,
        )
        return Feed(
            self._writer,
            self._probes,
            self._sources,
            rows=rows,
            tasks=self._tasks,
            groups=self._groups,
            native=self._native,
            symbols=self._symbols,
        )

    def _close_sources(self) -> None:
        for source in self._sources:
            source.close()

    def _begin(self) -> None:
        """Forgets what the calibration left behind; from here on everything counts."""
        for ring in self._probes.wait_rings:
            ring.drain()
        self._accounts = Accounts(self._probes, self._groups, self._calibration)
        self._feed.since_ns = self._accounts.start_ns
        start_ns = self._accounts.start_ns
        now = moment()
        start_unix_ns = now["end_unix_ns"] - (now["end_ns"] - start_ns)
        self._clock = {"start_ns": start_ns, "start_unix_ns": start_unix_ns}
        self._furthest_ns = 0
        self._writing = Writing(self._feed, self._close_interval)
        self._writer.update_meta(
            clock=self._clock_now(),
            probes={
                "attached": self._probes.attached,
                "not_attached": [{"name": n, "why": w} for n, w in self._probes.not_attached],
            },
        )

    def drop_privileges(self) -> list[str]:
        """Keeps only the capabilities that recording still needs; their names."""
        stacks = self._settings.stacks
        needed = privileges.needed_after_attach(
            priorities=priority.needs_capability(),
            stacks=stacks.user or stacks.waker,
            for_another_user="SUDO_UID" in os.environ,
            kernel=kernel.version(),
        )
        kept = privileges.keep_only(needed.union(*(s.privileges for s in self._sources)))
        self._writer.update_meta(capabilities=kept)
        return kept

    def run(self, done: Callable[[], bool], report: Callable[[Status], None]) -> None:
        """Records until `done()`; `report` gets a status about once a second.

        Making rows is a thread of its own, so that the rings are emptied meanwhile, and writing
        them to the disk is another, as that may stall. That one is as urgent as reading: it works
        for a millisecond, and would keep the reader from the interpreter's lock.

        Raises:
            OutputError: The trace cannot be written any more; what was written is whole.
        """
        with self._writer.aside():
            self._run(done, report)
        priority.lower()
        if self._writing.failure:
            raise self._writing.failure

    def _run(self, done: Callable[[], bool], report: Callable[[Status], None]) -> None:
        self._writing.start(report)
        self._reading.run(done, self._writing)
        self._writing.hurry()
        self._end()
        self._writing.close()

    def _end(self) -> None:
        """Detaches, and reads what is left.

        The recording ended with the last wait seen, or when this begins. Detaching may take long
        where others want the CPU, or tracepoints as well; what happens meanwhile is not recorded,
        and must not count as if it had been.
        """
        ended = moment()
        self._accounts.end()
        # Before the last reading, so that what is counted and what is handed over agree.
        self._probes.detach()
        taken = self._reading.take()
        later = max((int(r["end_ns"].max()) - ended["end_ns"] for r in taken), default=0)
        self._clock |= {name: ns + max(later, 0) for name, ns in ended.items()}
        self._feed.until_ns = self._clock["end_ns"]
        for source in self._sources:
            source.detach(self._feed.until_ns)
        self._reading.hand_on(taken)

    def finish(self, ended: str) -> None:
        """Detaches, writes what is left, resolves symbols and marks the trace as whole.

        Args:
            ended: Why the recording ended, for people.
        """
        try:
            skipped = overhead.missed_runs(self._probes)
        finally:
            self.abandon()
        clock = self._clock_now()
        self._writer.update_meta(cpu_times=self._accounts.cpu_times())
        self._feed.finish()
        self._writer.update_meta(
            clock=clock,
            ended=ended,
            overhead=self._accounts.overhead(),
            **({} if skipped is None else {"skipped_probe_runs": skipped}),
            native_stacks_refused=self._native.refused,
            **self._symbols.refused,
            sources=self._describe_sources(),
        )
        compact(self._writer)
        self._writer.close()

    @property
    def failures(self) -> dict[str, str]:
        """Sources that an error of their own has ended, and which; the rest is recorded."""
        return {s.name: s.failure.why for s in self._sources if s.failure}

    def abandon(self) -> None:
        """Detaches everything; what was written stays readable, and says why it is not more."""
        self._feed.abandon()
        self._detach()
        if self.folder.failure:
            self._writer.cut_short()

    def _detach(self) -> None:
        # First those whose threads may still use the probes.
        self._close_sources()
        self._probes.close()

    def _close_interval(self) -> Status:
        self._feed.keep(self._accounts.close_interval())
        self._feed.write_tables()
        self._writer.update_meta(
            clock=self._clock_now(),
            overhead=self._accounts.overhead(),
            cpu_times=self._accounts.cpu_times(),
            sources=self._describe_sources(),
        )
        return self._accounts.status(self._feed.waits, self._feed.missed)

    def _clock_now(self) -> dict[str, int]:
        """Until it ends, its end is when the rings were emptied for what is already written."""
        clock = self._writing.written | self._clock
        self._furthest_ns = max(self._furthest_ns, Clock(**clock).ahead_ns, key=abs)
        return clock | {"furthest_ns": self._furthest_ns}

    def _describe_sources(self) -> dict[str, Any]:
        return {source.name: source.describe() for source in self._sources}
