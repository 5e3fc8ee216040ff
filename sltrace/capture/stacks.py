"""Native stacks as they come from the probes: each kept once, addresses as lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sltrace.capture.columns import named
from sltrace.capture.seen import Seen
from sltrace.symbols.recorder import SymbolRecorder

if TYPE_CHECKING:
    import pyarrow as pa

    from sltrace.capture.sources import Rows

MAX_STACKS = 1 << 20


class StackTable:
    """Remembers which stacks were written, whoever took them; at most MAX_STACKS.

    Args:
        symbols: Gets the addresses of each.
    """

    def __init__(self, symbols: SymbolRecorder) -> None:
        self._symbols = symbols
        self._seen = Seen(MAX_STACKS)

    @property
    def refused(self) -> int:
        """Stacks that were too many."""
        return self._seen.refused

    def add(self, records: NDArray[Any]) -> Rows:
        """Rows for those of `struct stack_record` that are new, and for what is mapped there."""
        fresh = records[self._seen.new(records["id"])]
        depth = np.minimum(fresh["depth"], fresh["addresses"].shape[1])
        space = named((fresh["pid"] != 0).astype(np.int32), ["kernel", "user"])
        addresses = inner(fresh["addresses"], depth).astype(np.uint64)
        yield "stacks", stack_rows(fresh, space, depth, addresses)
        yield "mappings", self._symbols.observe(fresh)


def inner(frames: NDArray[Any], depth: NDArray[Any]) -> NDArray[Any]:
    """Of each stack's frames the first `depth`, one stack after another."""
    return frames[np.arange(frames.shape[1]) < depth[:, None]]


def stack_rows(
    records: NDArray[Any], space: pa.Array, depth: NDArray[Any], addresses: NDArray[np.uint64]
) -> pa.Table:
    """Rows of `stacks`.

    Args:
        records: `id` and `pid` of each.
        space: The column.
        depth: How many of the addresses each has.
        addresses: Of one stack after another.
    """
    import pyarrow as pa

    offsets = np.concatenate([[0], np.cumsum(depth)]).astype(np.int32)
    return pa.table(
        {
            "stack_id": pa.array(records["id"].astype(np.int64)),
            "space": space,
            "pid": pa.array(records["pid"].astype(np.int32)),
            "addresses": pa.ListArray.from_arrays(pa.array(offsets), pa.array(addresses)),
        }
    )
