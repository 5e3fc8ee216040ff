"""Native stacks as they come from the probes: each kept once, addresses as lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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
        self._known: NDArray[np.uint64] = np.empty(0, np.uint64)
        self.refused = 0

    def add(self, records: NDArray[Any]) -> Rows:
        """Rows for those of `struct stack_record` that are new, and for what is mapped there."""
        fresh = self._new(records)
        yield "stacks", _rows(fresh)
        yield "mappings", self._symbols.observe(fresh)

    def _new(self, records: NDArray[Any]) -> NDArray[Any]:
        ids, first = np.unique(records["id"], return_index=True)
        fresh = ~np.isin(ids, self._known, assume_unique=True)
        room = MAX_STACKS - len(self._known)
        chosen = np.flatnonzero(fresh)[: max(room, 0)]
        self.refused += int(fresh.sum()) - len(chosen)
        self._known = np.union1d(self._known, ids[chosen])
        return records[first[chosen]]


def _rows(records: NDArray[Any]) -> pa.Table:
    import pyarrow as pa

    depth = np.minimum(records["depth"], records["addresses"].shape[1])
    inside = np.arange(records["addresses"].shape[1]) < depth[:, None]
    offsets = np.concatenate([[0], np.cumsum(depth)]).astype(np.int32)
    addresses = pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(records["addresses"][inside].astype(np.uint64))
    )
    space = np.where(records["pid"] == 0, 0, 1).astype(np.int32)
    return pa.table(
        {
            "stack_id": pa.array(records["id"].astype(np.int64)),
            "space": pa.DictionaryArray.from_arrays(
                pa.array(space), pa.array(["kernel", "user"], pa.string())
            ),
            "pid": pa.array(records["pid"].astype(np.int32)),
            "addresses": addresses,
        }
    )
