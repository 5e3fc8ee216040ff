"""Stacks of Python code objects as rows of `stacks` and `frames`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from numpy.typing import NDArray

from sltrace.target.memory import Memory, Unreadable
from sltrace.target.python.code import Code, Signature, code_signature, read_code
from sltrace.target.python.interpreter import Interpreter
from sltrace.trace.schema import arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

LOT_NS = 100_000_000
"""Stacks wait five times as long to be looked at."""
MAX_STACKS = 1 << 20
MAX_FRAMES = 1 << 20
UNREADABLE = "[frame that could not be read]"

_FIRST_ID = 1 << 63
"""Above every address of user space, which ids of frames must not be taken for."""

Memories = Callable[[int], list[tuple[Memory, Interpreter]]]


class _Known(NamedTuple):
    """A code object and its number: code hashes slowly."""

    number: int
    code: Code | None


_UNREADABLE = _Known(0, None)


class FrameTable:
    """Reads code objects soon after they were seen: they may not be there for long.

    Code that is freed makes room for other code at the same address, so what is known of an
    address is checked against the process, but for what was checked LOT_NS ago or less.

    Args:
        memories: Where code objects of a process can be read.
        tasks: Gets the asyncio task that each stack is of, by its id: the outermost coroutine.
    """

    def __init__(self, memories: Memories, tasks: dict[int, str]) -> None:
        self._memories = memories
        self._tasks = tasks
        self._ids: dict[tuple[int, int, int], int] = {}
        self._codes: dict[tuple[int, int], tuple[Signature, _Known]] = {}
        self._lots: dict[int, dict[int, _Known]] = {}
        self._lots_ns = 0
        self._read = 0
        self._stacks: set[int] = set()
        self.unreadable = 0
        self.refused = 0

    def add(self, records: NDArray[Any]) -> tuple[pa.Table, pa.Table]:
        """Rows of stacks and frames for `struct python_stack`s."""
        import pyarrow as pa

        stacks: list[dict[str, Any]] = []
        frames: list[dict[str, Any]] = []
        if (now := time.monotonic_ns()) - self._lots_ns > LOT_NS:
            self._lots, self._lots_ns = {}, now
        fresh = [i not in self._stacks for i in records["id"].tolist()]
        for record in records[fresh]:
            stack_id, pid = int(record["id"]), int(record["pid"])
            if stack_id in self._stacks:
                continue
            if len(self._stacks) >= MAX_STACKS or len(self._ids) >= MAX_FRAMES:
                self.refused += 1
                continue
            self._stacks.add(stack_id)
            lot = self._lots.setdefault(pid, {})
            inner = record["frames"][: int(record["depth"])]
            held = inner["code"].tolist()
            for address in held:
                if address not in lot:
                    lot[address] = self._code(pid, address)
            pairs = zip(held, inner["instr"].tolist(), strict=True)
            addresses = [self._id(pid, lot[code], instr, frames) for code, instr in pairs]
            codes = [lot[code].code for code in reversed(held)]
            task = next((code for code in codes if code and code.coroutine), None)
            # Where the outermost frame was not read, the outermost coroutine may not be there.
            if task and codes[0]:
                self._tasks[stack_id] = task.name
            stacks.append(
                {"stack_id": stack_id, "space": "python", "pid": pid, "addresses": addresses}
            )
        return (
            pa.Table.from_pylist(stacks, schema=arrow_schema("stacks")),
            pa.Table.from_pylist(frames, schema=arrow_schema("frames")),
        )

    def _id(self, pid: int, held: _Known, instr: int, frames: list[dict[str, Any]]) -> int:
        """Id of a place in the code; a new one gets its row."""
        which, code = held
        key = (pid, instr if code else 0, which)
        known = self._ids.get(key)
        if known is not None:
            return known
        number = self._ids[key] = _FIRST_ID + len(self._ids)
        row: dict[str, Any] = {
            "space": "python",
            "pid": pid,
            "address": number,
            "name": UNREADABLE,
            "module": "",
            "build_id": "",
            "language": "python",
        }
        if code:
            row |= {
                "name": code.name,
                "module": code.module,
                "file": code.file,
                "line": code.line(instr),
            }
        frames.append(row)
        return number

    def _code(self, pid: int, address: int) -> _Known:
        for memory, interpreter in self._memories(pid):
            layout = interpreter.layout
            try:
                signature = code_signature(memory, layout, address, interpreter.code_type)
                before = self._codes.get((pid, address))
                if before and before[0] == signature:
                    return before[1]
                code = read_code(memory, layout, address)
            except Unreadable:
                continue
            self._read += 1
            known = _Known(self._read, code)
            self._codes[pid, address] = signature, known
            return known
        self.unreadable += 1
        return _UNREADABLE
