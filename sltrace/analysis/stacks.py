"""Stacks of waits with their frames named, in time that scales with distinct stacks.

Waits are grouped by stack first; only the stacks left are joined with `frames`, each distinct
address once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sltrace.analysis.selection import EVERYTHING, Dimension, Selection, Value, dimensions, tables

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from sltrace.trace.reader import Trace

Which = Literal["victim", "waker", "culprit"]
"""Whose stack: of the task that waited, of the one that woke it, or of the one that had what it
waited for."""

MAX_DEPTH = 1024
"""Frames kept of one stack, the innermost; the kernel's own limit is 127 unless raised."""

PARTS: dict[Which, tuple[str, ...]] = {
    "victim": ("stack_runtime", "stack_user", "stack_kernel"),
    "waker": ("waker_stack_runtime", "waker_stack_user", "waker_stack_kernel"),
    "culprit": ("culprit_stack",),
}
"""Columns of waits that make up a stack, the outermost first."""
_TRACING = (
    "bpf_prog_",
    "bpf_trace_run",
    "bpf_get_stack",
    "bpf_trampoline_",
    "__bpf_trace_",
    "__bpf_prog_",
    "__traceiter_",
    "trace_call_bpf",
    # The kernel's last symbol, and so the name of every program that was unloaded since.
    "_einittext",
)
"""How the kernel calls a probe: what a waker's stack begins with."""

_EVALUATORS = frozenset({"_PyEval_EvalFrameDefault", "_PyEval_EvalFrame"})
"""Functions of CPython that run Python functions."""

_UNKNOWN = "[unknown]"

_GO_NAME = "contains(n.name, '.')"
"""What tells Go's functions from the C ones linked into the same file: their package."""

_OWN = "(language IN ('go', 'python'), name)"
"""By what one of several names of an address is chosen: a runtime's own before that of the file."""

_FITS = (
    "CASE WHEN n.build_id <> '' AND m.build_id <> '' THEN 3 * (n.build_id = m.build_id)::INT - 1 "
    "WHEN n.module <> '' AND parse_filename(replace(m.path, ' (deleted)', '')) = n.module THEN 1 "
    "ELSE 0 END"
)
"""How well a mapping at an address fits what its name is of; below 0 it does not. A process that
became another program has several: none is taken where they differ and the name does not tell."""

_WANTED = "sltrace_wanted_addresses"
_IDS = "sltrace_wanted_stacks"


@dataclass(frozen=True)
class Frame:
    """One distinct address of one address space.

    Attributes:
        name: Function; `module+0xoffset` or `[unknown]` where no symbol covers it. For frames
            that stand for something missing, what that is, in brackets.
        module: File name, `[kernel]` and the like; empty if unknown.
        build_id: GNU build id of the module, hex; empty if unknown.
        path: File the mapping is of; empty if unknown.
        address: In the process's (or the kernel's) address space; 0 if there is none.
        file_offset: Address within the file; None where no mapping covers it.
        pid: Process; 0 for the kernel.
        language: kernel, native, jit, go, python; other for frames that stand for something
            missing.
    """

    name: str
    module: str = ""
    build_id: str = ""
    path: str = ""
    address: int = 0
    file_offset: int | None = None
    pid: int = 0
    language: str = "other"


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
    return frame.name == _UNKNOWN and frame.file_offset is None


@dataclass(frozen=True)
class ResolvedStacks:
    """Stacks by id, each as frame indices, root first."""

    frames: tuple[Frame, ...]
    stacks: dict[int, NDArray[np.int64]]


def resolve_stacks(trace: Trace, stack_ids: NDArray[np.int64]) -> ResolvedStacks:
    """Names the frames of stacks; ids that the trace does not have are left out."""
    import pyarrow as pa

    with _registered(trace, _IDS, pa.table({"stack_id": stack_ids})):
        rows = trace.sql(
            "SELECT stack_id, any_value(CASE WHEN space = 'kernel' THEN 0 ELSE pid END)::BIGINT "
            f"AS pid, any_value(addresses[1:{MAX_DEPTH}]) AS addresses FROM stacks "
            f"WHERE stack_id IN (FROM {_IDS}) AND addresses IS NOT NULL GROUP BY stack_id"
        )
    lists = rows.column("addresses").combine_chunks()
    addresses = lists.flatten().fill_null(0).to_numpy()
    depths = np.asarray(lists.value_lengths().to_numpy(zero_copy_only=False), np.int64)
    pids = np.repeat(rows.column("pid").fill_null(0).to_numpy(), depths)
    frame_of, firsts = _distinct(pids, addresses)
    frames = _named_frames(trace, pids[firsts], addresses[firsts])
    ends = np.cumsum(depths)
    ids = rows.column("stack_id").to_pylist()
    # Addresses are innermost first.
    stacks = {
        stack_id: _without_tracing(frame_of[end - depth : end], frames)[::-1]
        for stack_id, end, depth in zip(ids, ends.tolist(), depths.tolist(), strict=True)
        if depth
    }
    return ResolvedStacks(frames, stacks)


def _without_tracing(stack: NDArray[np.int64], frames: Sequence[Frame]) -> NDArray[np.int64]:
    """Cuts the tracing itself off a stack taken where the probe ran; innermost frame first."""
    inner = 0
    while inner < len(stack) - 1 and _is_tracing(frames[stack[inner]]):
        inner += 1
    return stack[inner:]


def _is_tracing(frame: Frame) -> bool:
    return frame.pid == 0 and frame.name.startswith(_TRACING)


def _group_query(
    by: Sequence[Dimension], selection: Selection, which: Which
) -> tuple[str, list[object]]:
    condition, parameters = selection.where()
    keys = "".join(f"{d.sql} AS k{i}, " for i, d in enumerate(by))
    parts = ", ".join(f"coalesce({p}, 0) AS s{i}" for i, p in enumerate(PARTS[which]))
    return (
        f"SELECT {keys} {parts}, count(*) AS n, "
        f"sum(wait_ns)::BIGINT AS total FROM {tables((*by, *selection.dimensions))} "
        f"WHERE {condition} GROUP BY ALL",
        parameters,
    )


def _distinct(
    pids: NDArray[Any], addresses: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each (pid, address) the index of its distinct pair, and where each pair comes first."""
    order = np.lexsort((addresses, pids))
    pids, addresses = pids[order], addresses[order]
    new = np.ones(len(order), bool)
    new[1:] = (pids[1:] != pids[:-1]) | (addresses[1:] != addresses[:-1])
    index = np.empty(len(order), np.int64)
    index[order] = np.cumsum(new) - 1
    return index, order[new]


def _named_frames(trace: Trace, pids: NDArray[Any], addresses: NDArray[Any]) -> tuple[Frame, ...]:
    import pyarrow as pa

    wanted = pa.table(
        {
            "i": np.arange(len(pids)),
            "pid": pids.astype(np.int32),
            "address": addresses.astype(np.uint64),
        }
    )
    with _registered(trace, _WANTED, wanted):
        rows = trace.sql(
            f"""
            WITH named AS (
              SELECT pid, address, arg_max(name, {_OWN}) AS name, arg_max(module, {_OWN}) AS module,
                max(build_id) AS build_id, arg_max(language, {_OWN}) AS language
              FROM frames SEMI JOIN {_WANTED} USING (pid, address) GROUP BY pid, address
            ), programs AS (
              SELECT DISTINCT pid, exe FROM targets WHERE runtime = 'go' AND exe <> ''
            ), possible AS (
              SELECT w.i, m.path, m.build_id, m."offset"::HUGEINT - m.start AS moved,
                {_FITS} AS fits, max(fits) OVER (PARTITION BY w.i) AS best
              FROM {_WANTED} w
                JOIN mappings m ON w.pid = m.pid AND w.address >= m.start AND w.address < m."end"
                LEFT JOIN named n ON w.pid = n.pid AND w.address = n.address
            ), mapped AS (
              SELECT i, any_value(path) AS path, max(build_id) AS build_id,
                any_value(moved) AS moved
              FROM possible WHERE fits = best AND fits >= 0
              GROUP BY i HAVING count(DISTINCT (path, moved)) = 1
            )
            SELECT w.i, w.pid, w.address, n.name, n.module,
              CASE WHEN n.language = 'native' AND {_GO_NAME}
                AND EXISTS (SELECT 1 FROM programs g WHERE g.pid = w.pid AND g.exe = m.path)
                THEN 'go' ELSE n.language END AS language,
              coalesce(nullif(n.build_id, ''), m.build_id) AS build_id, m.path,
              CASE WHEN m.i IS NOT NULL
                THEN greatest(least(w.address + m.moved, {2**63 - 1}), 0)::BIGINT END AS file_offset
            FROM {_WANTED} w LEFT JOIN named n ON w.pid = n.pid AND w.address = n.address
              LEFT JOIN mapped m ON m.i = w.i
            ORDER BY w.i
            """
        ).to_pylist()
    return tuple(_frame(row) for row in rows)


def _frame(row: dict[str, Any]) -> Frame:
    path, offset = row["path"] or "", row["file_offset"]
    module = row["module"] or path.rpartition("/")[2]
    name = row["name"]
    if not name:
        name = f"{module}+0x{offset:x}" if module and offset is not None else _UNKNOWN
    elif row["language"] == "python" and module:
        # Many files have a `run` or a `get`.
        name = f"{name} ({module})"
    return Frame(
        name=name,
        module=module,
        build_id=row["build_id"] or "",
        path=path,
        address=row["address"],
        file_offset=offset,
        pid=row["pid"],
        language=row["language"] or ("native" if row["pid"] else "kernel"),
    )


@contextmanager
def _registered(trace: Trace, name: str, table: pa.Table) -> Iterator[None]:
    trace.connection.register(name, table)
    try:
        yield
    finally:
        trace.connection.unregister(name)
