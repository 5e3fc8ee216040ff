"""How long waits were: counts, totals and percentiles by any dimensions (`sltrace stat`).

Percentiles are exact where every wait is a row. Where some are missing, they lie between what they
are with those at their shortest and at their longest. Of histograms only, or with a minimum
latency, they come from the exact in-kernel histograms, as the bucket they lie in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from sltrace.analysis.histograms import from_histograms
from sltrace.analysis.keptwaits import counts_by_bucket, lengths
from sltrace.analysis.losses import Losses, losses
from sltrace.analysis.meta import all_notes, min_latency_ns
from sltrace.analysis.missing import MissingWaits
from sltrace.analysis.ranges import QUANTILES, RANKED, Group, Range
from sltrace.analysis.ranks import Ranking, quantiles
from sltrace.analysis.selection import (
    CLASS,
    EVERYTHING,
    LENGTH,
    Dimension,
    Selection,
    Value,
    dimensions,
    tables,
)
from sltrace.durations import format_duration
from sltrace.errors import UsageError
from sltrace.model import RUNQ, RUNQ_KINDS, SCHEDULER, Flag

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

DEFINITION = (
    "a percentile is the shortest wait that at least that share of the waits do not exceed "
    "(nearest rank, SQL percentile_disc)"
)

Source = Literal["waits", "histograms"]


@dataclass(frozen=True)
class Rest:
    """Groups beyond the limit, added up."""

    groups: int
    count: int
    total_ns: int


@dataclass(frozen=True)
class Stat:
    """Latency by group.

    Attributes:
        by: The dimensions, in the order of each group's keys.
        source: `waits` (exact but for what is missing) or `histograms` (percentiles by bucket).
        kinds: Kinds the groups are about; None for every kind the trace has.
        groups: Most time first.
        rest: What is not among `groups`.
        totals: Over everything selected: `runq`, and each other kind apart.
        losses: What the selection may lack.
        notes: What must be said beside these numbers.
    """

    by: tuple[str, ...]
    source: Source
    kinds: tuple[Value, ...] | None
    groups: tuple[Group, ...]
    rest: Rest
    totals: dict[str, Group]
    losses: Losses
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; all times in ns."""
        return {
            "by": list(self.by),
            "source": self.source,
            "definition": DEFINITION,
            "kinds": None if self.kinds is None else list(self.kinds),
            "groups": [g.to_json(self.by) for g in self.groups],
            "rest": asdict(self.rest),
            "totals": {name: g.to_json(()) for name, g in self.totals.items()},
            "losses": self.losses.to_json(),
            "notes": list(self.notes),
        }


def stat(
    trace: Trace,
    by: Sequence[str] = ("kind",),
    selection: Selection = EVERYTHING,
    *,
    limit: int | None = None,
    kept_only: bool = False,
    coarse: bool = False,
) -> Stat:
    """Groups waits and measures each group.

    Args:
        trace: Where from.
        by: Dimensions. Unless `kind` is one of them or the selection names kinds, the groups are
            of run-queue latency: runq_wakeup and runq_preempt.
        selection: Waits to look at.
        limit: Groups to return; the others are added up in `rest`.
        kept_only: Only the waits that were kept as rows, without those that are missing, or of a
            trace with a minimum latency shorter ones.
        coarse: From the histograms alone, of which an hour is no more than a minute: percentiles
            of single waits take memory for each of them.

    Raises:
        UsageError: Unknown dimension, or one that a trace without all waits cannot tell.
    """
    wanted = dimensions(by)
    grouped = selection if "kind" in by else selection.with_kinds(RUNQ_KINDS)
    source: Source = "histograms" if coarse else _source(trace, kept_only)
    lost = losses(trace, selection)

    def missing(by: Sequence[Dimension], selection: Selection) -> MissingWaits:
        return MissingWaits(trace, by, selection, lost, in_histograms=source == "histograms")

    if source == "waits":
        groups, rest = _from_waits(trace, wanted, grouped, limit)
        in_class, _ = _from_waits(trace, (CLASS,), selection, None)
        if not kept_only:
            groups = _with_missing(trace, wanted, grouped, groups, missing(wanted, grouped))
            of_class = missing((CLASS,), selection)
            in_class = _with_missing(trace, (CLASS,), selection, in_class, of_class)
    else:
        refuse_beyond_histograms(trace, wanted, selection)
        kept = not (coarse or trace.meta.get("histogram_only"))
        all_groups, in_class = (
            from_histograms(trace, by, waits, missing=missing(by, waits), with_rows=kept)
            for by, waits in ((wanted, grouped), ((CLASS,), selection))
        )
        cut = len(all_groups) if limit is None else limit
        groups, rest = all_groups[:cut], _added_up(all_groups[cut:])
    return Stat(
        by=tuple(by),
        source=source,
        kinds=grouped.kinds,
        groups=tuple(groups),
        rest=rest,
        totals=_unkeyed(in_class),
        losses=lost,
        notes=(*all_notes(trace), _between("percentiles")) if coarse else _notes(trace, source),
    )


def refuse_beyond_histograms(
    trace: Trace, wanted: Sequence[Dimension], selection: Selection
) -> None:
    """Raises UsageError if this needs more than the histograms know."""
    strange = [d.name for d in (*wanted, *selection.dimensions) if not d.in_histograms]
    bounds = (selection.start_ns, selection.end_ns, selection.min_wait_ns, selection.max_wait_ns)
    if not strange and bounds == (None,) * 4:
        return
    if trace.meta.get("histogram_only"):
        why = "this trace has histograms only (--histogram-only)"
        hint = "record again without --histogram-only"
    else:
        shortest = format_duration(min_latency_ns(trace))
        why = f"this trace has no waits under {shortest} (--min-latency)"
        hint = "add --kept to look at the waits it has"
    what = f"{', '.join(strange)} is" if strange else "a part of the time or of the waits is"
    raise UsageError(
        f"{why}: {what} unknown", f"use cgroup, policy, kind, container, pod or unit, or {hint}"
    )


def _source(trace: Trace, kept_only: bool) -> Source:
    if trace.meta.get("histogram_only"):
        if kept_only:
            raise UsageError("this trace has no single waits", "leave --kept out")
        return "histograms"
    return "histograms" if min_latency_ns(trace) > 0 and not kept_only else "waits"


def _from_waits(
    trace: Trace, by: Sequence[Dimension], selection: Selection, limit: int | None
) -> tuple[list[Group], Rest]:
    condition, parameters = selection.where()
    keys = "".join(f"{d.sql} AS k{i}, " for i, d in enumerate(by))
    group_by = f"GROUP BY {', '.join(f'k{i}' for i in range(len(by)))}" if by else ""
    order = "".join(f", k{i}" for i in range(len(by)))
    table = trace.sql(
        f"WITH g AS (SELECT {keys} count(*) AS n, sum({LENGTH})::BIGINT AS total, "
        # Decimal literals: the rank is computed in integers, so no rounding can move it.
        f"quantile_disc({LENGTH}, [{', '.join(str(q) for _, q in QUANTILES)}]) AS q, "
        f"max({LENGTH}) AS longest, "
        f"count(*) FILTER (WHERE flags & {int(Flag.CENSORED)} <> 0) AS censored "
        f"FROM {tables((*by, *selection.dimensions))} WHERE {condition} {group_by}) "
        "SELECT *, count(*) OVER () AS groups, sum(n) OVER ()::BIGINT AS all_n, "
        f"sum(total) OVER ()::BIGINT AS all_total FROM g WHERE n > 0 "
        f"ORDER BY total DESC, n DESC{order} LIMIT ?",
        [*parameters, limit],
    )
    rows = table.to_pylist()
    groups = [
        Group(
            keys=tuple(row[f"k{i}"] for i in range(len(by))),
            count=row["n"],
            total_ns=row["total"],
            quantiles=tuple(Range(q, q) for q in row["q"]),
            longest=Range(row["longest"], row["longest"]),
            censored=row["censored"],
        )
        for row in rows
    ]
    if not rows:
        return groups, Rest(0, 0, 0)
    first = rows[0]
    return groups, Rest(
        first["groups"] - len(groups),
        first["all_n"] - sum(g.count for g in groups),
        first["all_total"] - sum(g.total_ns for g in groups),
    )


def _with_missing(
    trace: Trace,
    by: Sequence[Dimension],
    selection: Selection,
    groups: Sequence[Group],
    missing: MissingWaits,
) -> list[Group]:
    """The groups of `_from_waits` with the percentiles between what the missing waits leave."""
    lacking = {}
    if missing.any:
        each = {group.keys: missing.of(group.keys) for group in groups}
        lacking = {keys: lacks for keys, lacks in each.items() if lacks.count}
    if not lacking:
        return list(groups)
    counts = counts_by_bucket(trace, by, selection, list(lacking))
    rankings = [Ranking(k, n, lacks) for (k, lacks), n in zip(lacking.items(), counts, strict=True)]
    found = quantiles(rankings, RANKED, partial(lengths, trace, by, selection))
    shortest, longest = selection.min_wait_ns, selection.max_wait_ns
    within = {
        ranking.keys: [r.within(shortest, longest) for r in ranges]
        for ranking, ranges in zip(rankings, found, strict=True)
    }
    return [
        replace(g, quantiles=tuple(within[g.keys][:-1]), longest=within[g.keys][-1])
        if g.keys in within
        else g
        for g in groups
    ]


def _unkeyed(groups: Sequence[Group]) -> dict[str, Group]:
    named = {str(g.keys[0]): replace(g, keys=()) for g in groups}
    return {name: named[name] for name in sorted(named, key=lambda n: (n != RUNQ, n))}


def _added_up(groups: Sequence[Group]) -> Rest:
    return Rest(len(groups), sum(g.count for g in groups), sum(g.total_ns for g in groups))


def _kinds_beside_histograms(trace: Trace) -> list[str]:
    """Kinds of runtimes, which the scheduler's histograms know nothing of."""
    rows = trace.sql("SELECT DISTINCT kind FROM waits ORDER BY kind")
    return [kind for kind in rows["kind"].to_pylist() if kind not in SCHEDULER]


def _between(which: str) -> str:
    return f"{which} are from histograms: each lies between the two values given"


def _notes(trace: Trace, source: Source) -> tuple[str, ...]:
    notes = all_notes(trace)
    if source == "histograms":
        which = "percentiles"
        threshold = min_latency_ns(trace)
        if threshold and not trace.meta.get("histogram_only"):
            which += f" under {format_duration(threshold)}, and where a wait is missing,"
        notes.append(_between(which))
        if beside := _kinds_beside_histograms(trace):
            shows = "" if trace.meta.get("histogram_only") else ": --kept shows those"
            notes.append(f"waits of kind {', '.join(beside)} are not in them{shows}")
    elif threshold := min_latency_ns(trace):
        notes.append(f"only waits of {format_duration(threshold)} or more were kept")
    return tuple(notes)
