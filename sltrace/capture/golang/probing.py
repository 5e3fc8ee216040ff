"""Puts probes into Go processes and takes them out, on whichever thread asks."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from sltrace.capture.golang.budget import Budget
from sltrace.capture.golang.probes import GoProbes
from sltrace.errors import CannotRecord
from sltrace.target.go.process import GoProcess

_ENDED = "it ended while it was being attached"
_ENDING = "the recording was ending"


class Probing:
    """The probes of a recording, and which processes they are in.

    Args:
        level: How much to record.
        share: Of the CPU time of each process, what its probes may cost; None for no limit.
    """

    def __init__(self, level: int, share: float | None) -> None:
        self._level = level
        self._switch_stacks = False
        self.probes: GoProbes | None = None
        self._refusal = ""
        self._budget = Budget(share, self) if level and share is not None else None
        # By the processes' own numbers: what one becomes by exec has the same pid.
        self._reached: dict[int, tuple[int, str]] = {}
        self._from_ns: dict[int, int] = {}
        self._held: dict[int, tuple[GoProcess, int]] = {}
        self._begun = False
        # Of changing what is attached.
        self._lock = threading.Lock()
        self._ended_ns = 0

    def load(self, tags_fd: int, *, switch_stacks: bool, **options: Any) -> None:
        """Loads the probes; where nothing can be probed, memory can still be read."""
        self._switch_stacks = switch_stacks
        try:
            self.probes = GoProbes(tags_fd, level=self._level, **options)
        except CannotRecord as err:
            self._refusal = str(err)

    def attach(self) -> None:
        """Attaches what is not within a process before there is one: other sources' comes after.

        Where that is refused, the first process is told why.
        """
        with self._lock, contextlib.suppress(CannotRecord):
            if self.probes:
                self.probes.attach()

    def take(self, process: GoProcess) -> None:
        """Attaches to a process as much as can be."""
        begin = time.thread_time_ns()
        number = process.number
        self._reached[number] = self._take(process)
        self._from_ns[number] = time.monotonic_ns()
        if self._budget and self._reached[number][0]:
            spent = time.thread_time_ns() - begin
            if self._begun:
                self._budget.keep(number, process.pid, spent, on=True)
            else:
                self._held[number] = process, spent

    def _take(self, process: GoProcess) -> tuple[int, str]:
        with self._lock:
            if self.probes is None:
                return 0, self._refusal
            if self._ended_ns:
                return 0, _ENDING
            try:
                # First what forgets a process that ends, or becomes another, while it is added.
                self.probes.attach()
                reached = self.probes.add(process, self._level, switch_stacks=self._switch_stacks)
            except OSError as err:
                return 0, f"the probes have no room for it: {err.strerror}"
            except CannotRecord as err:
                return 0, str(err) if process.is_alive() else _ENDED
            except OverflowError as err:
                return 0, f"its structures are larger than those known: {err}"
            return reached

    def end(self, process: GoProcess) -> None:
        """Takes them out of one that has ended, or become another program."""
        if self._budget:
            self._budget.end(process.number)
        with self._lock:
            if self.probes and not self._ended_ns:
                self.probes.end(process)

    def forget(self, process: GoProcess) -> None:
        """Of one that has ended, and of which all was told."""
        with self._lock:
            if self.probes:
                self.probes.forget(process.number)
        if self._budget:
            self._budget.forget(process.number)
        self._reached.pop(process.number, None)
        self._from_ns.pop(process.number, None)

    def reached(self, process: GoProcess) -> tuple[int, str]:
        """The level one is at, and why it is not the one asked for."""
        return self._reached.get(process.number, (0, ""))

    def from_ns(self, process: GoProcess) -> int:
        """Since when (CLOCK_MONOTONIC)."""
        return self._from_ns[process.number]

    def hold(self) -> None:
        """Takes out what is on a budget until `begin`: nobody reads what it tells before."""
        if self._held:
            used, _ = self.change(off=list(self._held), on=[])
            for number, (process, spent) in self._held.items():
                self._held[number] = process, spent + used // len(self._held)
            if self.probes:
                self.probes.forget_looks()

    def begin(self) -> None:
        """Keeps them within their budget from now on, with the privileges that are left."""
        self._begun = True
        if self._budget:
            for number, (process, spent) in list(self._held.items()):
                self._budget.keep(number, process.pid, spent, on=False)
            self._budget.start()

    def cost_of(self, number: int) -> int:
        """What breakpoints have cost a process so far, ns of its CPU time."""
        return self.probes.cost_of(number) if self.probes else 0

    def change(self, off: Sequence[int], on: Sequence[int]) -> tuple[int, list[int]]:
        """Takes the probes out of some processes and puts them in others again.

        Returns:
            CPU time that took, ns; and those in which they could not be put.
        """
        used, failed = 0, []
        with self._lock:
            if self.probes is None or self._ended_ns:
                return 0, [*off, *on]
            if off:
                used += self.probes.pause(off)
            for number in on:
                try:
                    used += self.probes.resume(number)
                    if self._held.pop(number, None) is not None:
                        self._from_ns[number] = time.monotonic_ns()
                except CannotRecord:
                    failed.append(number)
        return used, failed

    def edges(self) -> list[tuple[int, int, bool]]:
        """When the probes of which pid came to be on or off, since the last call."""
        edges: deque[tuple[int, int, bool]] = self.probes.edges if self.probes else deque()
        return [edges.popleft() for _ in range(len(edges))]

    def describe(self, process: GoProcess, until_ns: int) -> dict[str, Any]:
        """Of a process, for meta.json: level, share of its time looked at, budget."""
        number = process.number
        level, why = self.reached(process)
        found: dict[str, Any] = {"level": level, "why": why}
        until_ns = min(until_ns, self._ended_ns or until_ns)
        if level and self.probes:
            length = max(until_ns - self._from_ns.get(number, until_ns), 1)
            looked = min(self.probes.looked_ns(number, until_ns) / length, 1)
            found["looked"] = round(looked, 4)
        return found | (self._budget.figures(number) if self._budget else {})

    @property
    def budget(self) -> float | None:
        """Share of the CPU time of each process that its probes may take; None for no limit."""
        return self._budget.share if self._budget else None

    def detach(self) -> None:
        """Takes every probe out of the processes; what they told can still be read."""
        with self._lock:
            self._ended_ns = time.monotonic_ns()
            if self.probes is not None:
                self.probes.detach()

    def close(self) -> None:
        """Detaches everything, and unloads."""
        if self._budget:
            self._budget.stop()
        if self.probes is not None:
            self.probes.close()
