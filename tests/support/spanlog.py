"""A service's own log of which thread was in which span when, against what a trace says."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from sltrace.trace.reader import Trace


@dataclass
class Checked:
    """Waits that began within a logged interval."""

    right: int = 0
    wrong: int = 0
    missing: int = 0
    outside: int = 0


def checked(trace: Trace, log: Path) -> Checked:
    """Compares the ids of waits with a log of lines `tid begin end trace_id span_id`."""
    intervals: dict[int, list[tuple[int, int, str | None, str | None]]] = defaultdict(list)
    for line in log.read_text().splitlines():
        tid, begin, end, trace_id, span_id = line.split()
        ids = (None, None) if trace_id == "-" else (trace_id, span_id)
        intervals[int(tid)].append((int(begin), int(end), *ids))
    for known in intervals.values():
        known.sort()
    rows = trace.sql(
        "SELECT tid, end_ns - wait_ns AS began, trace_id, span_id, id_source FROM waits "
        "WHERE kind IN ('blocked', 'runq_preempt') AND stack_runtime IS NOT NULL"
    ).to_pylist()
    found = Checked()
    for row in rows:
        known = intervals.get(row["tid"], [])
        at = bisect_right(known, row["began"], key=lambda i: i[0]) - 1
        if at < 0 or known[at][1] < row["began"]:
            continue
        said = row["trace_id"], row["span_id"]
        if said == known[at][2:]:
            found.right += said[0] is not None
            found.outside += said[0] is None
            assert (row["id_source"] is None) == (said[0] is None)
        elif said == (None, None):
            found.missing += 1
        else:
            found.wrong += 1
    return found
