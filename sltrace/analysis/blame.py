"""Who ran while others waited: victims by culprits (`sltrace blame`).

Every nanosecond of run-queue wait and of throttling lands in exactly one cell, so the cells add
up to the totals of `stat`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from sltrace.analysis.losses import Losses, losses
from sltrace.analysis.meta import all_notes, min_latency_ns
from sltrace.analysis.processes import process_names
from sltrace.analysis.selection import (
    EVERYTHING,
    LENGTH,
    Dimension,
    Selection,
    Value,
    dimensions,
    tables,
)
from sltrace.analysis.slices import CgroupRan
from sltrace.durations import format_duration
from sltrace.errors import UsageError
from sltrace.model import RUNQ_KINDS, Flag, Kind

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

BLAMED_KINDS = (*RUNQ_KINDS, Kind.THROTTLED.label)
"""Kinds that somebody on the CPU, or a quota, is the cause of. Blocked waits have wakers."""

HELD_KINDS = (*BLAMED_KINDS, Kind.GIL.label)
"""Those, and the kind that whoever held the GIL is the cause of."""

What = Literal["task", "idle", "quota", "others", "unknown", "rest"]
"""What a cell's time went to:

- task: the named culprit ran.
- idle: the CPU was idle: wakeup latency, not contention.
- quota: the CPU quota of the named cgroup was used up.
- others: tasks other than each wait's main culprit ran; by cgroup, as far as it is not known that
  they were of the culprit's.
- unknown: it was not seen who ran; of a wait with CULPRIT_PARTIAL all but the culprit's part,
  because that is only what the latest run segments show.
- rest: cells beyond the limit.
"""


@dataclass(frozen=True)
class Cell:
    """How long one victim waited because of one culprit.

    Attributes:
        victim: Value of the dimension; None where unknown.
        victim_name: For a pid its comm, else the same as text; None where unknown.
        what: What it went to.
        culprit: Value of the dimension for task, the cgroup for quota, else None.
        culprit_name: As victim_name.
        waits: Waits with a part in this. A wait with two causes is in two cells.
        wait_ns: The part of their time.
        partial: Waits of which only the latest run segments are known.
    """

    victim: Value
    victim_name: str | None
    what: What
    culprit: Value
    culprit_name: str | None
    waits: int
    wait_ns: int
    partial: int


@dataclass(frozen=True)
class Blame:
    """Victims by culprits.

    Attributes:
        by: The dimension: cgroup, comm or pid.
        cells: Most time first.
        rest: All other cells added up; waits there count once per cell.
        total_ns: Over all cells: the waits' total.
        waits: Waits behind them, each once.
        partial: Of those, the ones with an incomplete account of who ran.
        losses: What the selection may lack.
        notes: What must be said beside these numbers.
    """

    by: str
    cells: tuple[Cell, ...]
    rest: Cell
    total_ns: int
    waits: int
    partial: int
    losses: Losses
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; all times in ns."""
        return {
            "by": self.by,
            "cells": [asdict(c) for c in self.cells],
            "rest": asdict(self.rest),
            "total_ns": self.total_ns,
            "waits": self.waits,
            "partial": self.partial,
            "losses": self.losses.to_json(),
            "notes": list(self.notes),
        }


_NAMED_BY = {"cgroup": "cgroup", "comm": "comm", "pid": "comm"}
"""By dimension the column of names; culprits have their own of each."""

_PARTIAL = f"(coalesce(flags, 0) & {int(Flag.CULPRIT_PARTIAL)} <> 0)"

QUOTA = f"(kind = '{Kind.THROTTLED.label}')"
"""Whether the quota of the task's own cgroup is the culprit, in SQL."""

WHAT = (
    f"CASE WHEN {QUOTA} THEN 'quota' WHEN culprit_tid = 0 THEN 'idle' "
    "WHEN culprit_tid IS NULL THEN 'unknown' ELSE 'task' END"
)
"""What a wait's main part went to, in SQL."""

REMAINDER = f"CASE WHEN culprit_others > 0 AND NOT {_PARTIAL} THEN 'others' ELSE 'unknown' END"
"""What time in which the main culprit did not run went to, in SQL."""


def blame(
    trace: Trace,
    by: str = "cgroup",
    selection: Selection = EVERYTHING,
    *,
    limit: int | None = None,
) -> Blame:
    """Who waited for whom.

    Args:
        trace: Where from.
        by: cgroup, comm or pid; both for victims and culprits.
        selection: Waits to look at; by default BLAMED_KINDS.
        limit: Cells to return; the others are added up in `rest`.

    Raises:
        UsageError: Another dimension, blocked waits, or a trace without single waits.
    """
    if by not in _NAMED_BY:
        raise UsageError(f"cannot blame by {by!r}", f"choose from {', '.join(_NAMED_BY)}")
    if trace.meta.get("histogram_only"):
        raise UsageError(
            "this trace has histograms only, which do not know culprits",
            "record again without --histogram-only",
        )
    lost = losses(trace, selection)
    selection = selection.with_kinds(BLAMED_KINDS)
    if strange := [str(k) for k in selection.kinds or () if k not in HELD_KINDS]:
        raise UsageError(
            f"no culprit is known for waits of kind {', '.join(strange)}",
            f"choose from {', '.join(HELD_KINDS)}",
        )
    (victim,) = dimensions((by,))
    ran = CgroupRan.of(trace) if by == "cgroup" else CgroupRan(None)
    with ran.beside(trace, "waits") as waits:
        rows = trace.sql(*_query(victim, selection, limit, waits)).to_pylist()
    cells = tuple(_cell(row, victim) for row in rows)
    if by == "pid":
        names = process_names(trace)
        cells = tuple(_called(cell, names) for cell in cells)
    sums = rows[0] if rows else dict.fromkeys(("all_waits", "all_ns", "all_partial"), 0)
    whole = _whole(trace, selection)
    return Blame(
        by=by,
        cells=cells,
        rest=Cell(
            victim=None,
            victim_name=None,
            what="rest",
            culprit=None,
            culprit_name=None,
            waits=sums["all_waits"] - sum(c.waits for c in cells),
            wait_ns=sums["all_ns"] - sum(c.wait_ns for c in cells),
            partial=sums["all_partial"] - sum(c.partial for c in cells),
        ),
        total_ns=sums["all_ns"],
        waits=whole["waits"],
        partial=whole["partial"],
        losses=lost,
        notes=_notes(trace),
    )


def top_culprit(trace: Trace, selection: Selection = EVERYTHING) -> tuple[str | None, int] | None:
    """The thread name that ran longest while others waited, and how long those waited then (ns).

    Args:
        trace: Where from.
        selection: Waits to look at; by default BLAMED_KINDS.
    """
    chosen = selection.with_kinds(BLAMED_KINDS)
    condition, parameters = chosen.where()
    rows = trace.sql(
        f"SELECT culprit_comm AS name, sum({_held('culprit_ns')})::BIGINT AS ran_ns "
        f"FROM {tables(chosen.dimensions)} WHERE {condition} AND {WHAT} = 'task' "
        "GROUP BY name ORDER BY ran_ns DESC, name LIMIT 1",
        parameters,
    ).to_pylist()
    return (rows[0]["name"], rows[0]["ran_ns"]) if rows else None


def _held(ran: str) -> str:
    """How much of a wait its culprit ran, in SQL."""
    return f"greatest(0, least(coalesce({ran}, 0), {LENGTH}))"


def _cell(row: dict[str, Any], dimension: Dimension) -> Cell:
    cell = Cell(**{name: row[name] for name in Cell.__dataclass_fields__})
    if cell.what == "task" and cell.culprit is not None and dimension.type == "int":
        return replace(cell, culprit=int(cell.culprit))
    return cell


def _called(cell: Cell, names: Mapping[int, str]) -> Cell:
    """A process's name, if it has one, in place of that of a thread that waited or ran."""
    victim, culprit = (
        names.get(pid) if isinstance(pid, int) else None for pid in (cell.victim, cell.culprit)
    )
    return replace(
        cell,
        victim_name=victim or cell.victim_name,
        culprit_name=culprit or cell.culprit_name,
    )


def _query(
    victim: Dimension,
    selection: Selection,
    limit: int | None,
    waits: str,
) -> tuple[str, list[object]]:
    condition, parameters = selection.where()
    ran = "greatest(coalesce(culprit_ns, 0), coalesce(ran_ns, 0))"
    name = _NAMED_BY[victim.name]
    # A wait is one main part (what, held) and, where the culprit did not run all the time, a
    # second one (`other`): grouping by both at once reads the waits a single time.
    return (
        f"""
        WITH blamed AS (SELECT * FROM {waits}), parts AS (
          SELECT {victim.sql} AS victim, max({name}) AS victim_name,
            {WHAT} AS what,
            CASE WHEN {QUOTA} THEN coalesce(culprit_cgroup, cgroup)
              WHEN culprit_tid <> 0 THEN culprit_{victim.name}::VARCHAR END AS culprit,
            CASE WHEN {QUOTA} THEN max(coalesce(culprit_cgroup, cgroup))
              WHEN bool_or(culprit_tid <> 0) THEN max(culprit_{name}) END AS culprit_name,
            CASE WHEN {QUOTA} OR culprit_tid IS NULL THEN 'none' ELSE {REMAINDER} END AS other,
            count(*) AS waits,
            sum(CASE WHEN {QUOTA} OR culprit_tid IS NULL THEN {LENGTH}
              ELSE {_held(ran)} END)::BIGINT AS held,
            sum({LENGTH})::BIGINT AS total,
            count(*) FILTER (WHERE {ran} < {LENGTH}) AS other_waits,
            count(*) FILTER (WHERE {_PARTIAL}) AS partial,
            count(*) FILTER (WHERE {_PARTIAL} AND {ran} < {LENGTH})
              AS other_partial
          FROM {tables((victim, *selection.dimensions), "blamed")} WHERE {condition}
          GROUP BY {victim.sql}, what, culprit, other, {QUOTA}
        ), cells AS (
          SELECT victim, victim_name, what, culprit, culprit_name, waits, held AS wait_ns, partial
          FROM parts
          UNION ALL
          SELECT victim, victim_name, other, NULL, NULL, other_waits, total - held, other_partial
          FROM parts WHERE total > held
        ), summed AS (
          SELECT victim, max(victim_name) AS victim_name, what, culprit,
            max(culprit_name) AS culprit_name, sum(waits)::BIGINT AS waits,
            sum(wait_ns)::BIGINT AS wait_ns, sum(partial)::BIGINT AS partial
          FROM cells GROUP BY victim, what, culprit
        )
        SELECT *, sum(waits) OVER ()::BIGINT AS all_waits, sum(wait_ns) OVER ()::BIGINT AS all_ns,
          sum(partial) OVER ()::BIGINT AS all_partial
        FROM summed ORDER BY wait_ns DESC, waits DESC, victim, what, culprit LIMIT ?
        """,
        [*parameters, limit],
    )


def _whole(trace: Trace, selection: Selection) -> dict[str, int]:
    condition, parameters = selection.where()
    whole: dict[str, int] = trace.sql(
        f"SELECT count(*) AS waits, count(*) FILTER (WHERE {_PARTIAL}) AS partial "
        f"FROM {tables(selection.dimensions)} WHERE {condition}",
        parameters,
    ).to_pylist()[0]
    return whole


def _notes(trace: Trace) -> tuple[str, ...]:
    notes = all_notes(trace)
    if threshold := min_latency_ns(trace):
        notes.append(f"only waits of {format_duration(threshold)} or more were kept")
    return tuple(notes)
