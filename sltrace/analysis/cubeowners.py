"""Which trace, and when, a labelled sample of a profile belongs to, as the recording saw it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sltrace.analysis.cubedata import Owner
from sltrace.analysis.selection import LENGTH
from sltrace.model import COMM_BYTES, OTHERS
from sltrace.profiles.labels import Labels

if TYPE_CHECKING:
    from sltrace.analysis.cubedata import Cube
    from sltrace.trace.reader import Trace

_WANTED = "sltrace_wanted_owners"


class Owners:
    """Owners of labels, looked up in a whole recording for all of them at once.

    A trace is named by its id; or by a span that only it has; or by a goroutine that waited for
    nothing else. A thread is named by its name, or by an id that had one name only.
    """

    def __init__(self, trace: Trace, labels: Iterable[Labels]) -> None:
        distinct = {label for label in labels if label}
        found = _Lookup(trace, not trace.meta.get("histogram_only"))
        one_trace = "count(DISTINCT trace_id) = 1 AND bool_and(trace_id <> '')"
        self._of_span = found.by(
            "span_id", "any_value(trace_id)", [x.span_id for x in distinct], one_trace
        )
        self._of_goroutine = found.by(
            "goid::VARCHAR",
            "any_value(trace_id)",
            [x.goroutine for x in distinct],
            f"{one_trace} AND count(trace_id) = count(*) AND count(DISTINCT pid) = 1",
        )
        self._of_tid = found.by(
            "tid::VARCHAR", "any_value(comm)", [x.tid for x in distinct], "count(DISTINCT comm) = 1"
        )
        ids = {self._trace_id(x) for x in distinct} - {""}
        times = f"[min(end_ns - {LENGTH}), max(end_ns)]"
        self._times = found.by("trace_id", times, sorted(ids), "count(end_ns) > 0")
        self._distinct = distinct

    def of(self, cube: Cube) -> dict[Labels, Owner]:
        """By labels, as numbers and times of a cube; labels that name nobody are left out."""
        slow = {t.trace_id: i for i, t in enumerate(cube.slow_traces.traces)}
        buckets = {name: i for i, name in enumerate(cube.buckets)}
        comms = {name: i for i, name in enumerate(cube.comms)}
        found = {}
        for labels in self._distinct:
            trace_id = self._trace_id(labels)
            start, end = self.times(labels) or (None, None)
            found[labels] = Owner(
                trace=slow.get(trace_id, -1),
                bucket=buckets.get(f"ids ending in {trace_id[-1:]}", -1),
                comm=self._comm(labels, comms, len(cube.comms)),
                start_ns=-1 if start is None else max(0, start - cube.start_ns),
                end_ns=-1 if end is None else max(0, end - cube.start_ns),
                traced=bool(trace_id),
            )
        return found

    def times(self, labels: Labels) -> tuple[int, int] | None:
        """When the trace first and last waited (CLOCK_MONOTONIC); None if it never did."""
        return self._times.get(self._trace_id(labels))

    def _trace_id(self, labels: Labels) -> str:
        return str(
            labels.trace_id
            or self._of_span.get(labels.span_id)
            or self._of_goroutine.get(labels.goroutine)
            or ""
        )

    def _comm(self, labels: Labels, comms: dict[str, int], none: int) -> int:
        name = labels.thread or self._of_tid.get(labels.tid) or ""
        cut = name.encode("utf-8", "replace")[:COMM_BYTES].decode("utf-8", "replace")
        others = comms.get(OTHERS, none)
        return comms.get(name, comms.get(cut, others)) if name else -1


class _Lookup:
    def __init__(self, trace: Trace, possible: bool) -> None:
        self._trace = trace
        self._possible = possible

    def by(self, key: str, value: str, wanted: Sequence[str], sure: str) -> dict[str, Any]:
        """Values by key, of the wanted keys that are sure."""
        keys = sorted({k for k in wanted if k})
        if not keys or not self._possible:
            return {}
        table = pa.table({"wanted": pa.array(keys, pa.string())})
        with self._trace.registered((_WANTED, table)):
            rows = self._trace.sql(
                f"SELECT wanted, {value} AS found FROM waits JOIN {_WANTED} ON {key} = wanted "
                f"GROUP BY wanted HAVING {sure}"
            ).to_pylist()
        return {row["wanted"]: row["found"] for row in rows}
