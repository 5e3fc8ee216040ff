"""Stacks of Python code objects as rows of `stacks` and `frames`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from sltrace.target.memory import Memory, Unreadable
from sltrace.target.python.code import Code, read_code
from sltrace.target.python.interpreter import Interpreter
from sltrace.trace.schema import arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

MAX_STACKS = 1 << 20
MAX_FRAMES = 1 << 20
UNREADABLE = "[frame that could not be read]"

_FIRST_ID = 1 << 63
"""Above every address of user space, which ids of frames must not be taken for."""

Memories = Callable[[int], list[tuple[Memory, Interpreter]]]


class FrameTable:
    """Reads each code object once, soon after it was seen: it may not be there for long.

    Args:
        memories: Where code objects of a process can be read.
    """

    def __init__(self, memories: Memories) -> None:
        self._memories = memories
        self._ids: dict[tuple[int, int, int], int] = {}
        self._codes: dict[tuple[int, int], Code | None] = {}
        self._stacks: set[int] = set()
        self.unreadable = 0
        self.refused = 0

    def forget(self, pid: int) -> None:
        """The process has another program now: its addresses mean something else."""
        self._ids = {k: v for k, v in self._ids.items() if k[0] != pid}
        self._codes = {k: v for k, v in self._codes.items() if k[0] != pid}

    def add(self, records: NDArray[Any]) -> tuple[pa.Table, pa.Table]:
        """Rows of stacks and frames for `struct python_stack`s."""
        import pyarrow as pa

        stacks: list[dict[str, Any]] = []
        frames: list[dict[str, Any]] = []
        for record in records:
            stack_id = int(record["id"])
            if stack_id in self._stacks:
                continue
            if len(self._stacks) >= MAX_STACKS or len(self._ids) >= MAX_FRAMES:
                self.refused += 1
                continue
            self._stacks.add(stack_id)
            pid = int(record["pid"])
            inner = record["frames"][: int(record["depth"])]
            pairs = zip(inner["code"].tolist(), inner["instr"].tolist(), strict=True)
            addresses = [self._id(pid, code, instr, frames) for code, instr in pairs]
            stacks.append(
                {"stack_id": stack_id, "space": "python", "pid": pid, "addresses": addresses}
            )
        return (
            pa.Table.from_pylist(stacks, schema=arrow_schema("stacks")),
            pa.Table.from_pylist(frames, schema=arrow_schema("frames")),
        )

    def _id(self, pid: int, code: int, instr: int, frames: list[dict[str, Any]]) -> int:
        """Id of a place in the code; a new one gets its row."""
        key = (pid, code, instr)
        known = self._ids.get(key)
        if known is not None:
            return known
        number = self._ids[key] = _FIRST_ID + len(self._ids)
        found = self._code(pid, code)
        row: dict[str, Any] = {
            "space": "python",
            "pid": pid,
            "address": number,
            "name": UNREADABLE,
            "module": "",
            "build_id": "",
            "language": "python",
        }
        if found:
            row |= {
                "name": found.name,
                "module": PurePosixPath(found.file).name,
                "file": found.file,
                "line": found.line(instr),
            }
        else:
            self.unreadable += 1
        frames.append(row)
        return number

    def _code(self, pid: int, address: int) -> Code | None:
        key = (pid, address)
        if key not in self._codes:
            self._codes[key] = self._read(pid, address)
        return self._codes[key]

    def _read(self, pid: int, address: int) -> Code | None:
        for memory, interpreter in self._memories(pid):
            try:
                return read_code(memory, interpreter.layout, address, interpreter.code_type)
            except Unreadable:
                continue
        return None
