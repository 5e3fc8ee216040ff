"""The two sides of a comparison: two traces, or two parts of one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from sltrace.analysis.bucket import Bucket
from sltrace.analysis.meta import clock_ns, hosts, machines_of, min_latency_ns, recorded_ns
from sltrace.analysis.selection import EVERYTHING, Dimension, Selection, Value, tables
from sltrace.errors import UsageError

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

Per = Literal["second", "trace"]
"""What times and counts are divided by, so that sides of different size can be compared."""


@dataclass(frozen=True)
class Side:
    """One side.

    Attributes:
        name: For people.
        trace: Where from.
        selection: Its waits.
        per: What its times are divided by.
        counted: Waits whose traces those are, of which the selection may be narrowed to some; None
            where times are per second.
    """

    name: str
    trace: Trace
    selection: Selection
    per: Per = "second"
    counted: Selection | None = None

    @cached_property
    def start_ns(self) -> int:
        """When it begins (CLOCK_MONOTONIC of its trace)."""
        return max(clock_ns(self.trace, "start_ns"), self.selection.start_ns or 0)

    @cached_property
    def span_ns(self) -> int:
        """How long it is, at least 1."""
        end = clock_ns(self.trace, "end_ns")
        if self.selection.end_ns is not None:
            end = min(end, self.selection.end_ns)
        return max(1, end - self.start_ns)

    @cached_property
    def recorded_ns(self) -> int:
        """How much of it was recorded: a merged trace has gaps, its machines times of their own."""
        return self.recorded_within(self.start_ns, self.start_ns + self.span_ns)

    def recorded_within(self, start_ns: int, end_ns: int) -> int:
        """How much was recorded of the machines that it is of, from one time to another."""
        machines = machines_of(self.trace, self.selection.values)
        return recorded_ns(self.trace, start_ns, end_ns, machines)

    def timed(self, dimension: Dimension, value: Value) -> Side:
        """What waits with a value are to be divided by the size of.

        Of a merged trace a cgroup, process or CPU is one machine's, which has a time of its own.
        """
        if self.per == "trace" or not self._of_machines:
            return self
        values = {**self.selection.values, dimension.name: (value,)}
        return replace(self, selection=replace(self.selection, values=values))

    @cached_property
    def _of_machines(self) -> bool:
        return len(hosts(self.trace)) > 1

    @cached_property
    def size(self) -> float:
        """Its recorded seconds, or how many traces it has; 1 for none."""
        if self.per == "second":
            return max(1, self.recorded_ns) / 1e9
        return float(self.traces or 1)

    @cached_property
    def traces(self) -> int:
        """How many traces it is divided by."""
        of = self.counted or self.selection
        condition, parameters = of.where()
        count: int = self.trace.sql(
            f"SELECT count(DISTINCT trace_id) AS n FROM {tables(of.dimensions)} WHERE {condition}",
            parameters,
        )["n"][0].as_py()
        return count

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "name": self.name,
            "trace": str(self.trace.path),
            "seconds": self.recorded_ns / 1e9,
            "per": self.per,
            "size": self.size,
        }


def two_traces(
    a: Trace,
    b: Trace,
    of_a: Selection = EVERYTHING,
    of_b: Selection = EVERYTHING,
    names: tuple[str, str] | None = None,
) -> tuple[Side, Side]:
    """Two traces, or one twice, with a selection for each; called by their files, or `names`."""
    names = names or (a.path.name, b.path.name)
    return _comparable(Side(names[0], a, of_a), Side(names[1], b, of_b))


def before_and_after(trace: Trace, at_ns: int, selection: Selection) -> tuple[Side, Side]:
    """One trace, cut at a time.

    Args:
        trace: Where from.
        at_ns: How long after its start; waits that ended then or later are B.
        selection: Waits of both sides; has no times of its own.

    Raises:
        UsageError: The time is not within the recording.
    """
    start, end = clock_ns(trace, "start_ns"), clock_ns(trace, "end_ns")
    if not 0 < at_ns < end - start:
        raise UsageError(
            f"the recording is {(end - start) / 1e9:.1f} s long",
            "cut it at a time within that, as --at 2s",
        )
    at = start + at_ns
    cut = f"{at_ns / 1e9:g} s"
    return _comparable(
        Side(f"before {cut}", trace, replace(selection, end_ns=at)),
        Side(f"after {cut}", trace, replace(selection, start_ns=at)),
    )


def in_bucket(trace: Trace, bucket: Bucket, selection: Selection) -> tuple[Side, Side]:
    """One trace: what is outside a bucket, and what is in it."""
    per: Per = "trace" if bucket.column == "trace_id" else "second"
    others = bucket.others()
    a, b = _comparable(
        Side(str(others), trace, replace(selection, bucket=others), per),
        Side(str(bucket), trace, replace(selection, bucket=bucket), per),
    )
    if per == "second":
        return a, b
    return replace(a, counted=a.selection), replace(b, counted=b.selection)


def _comparable(a: Side, b: Side) -> tuple[Side, Side]:
    """Leaves out waits that only one side could have kept."""
    for side in (a, b):
        if side.trace.meta.get("histogram_only"):
            raise UsageError(
                f"{side.trace.path} has histograms only, no waits to compare",
                "record again without --histogram-only",
            )
    shortest = max(min_latency_ns(a.trace), min_latency_ns(b.trace))
    if not shortest:
        return a, b
    parts = (replace(s, selection=_at_least(s.selection, shortest)) for s in (a, b))
    return next(parts), next(parts)


def _at_least(selection: Selection, shortest: int) -> Selection:
    return replace(selection, min_wait_ns=max(shortest, selection.min_wait_ns or 0))
