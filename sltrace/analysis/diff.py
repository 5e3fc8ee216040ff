"""What is slower in one part of the waits than in another, and how sure that is (`sltrace diff`).

Counts and times are per second of each side (or per trace, where traces were split), percentiles
are exact, and each difference has an interval from `sltrace.analysis.confidence`.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from sltrace.analysis.blame import BLAMED_KINDS
from sltrace.analysis.blocks import block_sizes, by_block, of_class, side_blocks
from sltrace.analysis.confidence import (
    FEWEST_BLOCKS,
    LEVEL,
    RESOLUTION,
    SHORTEST_BLOCK_NS,
    Blocks,
    Redrawn,
    Spread,
    blocks_of,
)
from sltrace.analysis.latency import stat
from sltrace.analysis.looked import PYTHON_KINDS, ended_early, takes_part
from sltrace.analysis.losses import Losses, losses
from sltrace.analysis.meta import clock_ns, limited_alike, min_latency_ns
from sltrace.analysis.ranges import QUANTILES, Group
from sltrace.analysis.selection import Dimension, Value, dimensions, tables
from sltrace.analysis.sides import Per, Side
from sltrace.analysis.together import not_together
from sltrace.durations import format_duration
from sltrace.model import GO_PROBE_KINDS, RUNQ, Kind

BY = ("kind", "cgroup", "comm")
"""Dimensions whose groups are compared by default."""


@dataclass(frozen=True)
class Change:
    """One figure on both sides.

    Attributes:
        name: waits, total_ns, p50_ns ... max_ns; or the value of a dimension.
        a: On side A; None where it has no such waits.
        b: On side B; likewise.
        low: B minus A is at least this, with a probability of LEVEL; None where that cannot be
            said: too short a recording, or too few waits.
        high: And at most this.
    """

    name: Value
    a: float | None
    b: float | None
    low: float | None = None
    high: float | None = None

    @property
    def difference(self) -> float | None:
        """B minus A."""
        return None if self.a is None or self.b is None else self.b - self.a

    @property
    def certain(self) -> bool:
        """The interval does not hold zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**asdict(self), "difference": self.difference, "certain": self.certain}


@dataclass(frozen=True)
class Groups:
    """What waited, by one dimension.

    Attributes:
        by: The dimension.
        changes: Waiting time (ns) per second or trace; largest difference first.
        rest: All others together; None where there are none.
        rest_groups: How many those are.
    """

    by: str
    changes: tuple[Change, ...]
    rest: Change | None
    rest_groups: int


@dataclass(frozen=True)
class Diff:
    """Two sides compared.

    Attributes:
        a: Side A.
        b: Side B.
        per: What waits and times are per.
        classes: By class (runq, and each other kind) its figures: waits and total_ns are per
            second or trace; percentiles and the longest are of single waits.
        groups: For each dimension, its values; of run-queue and throttled waits unless the
            selection names kinds.
        losses: What the sides may lack.
        notes: What must be said beside these numbers.
    """

    a: Side
    b: Side
    per: Per
    classes: dict[str, tuple[Change, ...]]
    groups: tuple[Groups, ...]
    losses: tuple[Losses, Losses]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; times in ns."""
        return {
            "a": self.a.to_json(),
            "b": self.b.to_json(),
            "per": self.per,
            "level": LEVEL,
            "classes": {n: [c.to_json() for c in cs] for n, cs in self.classes.items()},
            "groups": [
                {
                    "by": g.by,
                    "changes": [c.to_json() for c in g.changes],
                    "rest": g.rest and g.rest.to_json(),
                    "rest_groups": g.rest_groups,
                }
                for g in self.groups
            ],
            "losses": [lost.to_json() for lost in self.losses],
            "notes": list(self.notes),
        }


def diff(sides: tuple[Side, Side], by: Sequence[str] = BY, *, limit: int = 20) -> Diff:
    """Compares two sides.

    Args:
        sides: A and B, from `sltrace.analysis.sides`.
        by: Dimensions whose values to compare.
        limit: Values of each, those with the largest difference; the others are summed.

    Raises:
        UsageError: An unknown dimension.
        TraceError: A side does not say how long it is.
    """
    wanted = dimensions(by)
    a, b = sides
    for side in sides:
        if not clock_ns(side.trace, "end_ns"):
            raise side.trace.damaged("it does not say when it was recorded")
    totals = [_totals(side) for side in sides]
    names = sorted({*totals[0], *totals[1]}, key=lambda name: (name != RUNQ, name))
    return Diff(
        a=a,
        b=b,
        per=a.per,
        classes={name: _class(sides, name, [t.get(name) for t in totals]) for name in names},
        groups=tuple(_groups(sides, dimension, limit) for dimension in wanted),
        losses=(losses(a.trace, a.selection), losses(b.trace, b.selection)),
        notes=_notes(sides, names),
    )


def _totals(side: Side) -> dict[str, Group]:
    kept_only = not side.trace.meta.get("histogram_only")
    return stat(side.trace, (), side.selection, kept_only=kept_only).totals


def _class(
    sides: tuple[Side, Side], name: str, totals: Sequence[Group | None]
) -> tuple[Change, ...]:
    redrawn = Redrawn(*(side_blocks(of_class(side, name)) for side in sides))
    spreads = [redrawn.count(), *redrawn.totals(), *redrawn.quantiles([q for _, q in QUANTILES])]
    names = ["waits", "total_ns", *(f"{n}_ns" for n, _ in QUANTILES), "max_ns"]
    figures = [_figures(group, side.size) for group, side in zip(totals, sides, strict=True)]
    if not _comparable(sides, name):
        spreads[:2] = [None, None]
    return tuple(
        _change(n, x, y, spread)
        for n, x, y, spread in zip(names, *figures, [*spreads, None], strict=True)
    )


def _comparable(sides: tuple[Side, Side], name: Value) -> bool:
    """Whether counts and totals of a kind are of all there were, or of like parts on both sides."""
    return (
        limited_alike(*(side.trace for side in sides))
        and (name not in GO_PROBE_KINDS or _probed_alike(sides))
        and (name not in PYTHON_KINDS or _python_alike(sides))
        and (name != Kind.BLOCKED.label or _blocked_alike(sides))
    )


def _probed_alike(sides: tuple[Side, Side]) -> bool:
    a, b = (
        # As text: a damaged trace may have anything there.
        {str((go.get("level_asked_for"), go.get("sampled"))) for go in side.trace.sources("go")}
        for side in sides
    )
    return a == b and not any(
        side.trace.looked_in_part or ended_early(side.trace, [Kind.GOROUTINE.label])
        for side in sides
    )


def _python_alike(sides: tuple[Side, Side]) -> bool:
    a, b = (takes_part(side.trace, "python") for side in sides)
    return a == b and not any(ended_early(side.trace, [Kind.GIL.label]) for side in sides)


def _blocked_alike(sides: tuple[Side, Side]) -> bool:
    a, b = (side.trace.meta.get("blocked") is False for side in sides)
    return a == b


def _figures(group: Group | None, size: float) -> list[float | None]:
    if group is None:
        return [0.0, 0.0, *[None] * (len(QUANTILES) + 1)]
    singles = [r.low_ns for r in (*group.quantiles, group.longest)]
    return [group.count / size, group.total_ns / size, *map(float, singles)]


def _change(name: Value, a: float | None, b: float | None, spread: Spread | None) -> Change:
    if spread is None or a is None or b is None:
        return Change(name, a, b)
    least = RESOLUTION * max(a, b)
    offsets = min(spread.low, -least), max(spread.high, least)
    return Change(name, a, b, *(b - a + offset for offset in offsets))


def _groups(sides: tuple[Side, Side], dimension: Dimension, limit: int) -> Groups:
    kinds: Sequence[Value] = BLAMED_KINDS
    if dimension.name != "kind":
        a, b = (replace(s, selection=s.selection.with_kinds(kinds)) for s in sides)
        sides = (a, b)
    sums = [_sums(side, dimension) for side in sides]
    keys = sorted(
        {*sums[0], *sums[1]},
        key=lambda k: (-abs(sums[1].get(k, 0) - sums[0].get(k, 0)), str(k)),
    )
    shown, others = keys[:limit], keys[limit:]
    # Each side's own: it may be selected by this dimension.
    blocks = (
        _group_blocks(side, dimension, shown, own) for side, own in zip(sides, sums, strict=True)
    )
    spreads = Redrawn(*blocks).totals()
    rest = [sum(s.get(k, 0) for k in others) for s in sums]
    return Groups(
        by=dimension.name,
        changes=tuple(
            _change(
                key,
                sums[0].get(key, 0),
                sums[1].get(key, 0),
                spread if _judged(sides, dimension, key) else None,
            )
            for key, spread in zip(shown, spreads, strict=True)
        ),
        rest=Change(None, rest[0], rest[1]) if others else None,
        rest_groups=len(others),
    )


def _judged(sides: tuple[Side, Side], dimension: Dimension, key: Value) -> bool:
    """Whether a group's total is of like parts of the waits on both sides."""
    kinds = (
        [key] if dimension.name == "kind" else [k for s in sides for k in s.selection.kinds or ()]
    )
    return all(_comparable(sides, kind) for kind in kinds)


def _sums(side: Side, dimension: Dimension) -> dict[Value, float]:
    condition, parameters = side.selection.where()
    rows = side.trace.sql(
        f"SELECT {dimension.sql} AS k, sum(wait_ns)::DOUBLE AS total "
        f"FROM {tables((dimension, *side.selection.dimensions))} WHERE {condition} GROUP BY k",
        parameters,
    ).to_pylist()
    return {row["k"]: row["total"] / side.timed(dimension, row["k"]).size for row in rows}


def _group_blocks(
    side: Side, dimension: Dimension, keys: Sequence[Value], own: Container[Value]
) -> Blocks:
    count = blocks_of(side.span_ns)
    values = {**side.selection.values, dimension.name: tuple(k for k in keys if k in own)}
    narrowed = replace(side, selection=replace(side.selection, values=values))
    index = {key: i for i, key in enumerate(keys)}
    totals = np.zeros((count, len(keys)))
    counts = np.zeros((count, 1))
    for row in by_block(narrowed, f"{dimension.sql} AS k", count, (dimension,)):
        totals[row["block"], index[row["k"]]] = row["total"]
        counts[row["block"], 0] += row["n"]
    sizes, timed = block_sizes(side, count), [side.timed(dimension, key) for key in keys]
    each = [sizes if own is side else block_sizes(own, count) for own in timed]
    return Blocks(counts, totals, np.array(each).reshape(-1, count).T)


def _side_notes(side: Side) -> list[str]:
    apart = not_together(side.trace, side.selection.values) if side.per == "second" else ""
    return [*side.trace.notes, *filter(None, [apart])]


def _notes(sides: tuple[Side, Side], classes: Container[str]) -> tuple[str, ...]:
    notes = []
    a, b = map(_side_notes, sides)
    notes += [f"A and B: {note}" if note in b else f"A: {note}" for note in a]
    notes += [f"B: {note}" for note in b if note not in a]
    if not limited_alike(*(side.trace for side in sides)):
        notes.append(
            "the sides were not limited to the same (--pid, --cgroup, --comm, --cpu, --policy): "
            "nothing is said of how numbers and totals changed"
        )
    if any(kind in classes for kind in GO_PROBE_KINDS) and not _probed_alike(sides):
        notes.append(
            "waits of goroutines and stopped worlds were not looked for in the same way and for as "
            "long on both sides: nothing is said of how their number and total changed"
        )
    if any(kind in classes for kind in PYTHON_KINDS) and not _python_alike(sides):
        notes.append(
            "Python processes were not looked into on both sides to the end: nothing is said of "
            f"how the number and total of {', '.join(sorted(PYTHON_KINDS))} changed"
        )
    if Kind.BLOCKED.label in classes and not _blocked_alike(sides):
        notes.append(
            "one side was recorded with --no-blocked: nothing is said of how the number and total "
            "of blocked changed"
        )
    if shortest := max(min_latency_ns(s.trace) for s in sides):
        notes.append(f"only waits of {format_duration(shortest)} or more are compared")
    if min(blocks_of(s.span_ns) for s in sides) < FEWEST_BLOCKS:
        shortest_s = FEWEST_BLOCKS * SHORTEST_BLOCK_NS / 1e9
        notes.append(f"a side is shorter than {shortest_s:g} s: no confidence intervals")
    return tuple(notes)
