"""Code objects of the processes that are recorded, each read once and known for what it is."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from itertools import islice

from sltrace.target.memory import Memory, Unreadable
from sltrace.target.python.code import MAX_TABLE, Code, Signature, code_signature, read_code
from sltrace.target.python.interpreter import Interpreter

LOT_NS = 100_000_000
"""Stacks wait five times as long to be looked at."""

SPOT_CHECKS = 64
"""Code objects of one process that are looked at again each half second, 2 to 3 us each (measured).
"""

MAX_BYTES = 32 << 20
"""Of line tables and names; all are read again once it is reached. All the 10,700 code objects of
Flask with asyncio and OpenTelemetry would take 19 MB."""

MAX_TABLES = 256 << 10
"""Bytes of line tables read in each lot, 80 ms to go through; code beyond it has no lines. The code
of a service, all at once, has a tenth of a kB each."""

MAX_NS = 250_000_000
"""CPU time for looking at code in each lot: twenty thousand objects, more than a process has."""

RENEWED_NS, MAX_RENEWED_NS = 50_000_000, 60_000_000_000
"""How much later each time, and how late at most, stacks are handed over again of a process that
has other code: there is room for so many stacks, of all processes."""

Memories = Callable[[int], list[tuple[Memory, Interpreter]]]


@dataclass
class _Known:
    """A code object.

    Attributes:
        signature: By which it is known again.
        code: It.
        keys: Frames that were named by it.
    """

    signature: Signature
    code: Code
    keys: list[bytes] = field(default_factory=list)


class Codes:
    """Code that is freed makes room for other code at the same address.

    So what is known of an address is checked against the process, but for what was checked LOT_NS
    ago or less.

    Args:
        memories: Where code objects of a process can be read.
        forget: Gets the frames of a process that were named by code that is no more.
    """

    def __init__(self, memories: Memories, forget: Callable[[int, list[bytes]], None]) -> None:
        self._memories = memories
        self._forget = forget
        self._known: dict[int, dict[int, _Known]] = {}
        self._checked: dict[int, set[int]] = {}
        self._since_ns = 0
        self._bytes = 0
        self._tables, self._left_ns = MAX_TABLES, MAX_NS
        self._turn: deque[int] = deque()
        self._changed: set[int] = set()
        self._renewals: dict[int, tuple[int, int]] = {}
        self.unreadable = 0
        """How often none was to be read at an address."""
        self.replaced = 0
        """How often there was another than the one that was known."""

    def begin(self, now_ns: int) -> None:
        """Stacks follow; at what time (CLOCK_MONOTONIC)."""
        if now_ns - self._since_ns > LOT_NS:
            self._checked, self._since_ns = {}, now_ns
            self._tables, self._left_ns = MAX_TABLES, MAX_NS
        if self._bytes > MAX_BYTES:
            for pid, known in self._known.items():
                for one in known.values():
                    self._forget(pid, one.keys)
            self._known, self._checked, self._bytes = {}, {}, 0

    def check(self, pid: int, addresses: Iterable[int]) -> None:
        """Looks at the addresses of a process that were not checked lately."""
        checked = self._checked.setdefault(pid, set())
        fresh = [address for address in addresses if address not in checked]
        if not fresh:
            return
        checked.update(fresh)
        known = self._known.setdefault(pid, {})
        memories = self._memories(pid)
        enough_ns = time.thread_time_ns() + self._left_ns
        for address in fresh:
            # What is known is given up between stacks only: frames are yet to be named by it.
            if self._bytes > 2 * MAX_BYTES or time.thread_time_ns() > enough_ns:
                self.unreadable += address not in known
                continue
            before = known.pop(address, None)
            now = _read(memories, address, before, min(self._tables, MAX_TABLE))
            if before and now is not before:
                self.replaced += now is not None
                self._forget(pid, before.keys)
                self._changed.add(pid)
            if now is None:
                self.unreadable += 1
                continue
            known[address] = now
            if now is not before:
                self._bytes += now.code.size
                self._tables -= len(now.code.table)
        self._left_ns = enough_ns - time.thread_time_ns()

    def check_some(self, pids: Collection[int]) -> set[int]:
        """Looks at what is known of one process after the other.

        A stack is handed over once, so that other code in the same place would not be noticed.

        Args:
            pids: Processes that are there.

        Returns:
            Those of which any check since they were told last found code that is no more, ever
            less often of each.
        """
        if not self._turn:
            self._turn.extend(pid for pid in pids if self._known.get(pid))
        pid = self._turn.popleft() if self._turn else None
        if pid is not None and pid in pids:
            # What was looked at is put at the end.
            oldest = list(islice(self._known.get(pid, ()), SPOT_CHECKS))
            unreadable = self.unreadable
            self.check(pid, oldest)
            # What is merely gone is no frame that could not be read.
            self.unreadable = unreadable
        told: set[int] = set()
        for pid in self._changed:
            times, from_ns = self._renewals.get(pid, (0, 0))
            if self._since_ns >= from_ns:
                after_ns = min((times + 1) * RENEWED_NS, MAX_RENEWED_NS)
                self._renewals[pid] = times + 1, self._since_ns + after_ns
                told.add(pid)
        self._changed -= told
        return told

    def at(self, pid: int, address: int, key: bytes) -> Code | None:
        """The code at an address that was checked; a frame is named by it from now on."""
        known = self._known[pid].get(address)
        if known is None:
            return None
        known.keys.append(key)
        return known.code


def _read(
    memories: list[tuple[Memory, Interpreter]],
    address: int,
    before: _Known | None,
    max_table: int,
) -> _Known | None:
    """What is there now: `before` if that is the same; None if nothing can be read."""
    for memory, interpreter in memories:
        layout = interpreter.layout
        try:
            signature = code_signature(memory, layout, address, interpreter.code_type)
            if before and before.signature == signature:
                return before
            return _Known(signature, read_code(memory, layout, address, max_table))
        except Unreadable:
            continue
    return None
