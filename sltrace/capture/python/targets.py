"""The processes that are looked into: found, followed through fork and exec, told of at the end."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sltrace.capture.python.target import Target
from sltrace.capture.python.threadrecords import LOOK_NS, ThreadRecords
from sltrace.names.proc import with_children
from sltrace.procfs import parent_of
from sltrace.symbols.mappings import Mapping
from sltrace.target.go.errors import NotGoError
from sltrace.target.go.process import identify
from sltrace.target.memory import Memory, Unreadable
from sltrace.target.python import interpreter as python
from sltrace.target.python import otel, servers, tasks
from sltrace.target.python.interpreter import (
    Interpreter,
    NotPython,
    NotReady,
    Refused,
    Unrecognised,
)
from sltrace.target.python.otel import NoOpenTelemetry
from sltrace.target.threadrecord import find_thread_record

FORK, EXEC, EXIT = 1, 2, 3
"""enum python_event_kind in probes/python.h"""
MAX_TARGETS = 1024
MAX_LOOK_NS = 20_000_000
"""CPU time for looking at new programs, each half second, and as much for trace ids of others."""
MAX_NAMED_NS = 100_000_000
"""The same for the first looks at those there at the start: each of 300 workers takes 8 ms."""
_START_NS = 250_000_000
"""The same before the recording begins: nobody empties the rings of the probes until then."""
_MAX_ROUNDS = 8
_PATIENCE_NS = 10_000_000_000
_PASSING_NS = 1_000_000_000
"""From a fork to an exec: who takes longer did something by itself."""
_TURN_NS = 1_000_000_000
"""Within that each is looked at, unless there are too many; most programs of a shell end before."""
_OF_MEMORY = (
    *("python", "settled", "foreign"),
    *("otel", "nodes", "record", "tls", "loops_behind", "greenlets_behind", "tasks"),
)
"""What is true of a child, too, as long as it has its parent's memory."""
_MOST_PATIENT = 60
"""Seconds between two looks for trace ids, at most; one in the beginning, ever more later."""


class Targets:
    """All of them.

    Args:
        add: Tells the probes of a process that they need not know.
        publish: Tells them more of one, as long as it is there.
        layout: `struct python_process`.
        recognised: Called with each process that is found to be Python.
    """

    def __init__(
        self,
        add: Callable[[int, NDArray[Any]], None],
        publish: Callable[[int, NDArray[Any]], None],
        layout: np.dtype[Any],
        recognised: Callable[[int, Interpreter], None],
    ) -> None:
        self._add = add
        self._publish = publish
        self._layout = layout
        self._recognised = recognised
        self.current: dict[int, Target] = {}
        self._ended: deque[Target] = deque(maxlen=MAX_TARGETS)
        self._newly_ended: list[Target] = []
        self.refused = 0
        """Processes that were not followed, as there were too many."""
        self.unknown = 0
        """Processes that it was not the turn of, although they were there for a while."""
        self._foreign: set[str] = set()
        self._recordless: set[str] = set()
        self._records = ThreadRecords()
        self._mapped: list[tuple[int, Mapping]] = []

    def start(self, pids: Iterable[int]) -> None:
        """The processes the user named, and their children; as many as there is room for."""
        new = named = tuple(pids)
        tried: set[int] = set()
        for _ in range(_MAX_ROUNDS):
            for pid in new:
                self._begin(pid)
            tried.update(new)
            # Those that were born before the probes knew of their parents.
            new = tuple(pid for pid in with_children(named) if pid not in tried)
            if not new:
                break
        self.look(_START_NS)

    def _begin(self, pid: int) -> None:
        """Takes in one that is there; what it is shows later."""
        if len(self.current) >= MAX_TARGETS:
            self.refused += 1
            return
        target = Target(pid, named=True, from_ns=time.monotonic_ns())
        try:
            # So that the probes follow its children even if it is no Python itself.
            self._add(pid, target.described(self._layout))
        except OSError as err:
            if err.errno != errno.E2BIG:
                raise
            self.refused += 1
            return
        self.current[pid] = target
        target.settled = _is_command(pid)

    def feed(self, events: NDArray[Any]) -> None:
        """Takes `struct python_event`s in order."""
        for event in events:
            pid, kind, ns = int(event["pid"]), int(event["kind"]), int(event["ns"])
            if kind == FORK:
                self._forked(pid, int(event["parent"]), ns)
            elif kind == EXEC:
                self._end(pid, ns, follow=True)
            else:
                self._end(pid, ns, follow=False)

    def look(self, named_ns: int = MAX_NAMED_NS) -> None:
        """Tries again what was not ready, and looks for trace ids; a few times a second.

        Args:
            named_ns: CPU time for those that were there at the start, and as much for trace ids.
        """
        now = time.monotonic_ns()
        fresh = [t for t in self.current.values() if not t.settled and now >= t.next_look_ns]
        # A shell that starts hundreds of programs a second must not keep the recorder busy: those
        # that lived longest come first, and most of the others end before it is their turn.
        for target in _in_time(fresh, named_ns):
            if target.parent and target.parent.foreign:
                # It was forked before that was known.
                target.settled = target.foreign = True
            else:
                self._examine(target)
        due = [
            target
            for target in self.current.values()
            if target.settled and target.python and now >= target.next_look_ns
        ]
        # Who has waited longest first: of a thousand workers each gets its turn.
        for target in _in_time(sorted(due, key=attrgetter("next_look_ns")), named_ns):
            self._look_for_traces(target, now)

    def doubted(self) -> set[int]:
        """Processes whose ids of ddtrace's thread records are not taken, by now."""
        for target in list(self.current.values()):
            if target.tls and self._records.ask_again(target):
                self._tell(target)
        return self._records.doubted(list(self.current.values()))

    def memories(self, pid: int) -> list[tuple[Memory, Interpreter]]:
        """Where objects of a process can be read: in it, or in who it was forked from."""
        found: list[tuple[Memory, Interpreter]] = []
        # Its number may have been that of others before.
        ended = (t for t in reversed(self._ended) if t.pid == pid)
        target = self.current.get(pid) or next(ended, None)
        while target and len(found) < 8:
            if target.python:
                if target.memory is None and target.until_ns is None:
                    with contextlib.suppress(Unreadable):
                        target.memory = Memory(target.pid)
                if target.memory:
                    found.append((target.memory, target.python))
            target = target.parent
        return found

    def newly_mapped(self) -> list[tuple[int, Mapping]]:
        """Servers in C that were found since the last call, and in which process."""
        found, self._mapped = self._mapped, []
        return found

    def told(self) -> list[Target]:
        """Every process now that is told of."""
        return [t for t in list(self.current.values()) if t.worth_a_row(replaced=False)]

    def newly_ended(self) -> list[Target]:
        """Those that have ended since the last call, and are told of."""
        ended, self._newly_ended = self._newly_ended, []
        return ended

    @property
    def running(self) -> set[int]:
        """Those whose Python can be read now."""
        return {pid for pid, target in list(self.current.items()) if target.python}

    def close(self) -> None:
        """Lets go of every process; the recording has ended."""
        now = time.monotonic_ns()
        for target in self.current.values():
            if target.unknown:
                why = target.why or "the recording ended before it could be looked into"
                self._leave(target, now, why)
            target.close()

    def _leave(self, target: Target, ns: int, why: str) -> None:
        """Gives up one of which nothing is known; of those that the user named it is said why."""
        if target.named:
            target.why = why
        elif ns - target.from_ns >= _TURN_NS:
            self.unknown += 1

    def _forked(self, pid: int, parent: int, ns: int) -> None:
        before, there = self.current.get(parent), self.current.get(pid)
        if there and there.from_ns > ns:
            # It was there when the recording began, and had been born a moment before.
            there.parent = there.parent or before
            return
        if before is None or len(self.current) >= MAX_TARGETS:
            self.refused += 1
            return
        child = Target(pid, named=False, from_ns=ns, parent=before)
        # Memory of an ancestor that has ended is not read, and where each forks the next there
        # would be no end of them.
        while before.parent and before.parent.parent and before.parent.until_ns is not None:
            before.parent = before.parent.parent
        # The kernel copied what it had been told of the parent.
        for name in _OF_MEMORY:
            setattr(child, name, getattr(before, name))
        self._records.forget(pid)
        self.current[pid] = child
        if child.python:
            # The kernel copied what it knew of a parent that was still being looked at.
            self._tell(child)
            known = before.read_ns is not None and before.read_ns <= ns
            child.read_ns = ns if known else time.monotonic_ns()

    def _end(self, pid: int, ns: int, *, follow: bool) -> None:
        target = self.current.get(pid)
        # What has become another program before it was taken in was looked at as that.
        if target is None or (follow and ns < target.from_ns):
            return
        del self.current[pid]
        target.until_ns = ns
        self._records.ended(target)
        target.close()
        if target.unknown and not (target.named and follow):
            self._leave(target, ns, "it ended before it could be looked into")
        forked = target.parent is not None and not target.named
        passing = follow and forked and ns - target.from_ns < _PASSING_NS
        if not passing and target.worth_a_row(replaced=follow):
            self._ended.append(target)
            self._newly_ended.append(target)
        if follow:
            self.current[pid] = after = Target(pid, named=target.named, from_ns=ns)
            # What it was may have been told again in the very moment of its exec.
            self._tell(after)

    def _examine(self, target: Target) -> None:
        try:
            target.memory = target.memory or Memory(target.pid)
            target.python = python.find(target.pid, target.memory, self._foreign)
        except NotPython as err:
            # It may load Python later.
            is_go, too_late = _is_go(target.pid), _put_off(target)
            target.settled = is_go or too_late
            target.foreign = True
            target.named = target.named and not is_go
            target.why = f"no CPython in it: {err}"
            target.close()
            return
        except Refused as err:
            target.settled = not isinstance(err, Unrecognised) or _put_off(target)
            target.refused, target.why = True, str(err)
            target.close()
            return
        except (NotReady, Unreadable) as err:
            target.settled, target.refused = _put_off(target), False
            if target.settled or target.named:
                target.why = f"not looked into: {err}"
            if target.settled:
                target.close()
            return
        target.settled = True
        target.foreign = target.refused = False
        target.why = ""
        target.parent = target.parent or self._forked_from(target)
        self._recognised(target.pid, target.python)
        self._tell(target)
        target.read_ns = time.monotonic_ns()
        target.next_look_ns = 0

    def _forked_from(self, target: Target) -> Target | None:
        """Its parent, if it has that one's memory: a program's places differ from run to run."""
        parent = self.current.get(parent_of(target.pid))
        mine, its = target.python, parent and parent.python
        is_fork = (
            parent
            and mine
            and its
            and (mine.mapped, mine.build_id) == (its.mapped, its.build_id)
            # Of a program that is linked to fixed addresses only that differs.
            and _stack_of(target.pid) == _stack_of(parent.pid)
        )
        return parent if is_fork else None

    def _look_for_traces(self, target: Target, now: int) -> None:
        assert target.python
        target.looks += 1
        # Who has a trace id from one source is asked for the others half as often each time.
        known = target.otel and target.nodes
        patience = 1 << min(target.looks, 8) if known else 1 + target.looks // 10
        target.next_look_ns = now + LOOK_NS * min(patience, _MOST_PATIENT)
        before = target.described(self._layout).tobytes()
        if target.refused:
            return
        try:
            target.memory = target.memory or Memory(target.pid)
        except Unreadable:
            return
        memory, found = target.memory, target.python
        modules = target.modules.imported(memory, found)
        if not target.servers:
            target.servers = servers.mapped_servers(target.pid, modules)
            self._mapped += ((target.pid, mapping) for mapping in target.servers)
        was_taken = target.tls is not None
        try:
            target.tls = target.tls or find_thread_record(target.pid, memory, self._recordless)
            with contextlib.suppress(NoOpenTelemetry):
                target.record = target.record or otel.find_record(memory, found, modules)
            target.otel = target.otel or otel.find_otel(memory, found, modules)
            target.trouble = ""
        except NoOpenTelemetry:
            pass
        except Unreadable as err:
            target.trouble = f"OpenTelemetry's context not recognised: {err}"
        if not target.nodes and (target.otel or target.record):
            with contextlib.suppress(Unreadable):
                target.nodes = otel.find_nodes(memory, found)
        if not target.tasks and tasks.MODULE in modules:
            with contextlib.suppress(Unreadable):
                target.tasks = tasks.find_tasks(memory, found, modules[tasks.MODULE])
        if target.tls:
            self._records.look(target, modules, was_taken=was_taken)
        if before != target.described(self._layout).tobytes():
            self._tell(target)

    def _tell(self, target: Target) -> None:
        self._publish(target.pid, target.described(self._layout))


def _in_time(targets: Iterable[Target], named_ns: int) -> Iterator[Target]:
    """Those that it is the turn of, as long as there is CPU time."""
    began = time.thread_time_ns()
    for target in targets:
        is_first = target.named and not target.looks
        if time.thread_time_ns() - began <= (named_ns if is_first else MAX_LOOK_NS):
            yield target


def _is_command(pid: int) -> bool:
    """Whether it is the recorder's own fork, which is to execute the command to record."""
    try:
        stat = Path("/proc", str(pid), "stat").read_text(errors="replace")
    except OSError:
        return False
    return int(stat.rpartition(")")[2].split()[1]) == os.getpid()


def _stack_of(pid: int) -> int:
    """Where the first thread's stack begins, by chance in each run of any program; 0 if unknown."""
    try:
        stat = Path("/proc", str(pid), "stat").read_text(errors="replace")
        return int(stat.rpartition(")")[2].split()[25])
    except (OSError, ValueError, IndexError):
        return 0


def _put_off(target: Target) -> bool:
    """Sets when it is looked at again; whether it was asked for long enough."""
    waited = time.monotonic_ns() - target.from_ns
    # A program that may embed Python and never starts it is asked five times, not twenty.
    target.next_look_ns = target.from_ns + 2 * waited
    return waited > _PATIENCE_NS


def _is_go(pid: int) -> bool:
    """Whether another source tells of it."""
    try:
        identify(pid)
    except NotGoError:
        return False
    return True
