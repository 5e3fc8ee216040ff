"""Stacks of goroutines, from probes and from memory: each is written once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sltrace.capture.columns import same
from sltrace.capture.seen import Seen
from sltrace.capture.sources import Rows
from sltrace.capture.stacks import inner, stack_rows
from sltrace.target.go.process import GoProcess

MAX_STACKS = 1 << 18
MAX_ADDRESSES = 1 << 18
"""In all of them: each is named at the end, in 0.1 ms. Only a very large program has more calls."""


class GoStacks:
    """Stacks that were written, and the addresses in them.

    Attributes:
        addresses: By a process's own number, to be named when the recording ends.
    """

    def __init__(self) -> None:
        self.addresses: dict[int, set[int]] = {}
        self._seen = Seen(MAX_STACKS)
        self._known = self._refused = 0

    @property
    def refused(self) -> int:
        """Stacks that were too many, or had too many addresses between them."""
        return self._seen.refused + self._refused

    def recorded(self, records: NDArray[Any]) -> Rows:
        """Rows for those of `struct go_stack` that are new."""
        fresh = records[self._seen.new(records["id"])]
        if not len(fresh):
            return
        depth = np.minimum(fresh["depth"], fresh["addresses"].shape[1])
        each = zip(*(c.tolist() for c in (fresh["target"], fresh["addresses"], depth)), strict=True)
        taken = np.array([self._takes(target, of[:deep]) for target, of, deep in each])
        fresh, depth = fresh[taken], depth[taken]
        held = inner(fresh["addresses"], depth).astype(np.uint64)
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
        new = ids[self._seen.new(ids)].tolist()
        fresh = [i for i in new if self._takes(process.number, found[i])]
        if not fresh:
            return
        addresses = [found[i] for i in fresh]
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

    def take(self, number: int) -> set[int]:
        """The addresses of a process, which makes room for others."""
        taken = self.addresses.pop(number, set())
        self._known -= len(taken)
        return taken

    def _takes(self, number: int, addresses: Sequence[int]) -> bool:
        """Notes the addresses of a stack of a process, if there is room."""
        known = self.addresses.setdefault(number, set())
        fresh = set(addresses) - known
        if self._known + len(fresh) > MAX_ADDRESSES:
            self._refused += 1
            return False
        known |= fresh
        self._known += len(fresh)
        return True
