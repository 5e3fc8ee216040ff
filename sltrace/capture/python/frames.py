"""Stacks of Python code objects as rows of `stacks` and `frames`."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sltrace.capture.columns import same
from sltrace.capture.python.codes import Codes, Memories
from sltrace.capture.seen import Seen
from sltrace.capture.stacks import inner, stack_rows
from sltrace.trace.schema import arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

MAX_STACKS = 1 << 20
MAX_FRAMES = 1 << 20
UNREADABLE = "[frame that could not be read]"

_FIRST_ID = 1 << 63
"""Above every address of user space, which ids of frames must not be taken for."""


class FrameTable:
    """Names the frames of stacks soon after they were seen: their code may not be there for long.

    Args:
        memories: Where code objects of a process can be read.
        tasks: Gets the asyncio task that each stack is of, by its id: the outermost coroutine.
    """

    def __init__(self, memories: Memories, tasks: dict[int, str]) -> None:
        self._codes = Codes(memories, self._forget)
        self._tasks = tasks
        self._seen = Seen(MAX_STACKS)
        self._ids: dict[int, dict[bytes, int]] = {}
        self._frames = 0
        self._unknown: set[int] = set()
        self._coroutines: dict[int, str] = {}
        self._refused = 0

    @property
    def unreadable(self) -> int:
        """Code objects that could not be read."""
        return self._codes.unreadable

    @property
    def refused(self) -> int:
        """Stacks that were too many, or had too many frames."""
        return self._refused + self._seen.refused

    @property
    def replaced(self) -> int:
        """Code objects that made room for others."""
        return self._codes.replaced

    def check_some(self, pids: Collection[int]) -> set[int]:
        """Looks at some code again, twice a second; of which processes some is no more.

        Their stacks are to be handed over again.
        """
        self._codes.begin(time.monotonic_ns())
        return self._codes.check_some(pids)

    def add(self, records: NDArray[Any]) -> tuple[pa.Table, pa.Table]:
        """Rows of stacks and frames for `struct python_stack`s."""
        import pyarrow as pa

        self._codes.begin(time.monotonic_ns())
        fresh = records[self._seen.new(records["id"])]
        stacks: list[pa.Table] = []
        frames: list[dict[str, Any]] = []
        for pid in np.unique(fresh["pid"]).tolist():
            mine = fresh[fresh["pid"] == pid]
            if self._frames < MAX_FRAMES:
                stacks.append(self._of_process(pid, mine, frames))
            else:
                self._refused += len(mine)
        return (
            pa.concat_tables(stacks) if stacks else arrow_schema("stacks").empty_table(),
            pa.Table.from_pylist(frames, schema=arrow_schema("frames")),
        )

    def _of_process(
        self, pid: int, records: NDArray[Any], frames: list[dict[str, Any]]
    ) -> pa.Table:
        depth = np.minimum(records["depth"], records["frames"].shape[1])
        held = inner(records["frames"], depth)
        self._codes.check(pid, np.unique(held["code"]).tolist())
        known = self._ids.setdefault(pid, {})
        # A frame as its bytes: that is the fastest key for what has to be looked up one by one.
        keys: list[bytes] = held.view(f"V{held.itemsize}").tolist()
        ids = [known.get(key) or self._new(pid, key, frames) for key in keys]
        self._note_tasks(records["id"].tolist(), depth.tolist(), ids)
        space = same("python", len(records))
        return stack_rows(records, space, depth, np.array(ids, np.uint64))

    def _new(self, pid: int, key: bytes, frames: list[dict[str, Any]]) -> int:
        """Id of a place in the code that was not met before; it gets its row."""
        address, instr = (int.from_bytes(key[at : at + 8], "little") for at in (0, 8))
        code = self._codes.at(pid, address, key)
        known = self._ids[pid]
        # Frames without code have one row, and are not kept: a process may make up any number.
        key = key if code else b""
        if key in known:
            return known[key]
        number = known[key] = _FIRST_ID + self._frames
        self._frames += 1
        row: dict[str, Any] = {
            "space": "python",
            "pid": pid,
            "address": number,
            "name": UNREADABLE,
            "module": "",
            "build_id": "",
            "language": "python",
        }
        if code is None:
            self._unknown.add(number)
        else:
            row |= {
                "name": code.name,
                "module": code.module,
                "file": code.file,
                "line": code.line(instr),
            }
            if code.coroutine:
                self._coroutines[number] = code.name
        frames.append(row)
        return number

    def _forget(self, pid: int, keys: list[bytes]) -> None:
        """These are places in other code now."""
        for key in keys:
            self._ids[pid].pop(key, None)

    def _note_tasks(self, stacks: list[int], depths: list[int], ids: list[int]) -> None:
        if not self._coroutines:
            return
        end = 0
        for stack, depth in zip(stacks, depths, strict=True):
            begin, end = end, end + depth
            for number in reversed(ids[begin:end]):
                # Where a frame was not read, the outermost coroutine may be that one's.
                if number in self._unknown:
                    break
                if name := self._coroutines.get(number):
                    self._tasks[stack] = name
                    break
