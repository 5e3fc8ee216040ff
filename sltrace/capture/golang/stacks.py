"""Stacks of goroutines, from probes and from memory: each is written once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sltrace.capture.columns import same
from sltrace.capture.seen import Seen
from sltrace.capture.sources import Rows
from sltrace.capture.stacks import inner, stack_rows
from sltrace.target.go.process import GoProcess

MAX_STACKS = 1 << 18


class GoStacks:
    """Stacks that were written, and the addresses in them.

    Attributes:
        addresses: By a process's own number, to be named when the recording ends.
    """

    def __init__(self) -> None:
        self.addresses: dict[int, set[int]] = {}
        self._seen = Seen(MAX_STACKS)

    @property
    def refused(self) -> int:
        """Stacks that were too many."""
        return self._seen.refused

    def recorded(self, records: NDArray[Any]) -> Rows:
        """Rows for those of `struct go_stack` that are new."""
        fresh = records[self._seen.new(records["id"])]
        if not len(fresh):
            return
        depth = np.minimum(fresh["depth"], fresh["addresses"].shape[1])
        held = inner(fresh["addresses"], depth).astype(np.uint64)
        of_frame = np.repeat(fresh["target"], depth)
        for target in np.unique(of_frame).tolist():
            mine = np.unique(held[of_frame == target]).tolist()
            self.addresses.setdefault(target, set()).update(mine)
        rows = stack_rows(fresh, same("go", len(fresh)), depth, held)
        yield "stacks", rows.append_column("program", [fresh["program"].astype(np.int64)])

    def sampled(self, process: GoProcess, found: Mapping[int, list[int]]) -> Rows:
        """Rows for those of a process that are new.

        Args:
            process: Which.
            found: Addresses by the stack's id.
        """
        import pyarrow as pa

        ids = np.fromiter(found, np.uint64, len(found))
        fresh = ids[self._seen.new(ids)].tolist()
        if not fresh:
            return
        addresses = [found[i] for i in fresh]
        self.addresses.setdefault(process.number, set()).update(*addresses)
        yield (
            "stacks",
            pa.table(
                {
                    "stack_id": pa.array(fresh, pa.int64()),
                    "space": same("go", len(fresh)),
                    "pid": pa.array([process.pid] * len(fresh), pa.int32()),
                    "program": pa.array([process.program] * len(fresh), pa.int64()),
                    "addresses": pa.array(addresses, pa.list_(pa.uint64())),
                }
            ),
        )
