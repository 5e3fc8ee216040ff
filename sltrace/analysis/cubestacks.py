"""The stacks of a cube: those with the most time, by the names of their frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from sltrace.analysis.cells import OTHER
from sltrace.analysis.flame import REST
from sltrace.analysis.frames import Frame
from sltrace.analysis.stacks import PARTS, Which, whole_stacks

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

OTHER_STACK = Frame(REST)
NO_STACK = 1
"""Rank of the empty stack, the one that is not by time."""

_MAX_COMBINATIONS = 50_000
"""Combinations of stack ids whose frames are looked up; a machine has thousands."""


class FrameTable:
    """Frames by name and language: all addresses of one function are one frame."""

    def __init__(self) -> None:
        self._index: dict[tuple[str, str], int] = {}

    def index(self, frame: Frame) -> int:
        """Number of a frame, a new one at first sight."""
        return self._index.setdefault((frame.name, frame.language), len(self._index))

    @property
    def names(self) -> list[str]:
        """Names by number."""
        return [name for name, _ in self._index]

    @property
    def languages(self) -> list[str]:
        """Languages by number."""
        return [language for _, language in self._index]


@dataclass(frozen=True)
class RankedStacks:
    """Stacks by rank.

    Attributes:
        which: Whose.
        stacks: Frame numbers, root first, of rank 0 (all others), 1 (none was taken), 2 and on.
        ranks: Table with a column for each of PARTS and the rank.
    """

    which: Which
    stacks: list[tuple[int, ...]]
    ranks: pa.Table = field(repr=False)

    @property
    def any(self) -> bool:
        """Whether any wait has a stack."""
        return bool(self.ranks.num_rows)


def rank_stacks(trace: Trace, which: Which, frames: FrameTable, most: int) -> RankedStacks:
    """Ranks the stacks of all waits by their time; those beyond `most` ranks are OTHER."""
    parts = PARTS[which]
    ids = [f"coalesce({part}, 0)" for part in parts]
    rows = trace.sql(
        f"SELECT {', '.join(f'{i} AS {p}' for i, p in zip(ids, parts, strict=True))} FROM waits "
        f"WHERE {' OR '.join(f'{p} <> 0' for p in parts)} GROUP BY ALL "
        f"ORDER BY sum(wait_ns) DESC, {', '.join(parts)} LIMIT {_MAX_COMBINATIONS}"
    )
    keys = np.stack([rows.column(p).to_numpy().astype(np.int64) for p in parts], 1)
    whole = whole_stacks(trace, keys)
    number = [frames.index(frame) for frame in whole.frames]
    named = [tuple(number[i] for i in stack.tolist()) for stack in whole.stacks]
    rank: dict[Sequence[int], int] = {}
    for stack in named:
        if stack not in rank and len(rank) + NO_STACK < most:
            rank[stack] = len(rank) + NO_STACK + 1
    ranks = pa.array([rank.get(stack, OTHER) for stack in named], pa.int64())
    stacks = [(frames.index(OTHER_STACK),), (), *map(tuple, rank)]
    return RankedStacks(which, stacks, rows.append_column("rank", ranks))
