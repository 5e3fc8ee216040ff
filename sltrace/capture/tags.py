"""`struct task_tag` (probes/task_tag.h) as columns: ids, goroutine, runtime stack."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sltrace.capture import maps
from sltrace.capture.columns import Nulls, named, nonzero, numbers
from sltrace.model import IdSource, Reason

if TYPE_CHECKING:
    import pyarrow as pa

MAX_TASKS = 1 << 16
"""Threads with a tag at once: 7 MB."""

_BYTES = 48
_HEX = np.array([f"{i:02x}" for i in range(256)], "S2")
_SOURCES = [s.label for s in IdSource]
_REASONS = [r.label for r in Reason]


class Doubted:
    """Ids from threads' records that turn out to be those of something else the thread did.

    Whoever can tell is asked before rows are made of what was recorded until then.
    """

    def __init__(self) -> None:
        self._ask: Callable[[], Collection[int]] = tuple

    def ask(self, whose: Callable[[], Collection[int]]) -> None:
        """Takes what gives the pids of processes whose threads' records are not to be believed."""
        self._ask = whose

    def take_out(self, pids: NDArray[Any], tags: NDArray[Any]) -> None:
        """Takes the ids of such processes out of `struct task_tag`s, which are of these pids."""
        if doubted := self._ask():
            wrong = (tags["id_source"] == IdSource.THREAD_CONTEXT) & np.isin(pids, [*doubted])
            for name in ("trace_id", "span_id", "id_source"):
                tags[name][wrong] = 0


def create_map() -> int:
    """The map from tid to tag that all objects share; its file descriptor."""
    return maps.create_map("task_tags", maps.HASH, 4, _BYTES, MAX_TASKS)


def clear(fd: int) -> None:
    """Takes out all tags; what records some puts those of its threads in again as they run."""
    for tid in maps.map_keys(fd, 4):
        maps.delete_key(fd, tid)


def hex_ids(ids: NDArray[np.uint8]) -> pa.Array:
    """Ids as lower-case hex digits; shape (n, bytes), of whole words. One of zeros only is null."""
    import pyarrow as pa

    # Of all ids one word after the other: 2 ns an id, and along each id's bytes 30 (measured).
    known = reduce(np.bitwise_or, ids.view(np.uint64).T) != 0
    text = _HEX[ids[known]]
    digits = 2 * ids.shape[1]
    ends = np.zeros(len(ids) + 1, np.int32)
    np.cumsum(known * np.int32(digits), out=ends[1:])
    nulls = Nulls(~known)
    buffers = [nulls.buffer, pa.py_buffer(ends), pa.py_buffer(text)]
    return pa.Array.from_buffers(pa.string(), len(ids), buffers, nulls.count)


def reasons(of_tags: NDArray[Any], blocked: NDArray[np.bool_]) -> pa.Array:
    """Column `reason` of `waits`, from that field of tags; only what is `blocked` has one."""
    reason = np.minimum(of_tags, len(_REASONS) - 1).astype(np.int32)
    return named(reason, _REASONS, Nulls((reason == Reason.NONE) | ~blocked))


def columns(tags: NDArray[Any]) -> dict[str, pa.Array]:
    """Columns of `waits` for an array of tags, but for the reason."""
    held = tags["held_p"]
    none = Nulls(held == 0)
    return identity(tags) | {
        "held_p": numbers(held.astype(np.int32) - 1, none),
        "queued": numbers(np.ascontiguousarray(tags["queued"]), none),
    }


def identity(tags: NDArray[Any]) -> dict[str, pa.Array]:
    """The columns that `samples` has too: what was worked on, and where."""
    source = np.minimum(tags["id_source"], len(_SOURCES) - 1).astype(np.int32)
    return {
        "trace_id": hex_ids(tags["trace_id"]),
        "span_id": hex_ids(tags["span_id"]),
        "id_source": named(source, _SOURCES, Nulls(source == IdSource.NONE)),
        "goid": nonzero(tags["goid"].astype(np.int64)),
        "stack_runtime": nonzero(tags["stack_runtime"].astype(np.int64)),
    }
