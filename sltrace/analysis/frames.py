"""Stacks by their ids, with their frames named: each distinct address is looked up once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sltrace.model import UNKNOWN_NAME

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from sltrace.trace.reader import Trace

MAX_DEPTH = 1024
"""Frames kept of one stack, the innermost; the kernel's own limit is 127 unless raised."""

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

_GO_NAME = "contains(n.name, '.')"
"""What tells Go's functions from the C ones linked into the same file: their package."""

_OWN = "(language IN ('go', 'python'), name)"
"""By what one of several names of an address is chosen: a runtime's own before that of the file."""

_SAME = (
    "n.pid = w.pid AND n.address = w.address AND (n.program IS NULL OR n.program = w.program "
    "OR (w.program = 0 AND n.pid NOT IN (FROM several)))"
)
"""Whether a name is of an address. A stack that does not tell of which program it is takes no name
from one of several."""

_FITS = (
    "CASE WHEN n.build_id <> '' AND m.build_id <> '' THEN 3 * (n.build_id = m.build_id)::INT - 1 "
    "WHEN n.module <> '' AND parse_filename(replace(m.path, ' (deleted)', '')) = n.module THEN 1 "
    "ELSE 0 END"
)
"""How well a mapping at an address fits what its name is of; below 0 it does not. A process that
became another program has several: none is taken where they differ and the name does not tell."""

_WANTED = "sltrace_wanted_addresses"
_MAPPINGS = "sltrace_wanted_mappings"
_HELD = "sltrace_held_addresses"
_MOST_HELD = 1 << 24
"""Pairs of an address and a mapping. Mappings of one program do not overlap: only whoever made the
trace may have made it so that there are more."""
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
        source: Source file; empty if unknown.
        line: Line in it; 0 if unknown.
    """

    name: str
    module: str = ""
    build_id: str = ""
    path: str = ""
    address: int = 0
    file_offset: int | None = None
    pid: int = 0
    language: str = "other"
    source: str = ""
    line: int = 0


@dataclass(frozen=True)
class ResolvedStacks:
    """Stacks by id, each as frame indices, root first."""

    frames: tuple[Frame, ...]
    stacks: dict[int, NDArray[np.int64]]


def resolve_stacks(trace: Trace, stack_ids: NDArray[np.int64]) -> ResolvedStacks:
    """Names the frames of stacks; ids that the trace does not have are left out."""
    import pyarrow as pa

    with trace.registered((_IDS, pa.table({"stack_id": stack_ids}))):
        rows = trace.sql(
            "SELECT stack_id, any_value(CASE WHEN space = 'kernel' THEN 0 ELSE pid END)::BIGINT "
            f"AS pid, any_value(coalesce(program, 0)) AS program, "
            f"any_value(addresses[1:{MAX_DEPTH}]) AS addresses FROM stacks "
            f"WHERE stack_id IN (FROM {_IDS}) AND addresses IS NOT NULL GROUP BY stack_id"
        )
    lists = rows.column("addresses").combine_chunks()
    addresses = lists.flatten().fill_null(0).to_numpy()
    depths = np.asarray(lists.value_lengths().to_numpy(zero_copy_only=False), np.int64)
    pids = np.repeat(rows.column("pid").fill_null(0).to_numpy(), depths)
    programs = np.repeat(rows.column("program").to_numpy(), depths)
    frame_of, firsts = _distinct(pids, addresses, programs)
    frames = _named_frames(trace, pids[firsts], addresses[firsts], programs[firsts])
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


def _distinct(*columns: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each row the index of those alike, and where each of these comes first.

    Args:
        columns: What rows are ordered by, the first before all others.
    """
    order = np.lexsort(columns[::-1])
    new = np.ones(len(order), bool)
    new[1:] = np.logical_or.reduce([(c := column[order])[1:] != c[:-1] for column in columns])
    index = np.empty(len(order), np.int64)
    index[order] = np.cumsum(new) - 1
    return index, order[new]


def _named_frames(
    trace: Trace, pids: NDArray[Any], addresses: NDArray[Any], programs: NDArray[Any]
) -> tuple[Frame, ...]:
    import pyarrow as pa

    wanted = pa.table(
        {
            "i": np.arange(len(pids)),
            "pid": pids.astype(np.int32),
            "address": addresses.astype(np.uint64),
            "program": programs.astype(np.int64),
        }
    )
    with trace.registered((_WANTED, wanted)):
        mappings = trace.sql(
            'SELECT DISTINCT pid, start, "end", "offset", path, build_id FROM mappings '
            f'SEMI JOIN {_WANTED} USING (pid) WHERE start < "end" ORDER BY ALL'
        )
    mappings = mappings.append_column("mapping", pa.array(range(len(mappings)), pa.int64()))
    held = _held(pids, addresses, mappings)
    with trace.registered((_WANTED, wanted), (_MAPPINGS, mappings), (_HELD, held)):
        rows = trace.sql(
            f"""
            WITH several AS (
              SELECT pid FROM frames GROUP BY pid HAVING count(DISTINCT program) > 1
            ), named AS (
              SELECT w.i, arg_max(name, {_OWN}) AS name, arg_max(module, {_OWN}) AS module,
                max(build_id) AS build_id, arg_max(language, {_OWN}) AS language,
                arg_max(file, {_OWN}) AS source, arg_max(line, {_OWN}) AS line
              FROM frames n JOIN {_WANTED} w ON {_SAME} GROUP BY w.i
            ), programs AS (
              SELECT DISTINCT pid, exe FROM targets WHERE runtime = 'go' AND exe <> ''
            ), possible AS (
              SELECT w.i, m.path, m.build_id, m."offset"::HUGEINT - m.start AS moved,
                {_FITS} AS fits, max(fits) OVER (PARTITION BY w.i) AS best
              FROM {_HELD} JOIN {_WANTED} w USING (i) JOIN {_MAPPINGS} m USING (mapping)
                LEFT JOIN named n ON w.i = n.i
            ), mapped AS (
              SELECT i, any_value(path) AS path, max(build_id) AS build_id,
                any_value(moved) AS moved
              FROM possible WHERE fits = best AND fits >= 0
              GROUP BY i HAVING count(DISTINCT (path, moved)) = 1
            )
            SELECT w.i, w.pid, w.address, n.name, n.module, n.source, n.line,
              CASE WHEN n.language = 'native' AND {_GO_NAME}
                AND (w.pid, m.path) IN (FROM programs) THEN 'go' ELSE n.language END AS language,
              coalesce(nullif(n.build_id, ''), m.build_id) AS build_id, m.path,
              CASE WHEN m.i IS NOT NULL
                THEN greatest(least(w.address + m.moved, {2**63 - 1}), 0)::BIGINT END AS file_offset
            FROM {_WANTED} w LEFT JOIN named n ON w.i = n.i
              LEFT JOIN mapped m ON m.i = w.i
            ORDER BY w.i
            """
        ).to_pylist()
    return tuple(_frame(row) for row in rows)


def _held(pids: NDArray[Any], addresses: NDArray[Any], mappings: pa.Table) -> pa.Table:
    """Which mappings hold which addresses: pairs of `i` and `mapping`.

    Not a join: that compares each address of a process with each of its mappings. Naming 50,000
    addresses in 10,000 mappings took 3.8 s of CPU with one, 0.7 s with this (measured).

    Args:
        pids: Of each address; in order.
        addresses: In order within each process.
        mappings: Of those processes, in order of them.
    """
    import pyarrow as pa

    of, starts, ends = (mappings.column(c).to_numpy() for c in ("pid", "start", "end"))
    firsts, afters = (np.empty(len(of), np.int64) for _ in range(2))
    for pid in np.unique(of):
        own = slice(*np.searchsorted(of, pid + np.arange(2)))
        begin, end = np.searchsorted(pids, pid + np.arange(2))
        firsts[own] = begin + np.searchsorted(addresses[begin:end], starts[own])
        afters[own] = begin + np.searchsorted(addresses[begin:end], ends[own])
    counts = afters - firsts
    counts[np.cumsum(counts) > _MOST_HELD] = 0
    before = np.repeat(np.cumsum(counts) - counts, counts)
    i = np.repeat(firsts, counts) + np.arange(counts.sum()) - before
    return pa.table({"i": i, "mapping": np.repeat(np.arange(len(of)), counts)})


def _frame(row: dict[str, Any]) -> Frame:
    path, offset = row["path"] or "", row["file_offset"]
    module = row["module"] or path.rpartition("/")[2]
    name = row["name"]
    if not name:
        name = f"{module}+0x{offset:x}" if module and offset is not None else UNKNOWN_NAME
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
        source=row["source"] or "",
        line=max(row["line"] or 0, 0),
    )
