"""Stacks of waits with their frames named, in time that scales with distinct stacks.

Waits are grouped by stack first; only the frames of the stacks that are left are named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from sltrace.analysis.frames import Frame, resolve_stacks
from sltrace.analysis.selection import (
    EVERYTHING,
    LENGTH,
    Dimension,
    Selection,
    Value,
    dimensions,
    tables,
)
from sltrace.model import UNKNOWN_NAME

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sltrace.trace.reader import Trace

Which = Literal["victim", "waker", "culprit"]
"""Whose stack: of the task that waited, of the one that woke it, or of the one that had what it
waited for."""

PARTS: dict[Which, tuple[str, ...]] = {
    "victim": ("stack_runtime", "stack_user", "stack_kernel"),
    "waker": ("waker_stack_runtime", "waker_stack_user", "waker_stack_kernel"),
    "culprit": ("culprit_stack",),
}
"""Columns of waits that make up a stack, the outermost first."""
_EVALUATORS = frozenset({"_PyEval_EvalFrameDefault", "_PyEval_EvalFrame"})
"""Functions of CPython that run Python functions."""

_MISSING = {
    "victim": Frame("[no stack recorded]"),
    "waker": Frame("[no waker stack recorded]"),
    "culprit": Frame("[no culprit stack recorded]"),
}
_GONE = Frame("[stack missing from the trace]")
MAX_GROUPS = 200_000
"""Groups kept apart by default. A machine has thousands of stacks; ten million random pairs of
kernel and user stack took 11 GB without a limit (measured)."""


@dataclass(frozen=True)
class StackGroup:
    """Waits with the same keys and the same stack.

    Attributes:
        keys: One value per dimension asked for.
        stack: Index into `GroupedStacks.stacks`.
        count: How many waits.
        wait_ns: Their sum.
    """

    keys: tuple[Value, ...]
    stack: int
    count: int
    wait_ns: int


@dataclass(frozen=True)
class GroupedStacks:
    """Waits by keys and stack. Waits without a stack are in it, under a frame that says so.

    Attributes:
        frames: Distinct frames.
        stacks: For each distinct stack its frame indices, root first, its parts as in PARTS.
        groups: Most time first.
        rest_groups: How many groups are beyond the limit.
        rest_count: Their waits.
        rest_ns: The total of those.
    """

    frames: tuple[Frame, ...]
    stacks: tuple[NDArray[np.int64], ...]
    groups: tuple[StackGroup, ...]
    rest_groups: int
    rest_count: int
    rest_ns: int

    @property
    def count(self) -> int:
        """All waits."""
        return sum(g.count for g in self.groups) + self.rest_count

    @property
    def wait_ns(self) -> int:
        """Their total."""
        return sum(g.wait_ns for g in self.groups) + self.rest_ns


def grouped_stacks(
    trace: Trace,
    by: Sequence[str] = (),
    selection: Selection = EVERYTHING,
    which: Which = "victim",
    *,
    limit: int = MAX_GROUPS,
) -> GroupedStacks:
    """Groups waits by dimensions and stack, and names the frames.

    Args:
        trace: Where from.
        by: Dimensions to keep apart besides the stack.
        selection: Waits to look at.
        which: Whose stack.
        limit: Groups to keep apart, at least 1, those with the most time; the others are only
            summed.

    Raises:
        UsageError: An unknown dimension.
    """
    wanted = dimensions(by)
    query, parameters = _group_query(wanted, selection, which)
    parts = [f"s{i}" for i in range(len(PARTS[which]))]
    rows = trace.sql(
        f"WITH g AS ({query}) SELECT *, count(*) OVER () AS all_groups, "
        "sum(n) OVER ()::BIGINT AS all_n, sum(total) OVER ()::BIGINT AS all_total "
        f"FROM g ORDER BY total DESC, n DESC, {', '.join(parts)} LIMIT ?",
        [*parameters, limit],
    )
    ids = np.stack([rows.column(p).to_numpy().astype(np.int64) for p in parts], 1)
    distinct, stack_of_row = np.unique(ids, axis=0, return_inverse=True)
    whole = whole_stacks(trace, distinct)
    frames = (*whole.frames, _MISSING[which])
    missing = np.array([len(frames) - 1])
    stacks = tuple(stack if len(stack) else missing for stack in whole.stacks)
    keys = [rows.column(f"k{i}").to_pylist() for i in range(len(wanted))]
    counts, sums = rows.column("n").to_pylist(), rows.column("total").to_pylist()
    groups = tuple(
        StackGroup(tuple(key[i] for key in keys), int(stack), counts[i], sums[i])
        for i, stack in enumerate(stack_of_row.ravel())
    )
    sums_of_all = [
        rows.column(c)[0].as_py() if groups else 0 for c in ("all_groups", "all_n", "all_total")
    ]
    return GroupedStacks(
        frames=frames,
        stacks=stacks,
        groups=groups,
        rest_groups=sums_of_all[0] - len(groups),
        rest_count=sums_of_all[1] - sum(counts),
        rest_ns=sums_of_all[2] - sum(sums),
    )


def count_groups(trace: Trace, by: Sequence[str], selection: Selection, which: Which) -> int:
    """How many groups `grouped_stacks` would make."""
    wanted = dimensions(by)
    query, parameters = _group_query(wanted, selection, which)
    return int(trace.sql(f"SELECT count(*) AS n FROM ({query})", parameters)["n"][0].as_py())


@dataclass(frozen=True)
class WholeStacks:
    """Stacks put together from their parts.

    Attributes:
        frames: Distinct frames; one of them stands for parts that the trace does not have.
        stacks: Frame indices of each, root first; empty where there was none.
    """

    frames: tuple[Frame, ...]
    stacks: list[NDArray[np.int64]]


def whole_stacks(trace: Trace, ids: NDArray[np.int64]) -> WholeStacks:
    """Stacks for rows of part ids in the order of PARTS, 0 for none; shape (n, parts)."""
    resolved = resolve_stacks(trace, np.unique(ids[ids != 0]))
    gone = np.array([len(resolved.frames)])
    nothing = np.empty(0, np.int64)
    parts = [[resolved.stacks.get(part, gone) for part in row if part] for row in ids.tolist()]
    frames = (*resolved.frames, _GONE)
    stacks = [np.concatenate([nothing, *_nested(row, frames)]) for row in parts]
    return WholeStacks(frames, stacks)


def _nested(parts: list[NDArray[np.int64]], frames: Sequence[Frame]) -> Iterator[NDArray[np.int64]]:
    """The parts with what Python frames stand for cut off the native ones: the interpreter.

    What is left of the native part is what the innermost Python function called. Without frame
    pointers a walk ends in addresses at which nothing is mapped: what is outside of such a one was
    not called from there.
    """
    in_python = bool(parts) and frames[parts[0][0]].language == "python"
    for part in parts:
        inner = 0
        if in_python:
            found = [frames[i] for i in part.tolist()]
            ends = [i + 1 for i, f in enumerate(found) if f.name in _EVALUATORS]
            # The innermost is no return address: it is where the thread was.
            ends += [i + 1 for i, f in enumerate(found[:-1]) if _is_nowhere(f)]
            inner = max(ends, default=0)
        yield part[inner:]


def _is_nowhere(frame: Frame) -> bool:
    return frame.name == UNKNOWN_NAME and frame.file_offset is None


def _group_query(
    by: Sequence[Dimension], selection: Selection, which: Which
) -> tuple[str, list[object]]:
    condition, parameters = selection.where()
    keys = "".join(f"{d.sql} AS k{i}, " for i, d in enumerate(by))
    parts = ", ".join(f"coalesce({p}, 0) AS s{i}" for i, p in enumerate(PARTS[which]))
    return (
        f"SELECT {keys} {parts}, count(*) AS n, "
        f"sum({LENGTH})::BIGINT AS total FROM {tables((*by, *selection.dimensions))} "
        f"WHERE {condition} GROUP BY ALL",
        parameters,
    )
