"""Stacks of Python code objects as rows of `stacks` and `frames`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sltrace.target.memory import Memory, Unreadable
from sltrace.target.python.code import Code, Signature, code_signature, read_code
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
    """Reads code objects soon after they were seen: they may not be there for long.

    Code that is freed makes room for other code at the same address, so what is known of an
    address is checked against the process once for each lot of stacks.

    Args:
        memories: Where code objects of a process can be read.
        tasks: Gets the asyncio task that each stack is of, by its id: the outermost coroutine.
    """

    def __init__(self, memories: Memories, tasks: dict[int, str]) -> None:
        self._memories = memories
        self._tasks = tasks
        self._ids: dict[tuple[int, int, Code | None], int] = {}
        self._codes: dict[tuple[int, int], tuple[Signature, Code]] = {}
        self._lot: dict[int, Code | None] = {}
        self._stacks: set[int] = set()
        self.unreadable = 0
        self.refused = 0

    def add(self, records: NDArray[Any]) -> tuple[pa.Table, pa.Table]:
        """Rows of stacks and frames for `struct python_stack`s."""
        import pyarrow as pa

        stacks: list[dict[str, Any]] = []
        frames: list[dict[str, Any]] = []
        # By process, so that one lot has the code of one.
        for record in records[np.argsort(records["pid"], kind="stable")]:
            stack_id, pid = int(record["id"]), int(record["pid"])
            if stack_id in self._stacks:
                continue
            if len(self._stacks) >= MAX_STACKS or len(self._ids) >= MAX_FRAMES:
                self.refused += 1
                continue
            if not stacks or stacks[-1]["pid"] != pid:
                self._lot = {}
            self._stacks.add(stack_id)
            inner = record["frames"][: int(record["depth"])]
            pairs = zip(inner["code"].tolist(), inner["instr"].tolist(), strict=True)
            addresses = [self._id(pid, code, instr, frames) for code, instr in pairs]
            codes = [self._lot[code] for code in reversed(inner["code"].tolist())]
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

    def _id(self, pid: int, address: int, instr: int, frames: list[dict[str, Any]]) -> int:
        """Id of a place in the code; a new one gets its row."""
        if address not in self._lot:
            self._lot[address] = self._code(pid, address)
        code = self._lot[address]
        key = (pid, instr if code else 0, code)
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
                "module": PurePosixPath(code.file).name,
                "file": code.file,
                "line": code.line(instr),
            }
        frames.append(row)
        return number

    def _code(self, pid: int, address: int) -> Code | None:
        for memory, interpreter in self._memories(pid):
            try:
                signature = code_signature(
                    memory, interpreter.layout, address, interpreter.code_type
                )
                known = self._codes.get((pid, address))
                if known is None or known[0] != signature:
                    known = signature, read_code(memory, interpreter.layout, address)
                    self._codes[pid, address] = known
            except Unreadable:
                continue
            return known[1]
        self.unreadable += 1
        return None
