"""Who ran while others waited, as a table that a page can select from.

Every nanosecond of run-queue wait and of throttling is in exactly one row, as in
`sltrace.analysis.blame`, and so is that of waits for the GIL, which somebody held.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sltrace.analysis import cubeaxes
from sltrace.analysis.addedup import added_up
from sltrace.analysis.blame import HELD_KINDS, QUOTA, REMAINDER, WHAT
from sltrace.analysis.cells import OTHER, Axis, Step, summed_cells
from sltrace.analysis.cubeaxes import Named, Origin
from sltrace.analysis.cubestacks import NO_STACK, RankedStacks
from sltrace.analysis.processes import process_names
from sltrace.analysis.slices import CgroupRan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sltrace.trace.reader import Trace

MAX_ROWS = 200_000

_MAX_TASKS = 4000
_WHOLE_AXIS = 1 << 16

_ROWS = 60
"""Cgroups and threads that have a row of the page."""

# A selection by cgroup, thread, latency or CPU needs the same steps here as in the cube. Processes
# are no rows: they go first. Latencies, which the page opens with, stay while there is another way,
# but go before cgroups that have a row: whose culprits are not known by latency are known of all
# latencies, and not the other way round.
_LADDER: tuple[Step, ...] = (
    (("culprit", 1000), ("stack", 4001)),
    (("process", 500), ("stack", 1001)),
    (("culprit", 300), ("stack", 501)),
    (("process", 200), ("comm", 500), ("cgroup", 500)),
    (("process", 60), ("culprit", 150)),
    (("comm", 150), ("cgroup", 150), ("culprit", 75)),
    (("process", 20),),
    (("cpu", _WHOLE_AXIS),),
    (("comm", _ROWS), ("cgroup", _ROWS), ("culprit", 50)),
    (("process", 5), ("culprit", 30), ("stack", 201)),
    (("comm", 20), ("culprit", 20)),
    (("comm", 5), ("process", 0), ("culprit", 10), ("stack", 51)),
    (("comm", 0),),
    (("culprit", 4),),
    (("b", _WHOLE_AXIS),),
    (("cgroup", 40),),
    (("cgroup", 20),),
    (("cgroup", 5), ("culprit", 3)),
    (("cgroup", 0), ("culprit", 0), ("stack", 1)),
    (("t", _WHOLE_AXIS),),
)


@dataclass(frozen=True)
class Party:
    """A victim or a culprit.

    Attributes:
        what: As `sltrace.analysis.blame.What`; task for victims, rest for all others together.
        cgroup: Path; empty if unknown, None if one of several that are together. Of a quota, whose;
            of others, theirs where they were of the culprit's.
        comm: Thread name, likewise.
        process: Its process, as `name (pid)`, likewise.
    """

    what: str
    cgroup: str | None = ""
    comm: str | None = ""
    process: str | None = ""


@dataclass(frozen=True)
class BlameTable:
    """Waits by who waited and who ran.

    Attributes:
        victims: That `rows["victim"]` indexes.
        culprits: That `rows["culprit"]` indexes.
        rows: Columns of equal length: t, b, cpu, kind, victim, culprit, stack, count, sum_ns; the
            first four as in the cube. A wait with two causes counts in two rows; one whose
            culprit had others of its cgroup beside it counts once for it and once for all others.
            The stack is the culprit's: its rank, which the cube makes one of its own stacks.
        coarse: Axes of t, b, cpu that are coarser than the cube's: all of it is 0.
        lost: Names of the cube's cgroups and comms that no victim has: theirs are among others.
    """

    victims: list[Party]
    culprits: list[Party]
    rows: dict[str, NDArray[Any]]
    coarse: list[str]
    lost: dict[str, frozenset[str]]


def blame_table(
    trace: Trace,
    origin: Origin,
    *,
    names: Mapping[str, Named],
    plain: Sequence[Axis],
    stacks: RankedStacks,
    level: dict[str, int],
    ran: CgroupRan,
    max_rows: int = MAX_ROWS,
) -> BlameTable:
    """Sums the parts of waits; empty for histograms, which do not know who ran.

    Args:
        trace: Where from.
        origin: Of the cube.
        names: Its kinds, cgroups and comms.
        plain: Its time bins, buckets and CPUs.
        stacks: The culprits'.
        level: How coarse the cube is.
        ran: What the culprits' cgroups ran, of the whole recording.
        max_rows: Rows at most.
    """
    if origin.source != "waits":
        columns = ("t", "b", "cpu", "kind", "victim", "culprit", "stack", "count", "sum_ns")
        return BlameTable([], [], {name: np.empty(0, np.int64) for name in columns}, [], {})
    called = process_names(trace)
    # What the cube has together has no row of its own here, either.
    start = {name: n for name, n in level.items() if name in _SHARED_AXES}
    kept = {name: names[name].names[1:][: level.get(name)] for name in ("cgroup", "comm")}
    keys = {axis.name: axis.sql for axis in plain}
    keys |= {column: column for column in (*_SHARED, *_MAIN, "remainder")}
    with (
        ran.beside(trace, origin.sql) as waits,
        added_up(trace, "sltrace_cube_blame", _cut(waits), keys, _SUMS) as cut,
    ):
        parts = _parts(cut, [axis.name for axis in plain])
        victims = {
            name: _ranked(trace, parts, name, (c,), first=kept.get(name, ()))
            for name, c in _VICTIM.items()
        }
        culprits = _ranked(trace, parts, "culprit", ("what", "c_cgroup", "c_comm", "c_pid"))
        named: list[Named | _Ranked] = [names["kind"], *victims.values(), culprits]
        axes = [*(axis.found for axis in plain), *(n.axis for n in named)]
        joins = [n.join for n in named]
        tables = [n.table for n in named]
        if stacks.any:
            axis, join, table = cubeaxes.stack_axis("stack", stacks)
            axes.append(axis)
            joins.append(join)
            tables.append(table)
        source = " ".join([f"{parts} w", *joins])
        with trace.registered(*tables):
            cells = summed_cells(trace, axes, source, max_rows, _LADDER, start)
    rows = {"stack": np.full(len(cells.count), NO_STACK), **cells.digits}
    coarse = [a for a in ("t", "b", "cpu") if cells.level.get(a, 1) != start.get(a, 1)]
    ran_then, rows["culprit"] = np.unique(rows["culprit"], return_inverse=True)
    rest = Party("rest", None, None, None)
    waited, rows["victim"] = _combined(
        [(rows.pop(name), v.axis.size) for name, v in victims.items()]
    )
    return BlameTable(
        victims=[
            _victim([v.name(i) for v, i in zip(victims.values(), of, strict=True)], called)
            for of in waited
        ],
        culprits=[rest if i == OTHER else _party(culprits.keys[i - 1], called) for i in ran_then],
        rows={**rows, "count": cells.count, "sum_ns": cells.sum_ns},
        coarse=coarse,
        lost={
            name: victims[name].lost(cells.level.get(name), rows_of)
            for name, rows_of in kept.items()
        },
    )


_SHARED_AXES = ("t", "b", "cpu", "kind", "cgroup", "comm")
"""Axes of the cube that are axes here, too."""
_VICTIM = {"cgroup": "cgroup", "comm": "comm", "process": "pid"}
"""What a victim is told apart by, and the column of each."""
_SHARED = ("kind", "cgroup", "comm", "pid")
"""Of a wait, beside its time, bucket and CPU."""
_MAIN = ("what", "c_cgroup", "c_comm", "c_pid", "culprit_stack")
"""Of the main culprit."""
_SUMS = ("n", "held", "beside", "only_beside", "rest", "with_rest")
"""Of a wait that is cut: how many, and the parts' times and how many have them."""


def _cut(waits: str) -> str:
    """Waits cut into what the main culprit held and what is left, as a FROM item.

    Of what is left, the time of others of the culprit's cgroup is apart (`beside`), where it is
    known, from the `rest`.
    """
    kinds = ", ".join(f"'{k}'" for k in HELD_KINDS)
    ran = "(culprit_tid <> 0)"
    held = "greatest(0, least(coalesce(culprit_ns, 0), ns))"
    return (
        "(SELECT *, ran - held AS beside, (ran = ns AND ran > held)::INTEGER AS only_beside, "
        "ns - ran AS rest, (ns > ran)::INTEGER AS with_rest FROM (SELECT *, "
        f"{WHAT} AS what, "
        f"CASE WHEN {QUOTA} THEN coalesce(culprit_cgroup, cgroup) "
        f"WHEN {ran} THEN culprit_cgroup END AS c_cgroup, "
        f"CASE WHEN {ran} AND NOT {QUOTA} THEN culprit_comm END AS c_comm, "
        f"CASE WHEN {ran} AND NOT {QUOTA} THEN culprit_pid END AS c_pid, "
        f"{REMAINDER} AS remainder, "
        f"CASE WHEN {QUOTA} OR culprit_tid IS NULL THEN ns ELSE {held} END AS held, "
        f"CASE WHEN {QUOTA} OR culprit_tid IS NULL THEN ns "
        f"ELSE greatest({held}, least(coalesce(ran_ns, 0), ns)) END AS ran "
        f"FROM {waits} WHERE kind IN ({kinds})))"
    )


def _parts(cut: str, plain: Sequence[str]) -> str:
    """The pieces of the waits that `_cut` gives, each as a row with its culprit, as a FROM item."""
    shared = ", ".join((*plain, *_SHARED))
    nobody = "NULL, NULL"
    return (
        f"(SELECT {shared}, {', '.join(_MAIN)}, held AS ns, n, 0 AS longest FROM {cut} "
        f"UNION ALL SELECT {shared}, 'others', c_cgroup, {nobody}, NULL, beside, only_beside, 0 "
        f"FROM {cut} WHERE beside > 0 "
        f"UNION ALL SELECT {shared}, remainder, NULL, {nobody}, NULL, rest, with_rest, 0 "
        f"FROM {cut} WHERE rest > 0)"
    )


@dataclass(frozen=True)
class _Ranked:
    axis: Axis
    keys: list[tuple[Any, ...]]
    join: str
    table: tuple[str, pa.Table]

    def name(self, rank: int) -> Any:
        """Of a single column, its value; None for others."""
        return None if rank == OTHER else self.keys[rank - 1][0]

    def lost(self, level: int | None, names: Iterable[str]) -> frozenset[str]:
        """Those of a single column's names that have no rank of their own at a level."""
        ranked = [key for (key,) in self.keys]
        cut = set(ranked[len(ranked) if level is None else level :])
        # Fewer are all that there are: no other name has any time in here.
        others = set(names).difference(ranked) if len(ranked) == _MAX_TASKS else set()
        return frozenset(cut.intersection(names) | others)


def _ranked(
    trace: Trace, parts: str, name: str, columns: Sequence[str], first: Sequence[str] = ()
) -> _Ranked:
    """Combinations of columns by their time; rank 0 is all others.

    Args:
        trace: Where from.
        parts: FROM item.
        name: Of the axis.
        columns: What is combined.
        first: Values of the first column that are before all others.
    """
    keys = {c: "coalesce({0}" + c + (", -1)" if c.endswith("pid") else ", '')") for c in columns}
    selected = ", ".join(f"{key.format('')} AS {c}" for c, key in keys.items())
    called = ", ".join(columns)
    rows = trace.sql(
        f"SELECT {called} FROM (SELECT {selected}, sum(ns) AS ns, sum(n) AS n FROM {parts} "
        f"GROUP BY ALL) ORDER BY list_contains(?, {columns[0]}::VARCHAR) DESC, ns DESC, n DESC, "
        f"{called} LIMIT {_MAX_TASKS}",
        [list(first)],
    )
    table = f"sltrace_blame_{name}"
    ranks = rows.append_column("rank", pa.array(range(1, rows.num_rows + 1), pa.int64()))
    same = " AND ".join(f"{key.format('w.')} = {table}.{c}" for c, key in keys.items())
    return _Ranked(
        Axis(name, rows.num_rows + 1, f"coalesce({table}.rank, {OTHER})", ranked=True),
        [tuple(row.values()) for row in rows.to_pylist()],
        f"LEFT JOIN {table} ON {same}",
        (table, ranks),
    )


def _combined(
    columns: Sequence[tuple[NDArray[np.int64], int]],
) -> tuple[list[tuple[int, ...]], NDArray[np.int64]]:
    """Which combinations of digits there are, and of each row the number of its own.

    Args:
        columns: Digits, and what they are below.
    """
    sizes = tuple(size for _, size in columns)
    keys = np.ravel_multi_index([digits for digits, _ in columns], sizes)
    present, index = np.unique(keys, return_inverse=True)
    return list(zip(*(d.tolist() for d in np.unravel_index(present, sizes)), strict=True)), index


def _victim(key: Sequence[Any], names: dict[int, str]) -> Party:
    cgroup, comm, pid = key
    return Party("task", cgroup, comm, None if pid is None else _process(pid, comm or "", names))


def _party(key: tuple[Any, ...], names: dict[int, str]) -> Party:
    what, cgroup, comm, pid = key
    return Party(what, cgroup, comm, _process(pid, comm, names))


def _process(pid: int, comm: str, names: dict[int, str]) -> str:
    return f"{names.get(pid) or comm} ({pid})".lstrip() if pid > 0 else ""
