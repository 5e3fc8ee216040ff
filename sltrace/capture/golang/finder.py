"""Which processes of a recording are Go's: those that are there, and those that begin meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sltrace.capture.settings import Filters
from sltrace.names.cgroups import processes_below
from sltrace.names.processes import all_processes, with_children
from sltrace.target.go.errors import NotGoError, RefusedError
from sltrace.target.go.process import GoProcess, Identity, identify, look_into, started_at

MAX_PROCESSES = 32
"""Go processes looked into in one recording, unless more are named."""
FIRST_LOOK_S = 0.5
"""How long the recording's begin waits for processes that nobody named; the others follow."""
_MAX_PIDS = 1 << 15
_MAX_FILES = 1 << 16
_YOUNG_S = 3.0
"""A runtime that is just beginning is not as it will be: so long it is looked at again."""


@dataclass
class Found:
    """Attributes: those that can be looked into, and those that cannot, with the reason."""

    processes: list[GoProcess] = field(default_factory=list)
    refused: list[tuple[Identity, str]] = field(default_factory=list)


class Finder:
    """Looks for Go processes, each program once.

    Args:
        filters: Which tasks are recorded; no more than these are looked at.
        named: Processes that the user named, or the command: with all that they start.
    """

    def __init__(self, filters: Filters, named: Sequence[int]) -> None:
        self._filters = filters
        self._named = tuple(named)
        self._settled: dict[int, tuple[int, int]] = {}
        self._not_go: set[tuple[int, int]] = set()
        self._found = 0
        self.left_out = 0

    def first_look(self) -> Found:
        """Those that are there. Of those the user named a refusal is final."""
        patience = float("inf") if self._named else FIRST_LOOK_S
        return self._look(time.monotonic() + patience, last=bool(self._named))

    def look(self) -> Found:
        """Those that are new since; none twice."""
        return self._look(time.monotonic() + FIRST_LOOK_S, last=False)

    def _pids(self) -> Sequence[int]:
        if self._named:
            return with_children(self._named)
        if self._filters.cgroups:
            return processes_below(self._filters.cgroups)
        return all_processes()

    def _look(self, deadline: float, *, last: bool) -> Found:
        found = Found()
        pids = self._pids()[:_MAX_PIDS]
        there = set(pids)
        self._settled = {pid: file for pid, file in self._settled.items() if pid in there}
        for pid in pids:
            if time.monotonic() > deadline:
                break
            file = _file_of(pid)
            if file is None or file in self._not_go or self._settled.get(pid) == file:
                continue
            try:
                identity = identify(pid)
            except NotGoError:
                if len(self._not_go) < _MAX_FILES:
                    self._not_go.add(file)
                continue
            if self._found >= max(MAX_PROCESSES, len(self._named)):
                self.left_out += 1
                self._settled[pid] = file
                continue
            try:
                found.processes.append(look_into(identity))
            except RefusedError as err:
                if not last and _age_s(pid) < _YOUNG_S:
                    continue
                found.refused.append((identity, str(err)))
            self._found += 1
            self._settled[pid] = file
        return found


def _file_of(pid: int) -> tuple[int, int] | None:
    """Which file a process runs; None for the kernel's threads and those that are gone."""
    try:
        status = Path(f"/proc/{pid}/exe").stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _age_s(pid: int) -> float:
    """How long ago a process was started, or forked; nothing is known of one that is gone."""
    try:
        ticks = started_at(pid)
    except (OSError, ValueError, IndexError):
        return float("inf")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
