"""The axes of a cube in SQL, and what their digits stand for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from sltrace.analysis.cells import OTHER, Axis, bucket_sql
from sltrace.analysis.cubestacks import NO_STACK, RankedStacks
from sltrace.analysis.meta import clock_ns
from sltrace.analysis.selection import DIMENSIONS, LENGTH, tables
from sltrace.analysis.stacks import PARTS
from sltrace.buckets import N_BUCKETS, lower_bounds
from sltrace.model import OTHERS

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

ALL_CPUS = 1 << 16
"""More CPUs than any machine has: a group of so many is all of them."""

_BOUNDS = "sltrace_cube_bounds"
_MAX_NAMES = 2000

_SCALE = "sltrace_cube_scale"
_HISTOGRAM = "start_ns, cgroup_id, policy, kind"
"""What tells histograms apart."""


@dataclass(frozen=True)
class Origin:
    """Where a cube's waits come from, and when they were.

    Attributes:
        source: Table.
        start_ns: Start of time bin 0 (CLOCK_MONOTONIC).
        end_ns: End of the recording, or of the last wait if that is later.
        bin_ns: Length of a time bin.
        bins: How many.
        policies_missing: Waits of runtimes are among them, which have no policy of their own.
    """

    source: Literal["waits", "histograms"]
    start_ns: int
    end_ns: int
    bin_ns: int
    bins: int
    policies_missing: bool = False

    @classmethod
    def of(cls, trace: Trace, bins: int) -> Origin:
        """Of a whole trace, in `bins` time bins at most."""
        source: Literal["waits", "histograms"] = (
            "histograms" if trace.meta.get("histogram_only") else "waits"
        )
        # A histogram is of a second or so: finer bins would have its waits in the middle only.
        finest = "max(end_ns - start_ns)" if source == "histograms" else "1"
        (seen,) = trace.sql(
            f"SELECT min(end_ns) AS low, max(end_ns) AS high, {finest} AS finest FROM {source}"
        ).to_pylist()
        low, high = seen["low"], seen["high"]
        start, end = clock_ns(trace, "start_ns"), clock_ns(trace, "end_ns")
        if low is not None:
            start, end = min(start or low, low), max(end, high)
        end = max(end, start + 1)
        bin_ns = max(1, -(-(end - start) // bins), seen["finest"] or 1)
        missing = source == "waits" and bool(
            trace.sql("SELECT 1 AS one FROM waits WHERE policy IS NULL LIMIT 1").num_rows
        )
        return cls(source, start, end, bin_ns, -(-(end - start) // bin_ns), missing)

    @property
    def sql(self) -> str:
        """The waits as rows of n, ns, longest, when_ns, b (bucket) and the columns of waits.

        Of histograms each bucket is a row: its middle stands for the waits in it, in such a
        proportion that a histogram has the total that was recorded with it.
        """
        if self.source == "waits":
            return (
                f"(SELECT *, 1 AS n, {LENGTH} AS ns, {LENGTH} AS longest, "
                f"coalesce(end_ns, {self.start_ns}) AS when_ns, {bucket_sql(LENGTH)} AS b "
                f"FROM {self._waits})"
            )
        return (
            "(SELECT *, round(n * middle)::BIGINT AS ns, floor(middle)::BIGINT AS longest FROM "
            "(SELECT h.*, '' AS comm, 0 AS cpu, h.count AS n, h.bucket AS b, "
            "m.middle * coalesce(scale, 1) AS middle, (start_ns + end_ns) // 2 AS when_ns "
            f"FROM histograms h JOIN {_BOUNDS} m USING (bucket) "
            f"LEFT JOIN {_SCALE} USING ({_HISTOGRAM})))"
        )

    @property
    def _waits(self) -> str:
        if not self.policies_missing:
            return "waits"
        policy = DIMENSIONS["policy"]
        return f"(SELECT * REPLACE ({policy.sql} AS policy) FROM {tables((policy,))})"

    @property
    def time(self) -> Axis:
        """Time bins."""
        bin_of = f"(when_ns - {self.start_ns}) // {self.bin_ns}"
        return Axis("t", self.bins, f"least(greatest({bin_of}, 0), {self.bins - 1})")


BUCKETS = Axis("b", N_BUCKETS, "b")


def cpus(trace: Trace, origin: Origin) -> Axis:
    """CPUs by number."""
    if origin.source != "waits":
        return Axis("cpu", 1, "0")
    (row,) = trace.sql("SELECT max(cpu) AS most FROM waits").to_pylist()
    return Axis("cpu", (row["most"] or 0) + 1, "coalesce(cpu, 0)")


@dataclass(frozen=True)
class Named:
    """A column of names as an axis: rank 0 is all others, 1 the name with the most time.

    Attributes:
        axis: For the grid.
        names: By rank.
        join: What the FROM clause needs for it.
        table: The ranks, under the name that `join` uses.
    """

    axis: Axis
    names: list[str]
    join: str
    table: tuple[str, pa.Table] = field(repr=False)


def named(trace: Trace, source: str, column: str, most: int = _MAX_NAMES) -> Named:
    """The names in a column with the most time; an unknown one is the empty name.

    Args:
        trace: Where from.
        source: FROM item with that column, n and ns.
        column: Its name.
        most: Names at most.
    """
    rows = trace.sql(
        f"SELECT coalesce({column}, '') AS name FROM {source} GROUP BY 1 "
        f"ORDER BY sum(ns) DESC, sum(n) DESC, 1 LIMIT {most}"
    )
    ranks = rows.append_column("rank", pa.array(range(1, rows.num_rows + 1), pa.int64()))
    table = f"sltrace_cube_{column}"
    return Named(
        Axis(column, rows.num_rows + 1, f"coalesce({table}.rank, {OTHER})", ranked=True),
        [OTHERS, *rows.column("name").to_pylist()],
        f"LEFT JOIN {table} ON coalesce(w.{column}, '') = {table}.name",
        (table, ranks),
    )


TRACE_BUCKETS = ["no trace id", *(f"ids ending in {digit}" for digit in "0123456789abcdef")]
"""What the ranks from 1 on of the axis of trace buckets stand for."""


_DIGIT = "strpos('0123456789abcdef', lower(right(trace_id, 1)))"
TRACE_BUCKET = Axis(
    "bucket",
    1 + len(TRACE_BUCKETS),
    f"CASE WHEN coalesce(trace_id, '') = '' THEN 1 ELSE 1 + {_DIGIT} END",
    ranked=True,
)
"""Traces by the last digit of their ids, which W3C Trace Context asks to be random."""


def any_trace_id(trace: Trace, origin: Origin) -> bool:
    """Whether any wait has one."""
    if origin.source != "waits":
        return False
    found = trace.sql("SELECT 1 AS one FROM waits WHERE trace_id <> '' LIMIT 1")
    return bool(found.num_rows)


def stack_axis(name: str, stacks: RankedStacks) -> tuple[Axis, str, tuple[str, pa.Table]]:
    """The axis of ranked stacks, its join and its table."""
    table = f"sltrace_cube_{name}"
    if not stacks.any:
        return Axis(name, NO_STACK + 1, str(NO_STACK), ranked=True), "", (table, stacks.ranks)
    parts = PARTS[stacks.which]
    nothing = " AND ".join(f"coalesce(w.{p}, 0) = 0" for p in parts)
    same = " AND ".join(f"coalesce(w.{p}, 0) = {table}.{p}" for p in parts)
    digit = f"CASE WHEN {nothing} THEN {NO_STACK} ELSE coalesce({table}.rank, {OTHER}) END"
    return (
        Axis(name, len(stacks.stacks), digit, ranked=True),
        f"LEFT JOIN {table} ON {same}",
        (table, stacks.ranks),
    )


@contextmanager
def beside(trace: Trace, origin: Origin) -> Iterator[None]:
    """What `Origin.sql` needs, for as long as the block runs."""
    if origin.source == "waits":
        yield
        return
    low = lower_bounds()
    top = np.append(low[1:] - 1, low[-1])
    table = pa.table({"bucket": np.arange(N_BUCKETS), "middle": (low + top + 1) // 2})
    # Of each histogram, how much longer its waits were than its buckets' middles are.
    middles = (
        f"SELECT {_HISTOGRAM}, sum(count * middle) / sum(count) AS mean "
        f"FROM histograms JOIN {_BOUNDS} USING (bucket) GROUP BY ALL"
    )
    exact = (
        f"SELECT {_HISTOGRAM}, sum(sum_ns) / sum(count) AS mean FROM histogram_sums GROUP BY ALL"
    )
    scale = (
        f"SELECT {_HISTOGRAM}, e.mean / nullif(m.mean, 0) AS scale "
        f"FROM ({middles}) m JOIN ({exact}) e USING ({_HISTOGRAM})"
    )
    with trace.registered((_BOUNDS, table)), trace.stored(_SCALE, scale):
        yield
