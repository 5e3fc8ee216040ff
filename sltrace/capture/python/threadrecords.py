"""Whether ddtrace's record of a thread is of the asyncio task, and the greenlet, that it runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping

from sltrace.capture.python.target import Target
from sltrace.target.memory import Unreadable
from sltrace.target.python import datadog

LOOK_NS = 1_000_000_000
"""How often what may change soon is looked at."""
_LATE_NS = 10_000_000_000
"""Until then the last rows of what has ended are made: half a second, or when those behind are."""


class ThreadRecords:
    """What is known of those of all processes, also of such as have ended lately."""

    def __init__(self) -> None:
        self._ended_ns: dict[int, int] = {}
        self._fell_behind_ns: dict[int, int] = {}

    def look(self, target: Target, modules: Mapping[str, int], *, was_taken: bool) -> None:
        """Finds out whether a process's records follow tasks and greenlets.

        Args:
            target: The process.
            modules: What is imported.
            was_taken: The probes take those records already.
        """
        self._look_at_loops(target, modules, was_taken=was_taken)
        self._look_at_greenlets(target, modules)

    def ask_again(self, target: Target) -> bool:
        """Whether that has changed: asyncio and gevent may be imported late."""
        if not (target.memory and target.python) or target.greenlets_behind:
            return False
        modules = target.modules.imported(target.memory, target.python)
        before = target.loops_behind, target.greenlets_behind
        # What asyncio says takes 0.6 ms.
        if modules.keys() != target.asked_with:
            self._look_at_loops(target, modules, was_taken=True)
        self._look_at_greenlets(target, modules)
        return before != (target.loops_behind, target.greenlets_behind)

    def doubted(self, there: Iterable[Target]) -> set[int]:
        """Processes whose records are, by now, of another greenlet or task.

        What was recorded since the last call is of that process, too. Of a thread without a loop
        that costs ids that were right, for a while.

        Args:
            there: Processes that have not ended.
        """
        # A number is another process's sooner or later.
        late = time.monotonic_ns() - _LATE_NS
        for known in (self._ended_ns, self._fell_behind_ns):
            for pid in [pid for pid, ns in known.items() if ns <= late]:
                del known[pid]
        behind = {target.pid for target in there if target.greenlets_behind}
        return behind | self._ended_ns.keys() | self._fell_behind_ns.keys()

    def ended(self, target: Target) -> None:
        """Notes that a process has ended, or become another program."""
        if target.greenlets_behind and target.until_ns is not None:
            self._ended_ns[target.pid] = target.until_ns

    def forget(self, pid: int) -> None:
        """The number is another process's."""
        self._ended_ns.pop(pid, None)
        self._fell_behind_ns.pop(pid, None)

    def _look_at_loops(
        self, target: Target, modules: Mapping[str, int], *, was_taken: bool
    ) -> None:
        assert target.python
        assert target.memory
        with contextlib.suppress(Unreadable):
            behind = datadog.loops_are_behind(target.memory, target.python, modules)
            if behind and not target.loops_behind and was_taken:
                now = self._fell_behind_ns[target.pid] = time.monotonic_ns()
                # ddtrace may be about to patch what was imported just now.
                target.next_look_ns = min(target.next_look_ns, now + LOOK_NS)
            target.loops_behind, target.asked_with = behind, frozenset(modules)

    def _look_at_greenlets(self, target: Target, modules: Mapping[str, int]) -> None:
        assert target.python
        assert target.memory
        with contextlib.suppress(Unreadable):
            target.greenlets_behind = datadog.greenlets_are_behind(
                target.memory, target.python, modules
            )
        if not target.greenlets_behind:
            self._ended_ns.pop(target.pid, None)
        elif not target.trouble:
            target.trouble = "no ids of ddtrace: its thread record does not follow greenlets"
