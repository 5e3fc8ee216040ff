"""Which processes of a recording are Go's: those that are there, and those that begin meanwhile."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sltrace.capture.settings import Filters
from sltrace.model import COMM_BYTES
from sltrace.names.hierarchy import processes_below
from sltrace.names.proc import all_processes, thread_names, with_children
from sltrace.target.go.errors import NotGoError, RefusedError, UnknownError
from sltrace.target.go.libraries import Libraries
from sltrace.target.go.packed import UnpackingError
from sltrace.target.go.process import (
    GoProcess,
    Identity,
    file_of,
    identify,
    look_into,
    started_at,
)

MAX_PROCESSES = 32
"""Go processes looked into at a time, unless more are named."""
MAX_IN_ALL = 2048
"""Go processes looked into in one recording: each is 10 kB until its end, and in meta.json. So
many libraries beside: where all programs load one, Go's own are to have room still."""
LOOK_S = 0.5
"""How long one look may take; what is left over comes with the next."""
_MAX_PENDING = 1 << 15
_MAX_FILES = 1 << 16
_YOUNG_S = 3.0
"""A runtime that is just beginning is not as it will be: so long it is looked at again."""
_LOADED_S = 1.0
"""What a program loads, it has by then."""
_LIBRARY = "it is a library within a program that is not Go's: only programs are looked into"
_SHORT = "it ended before it could be looked into"
_LATE = "the recording ended before it could be looked into"


@dataclass
class Found:
    """Attributes: those that can be looked into, and those that cannot, with the reason."""

    processes: list[GoProcess] = field(default_factory=list)
    refused: list[tuple[Identity, str]] = field(default_factory=list)


@dataclass
class _Pending:
    """A process to look at.

    Attributes:
        young_until: Monotonic, s.
        refusal: What was wrong so far.
        file: Which file it ran then.
        is_other: It is not Go's, and may have loaded what is.
        before: What it had been refused as, unless the kernel told late that it is this.
    """

    young_until: float
    refusal: tuple[Identity, str] | None = None
    file: tuple[int, ...] | None = None
    is_other: bool = False
    before: _Pending | None = None


class Finder:
    """Looks for Go processes, each program once.

    Args:
        filters: Which tasks are recorded; no more than these are looked at.
        named: Processes that the user named, or the command: with all that they have started.
        starting: The command, where it is a Go program.
    """

    def __init__(
        self, filters: Filters, named: Sequence[int], starting: Identity | None = None
    ) -> None:
        self._limit = max(MAX_PROCESSES, len(named))
        # Where nobody has named any, those of a whole machine would be too many to go through.
        self._libraries = Libraries() if named or filters.cgroups or filters.comms else None
        self._starting = starting
        self._not_go: set[tuple[int, ...]] = set()
        self._found: dict[int, int] = {}
        self._in_all = self._libraries_in_all = 0
        self._lock = threading.Lock()
        self.left_out = 0
        """Go processes that were not looked into, or told of, as there were too many."""
        self.not_looked_at = 0
        """Processes of which it is not known whether they are Go's, for the same reason."""
        now = time.monotonic()
        self._pending = {
            pid: _Pending(now + _YOUNG_S - _age_s(pid)) for pid in _recorded(filters, named)
        }

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to look at."""
        return not self._pending

    def began(self, pids: Sequence[int]) -> None:
        """Recorded processes that have become another program; on any thread."""
        young = time.monotonic() + _YOUNG_S
        with self._lock:
            for pid in pids:
                there = self._pending.get(pid)
                if len(self._pending) < _MAX_PENDING or there:
                    before = there and (there if there.refusal else there.before)
                    self._pending[pid] = _Pending(young, before=before)
                else:
                    self.not_looked_at += 1

    def unsettled(self) -> list[tuple[Identity, str]]:
        """Those that are too young to be given up, and what was wrong so far."""
        with self._lock:
            every = [o for one in self._pending.values() for o in (one.before, one) if o]
            return [one.refusal for one in every if one.refusal]

    def left(self) -> list[tuple[Identity, str]]:
        """Go programs that nobody had looked at when the recording ended."""
        found: list[tuple[Identity, str]] = []
        deadline = time.monotonic() + LOOK_S
        for pid, one in self._pending.items():
            file = _file_of(pid)
            if one.refusal or one.is_other or file is None or file in self._not_go:
                continue
            if time.monotonic() > deadline:
                self.not_looked_at += 1
                continue
            with contextlib.suppress(NotGoError):
                found.append((identify(pid), _LATE))
        if self._starting and all(one.pid != self._starting.pid for one, _ in found):
            found.append((self._starting, _SHORT))
        return found

    def look(self) -> Found:
        """What was found since."""
        found = Found()
        deadline = time.monotonic() + LOOK_S
        with self._lock:
            pending = list(self._pending.items())
        for pid, one in pending:
            if time.monotonic() > deadline:
                break
            if self._look_at(pid, one, found):
                with self._lock:
                    # Unless it has become yet another program meanwhile.
                    if self._pending.get(pid) is one:
                        del self._pending[pid]
        return found

    def _look_at(self, pid: int, one: _Pending, found: Found) -> bool:
        """Whether that settled what it is."""
        file = _file_of(pid)
        before, one.before = one.before, None
        if before and before.refusal and before.file != file:
            found.refused.append(before.refusal)
        if file is None:
            if one.refusal:
                found.refused.append(one.refusal)
            return True
        if file in self._not_go:
            return self._look_for_libraries(pid, one, found)
        if one.is_other:
            # It has become another program since, which the kernel tells by itself.
            return True
        try:
            identity = identify(pid)
        except (UnpackingError, UnknownError):
            return time.monotonic() >= one.young_until
        except NotGoError:
            # By exec it may have become another in between.
            if len(self._not_go) < _MAX_FILES and _file_of(pid) == file:
                self._not_go.add(file)
            return self._look_for_libraries(pid, one, found)
        if self._starting and self._starting.pid == pid:
            self._starting = None
        # It may have been found before it became another program, by exec.
        self._found = {p: at for p, at in self._found.items() if p != pid and _is_there(p, at)}
        # One that is looked at again was counted the first time.
        again = one.refusal is not None
        if len(self._found) >= self._limit or (self._in_all >= MAX_IN_ALL and not again):
            self.left_out += 1
            return True
        self._in_all += not again
        try:
            found.processes.append(look_into(identity))
        except RefusedError as err:
            if _file_of(pid) is None:
                found.refused.append((identity, _SHORT))
                return True
            if time.monotonic() < one.young_until:
                one.refusal, one.file = (identity, str(err)), file
                return False
            found.refused.append((identity, str(err)))
        except Exception as err:
            # What it reads may be anything; one process must not end the looking at others.
            found.refused.append((identity, f"not understood: {type(err).__name__}: {err}"))
        with contextlib.suppress(OSError, ValueError, IndexError):
            self._found[pid] = started_at(pid)
        return True

    def _look_for_libraries(self, pid: int, one: _Pending, found: Found) -> bool:
        """Of a program that is not Go's; whether that settled it."""
        if self._libraries is None:
            return True
        loaded = time.monotonic() >= one.young_until - _YOUNG_S + _LOADED_S
        # Next time: what is Go's goes first.
        if not one.is_other or not loaded:
            one.is_other = True
            return False
        for library in self._libraries.of(pid):
            if self._libraries_in_all >= MAX_IN_ALL:
                self.left_out += 1
                break
            self._libraries_in_all += 1
            identity = Identity(pid, library.path, library.info.version, library.build_id)
            found.refused.append((identity, _LIBRARY))
        return True


def _recorded(filters: Filters, named: Sequence[int]) -> Sequence[int]:
    """Processes that pass the filters now."""
    if named:
        pids: Sequence[int] = with_children(named)
    elif filters.cgroups:
        pids = processes_below(filters.cgroups)
    else:
        pids = all_processes()
    if filters.comms:
        wanted = {os.fsencode(comm)[:COMM_BYTES] for comm in filters.comms}
        pids = [pid for pid in pids if not wanted.isdisjoint(thread_names(pid))]
    return pids[:_MAX_PENDING]


def _file_of(pid: int) -> tuple[int, ...] | None:
    """Which file a process runs; None for the kernel's threads and those that are gone."""
    try:
        return file_of(Path(f"/proc/{pid}/exe"))
    except OSError:
        return None


def _is_there(pid: int, started: int) -> bool:
    try:
        return started_at(pid) == started
    except (OSError, ValueError, IndexError):
        return False


def _age_s(pid: int) -> float:
    """How long ago a process was started, or forked; nothing is known of one that is gone."""
    try:
        ticks = started_at(pid)
    except (OSError, ValueError, IndexError):
        return float("inf")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
