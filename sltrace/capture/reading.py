"""The reading thread: rings are emptied into memory before they are full."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from sltrace.capture.feed import Feed
from sltrace.capture.probes import Probes
from sltrace.capture.sources import Source
from sltrace.capture.writing import Writing
from sltrace.names.processes import EXEC_RECORDED

TICK_S = 0.05
"""How often the rings are looked at; more often where they fill fast, half as often where they
hardly do. To empty them takes 0.3 to 0.6 ms, at a priority at which whatever is recorded has to
wait for it: that is done once there is something in them, and before all of it is written."""
_QUIET_FILL, _BUSY_FILL = 0.02, 0.25
"""Shares of the fullest ring."""
_MAX_BACKLOG = 32 << 20
"""Bytes of records that wait to be written: from there on the rings, which count losses, fill."""
_MAX_TASK_BACKLOG = 8 << 20
"""The same of task events: 0.9 s to take them for names (measured). Anybody can make as many."""


class Reading:
    """Empties the rings of a recording.

    Args:
        probes: Whose rings of waits and tasks are emptied.
        sources: What has more.
        feed: Gets the records.
        told_programs: Called with the processes that have just begun another program.
    """

    def __init__(
        self,
        probes: Probes,
        sources: Sequence[Source],
        feed: Feed,
        told_programs: Sequence[Callable[[Sequence[int]], None]],
    ) -> None:
        self._probes = probes
        self._sources = sources
        self._feed = feed
        self._told_programs = told_programs

    def run(self, done: Callable[[], bool], writing: Writing) -> None:
        """Empties them, and says how urgent writing is, until `done()` or that has failed."""
        # What sources begin with the privileges that are left begins now.
        self._drain()
        tick, drained = TICK_S, time.monotonic()
        while not done() and not writing.failure:
            time.sleep(tick)
            fill = self._fill()
            now = time.monotonic()
            lasts_s = (now - drained) / fill if fill else math.inf
            due = fill > _QUIET_FILL or now + 2 * TICK_S >= writing.next_segment_s
            # Waits are left with the names they need, unless that would cost waits.
            with_tasks = self._feed.task_backlog < _MAX_TASK_BACKLOG
            if (due and with_tasks) or fill > _BUSY_FILL:
                self._drain(with_tasks=with_tasks)
                drained = now
            elif with_tasks:
                self._drain_tasks()
            tick = TICK_S / 5 if fill > _BUSY_FILL else TICK_S * (1 + (fill < _QUIET_FILL))
            writing.adjust(lasts_s)

    def take(self, *, limit: int | None = None) -> list[NDArray[Any]]:
        """What is in the rings of waits, up to about `limit` bytes of backlog; None for all."""
        taken, size = [], 0
        for ring in self._probes.wait_rings:
            room = limit is None or self._feed.backlog + size < limit
            if room and (records := ring.drain()) is not None:
                taken.append(records)
                size += records.nbytes
        return taken

    def hand_on(self, taken: Sequence[NDArray[Any]], *, with_tasks: bool = True) -> None:
        """Puts what was taken into the feed, behind what it needs.

        A wait is told by what the sources saw before it: that is taken after it, and is there when
        the wait is handed on.

        Args:
            taken: From the rings of waits.
            with_tasks: Empty the ring of tasks as well.
        """
        for source in self._sources:
            source.drain()
        if with_tasks:
            self._drain_tasks()
        for records in taken:
            self._feed.put(records)

    def _fill(self) -> float:
        """How full the fullest ring is."""
        places = (*self._probes.wait_rings, *self._sources)
        return max((place.fill() for place in places), default=0.0)

    def _drain(self, *, with_tasks: bool = True) -> None:
        """Empties the rings into memory, unless _MAX_BACKLOG is waiting there to be written."""
        self.hand_on(self.take(limit=_MAX_BACKLOG), with_tasks=with_tasks)

    def _drain_tasks(self) -> None:
        self.tell_tasks(self._probes.task_ring.drain())

    def tell_tasks(self, events: NDArray[Any] | None) -> None:
        """Hands on what was in the ring of tasks, if anything was."""
        if events is None:
            return
        self._feed.put_tasks(events)
        if self._told_programs:
            pids = events["pid"][events["kind"] == EXEC_RECORDED].tolist()
            for tell in self._told_programs if pids else ():
                tell(pids)
