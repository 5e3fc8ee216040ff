"""Buckets of traces: against an MD5 of hashlib's, and pandas."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from sltrace.analysis.bucket import parse_bucket
from sltrace.analysis.diff import diff
from sltrace.analysis.distributions import distributions
from sltrace.analysis.selection import Selection
from sltrace.analysis.sides import in_bucket
from sltrace.errors import UsageError
from sltrace.trace.reader import Trace
from tests.pure.test_analysis_latency import random_waits
from tests.pure.test_diff import RUNQ, assert_figures, expected, open_trace
from tests.support.traces import make_trace


def md5_head(text: str) -> int:
    return int.from_bytes(hashlib.md5(text.encode()).digest()[:8], "big")


def test_a_bucket_is_a_part_of_the_traces(tmp_path: Path) -> None:
    frame = random_waits(27, 3000)
    rng = np.random.default_rng(1)
    ids = np.array([f"{i:032x}" for i in rng.integers(0, 2**62, 200)] + [None], dtype=object)
    frame["trace_id"] = ids[rng.integers(0, 201, len(frame))]
    trace = open_trace(tmp_path, frame)
    result = diff(in_bucket(trace, parse_bucket("hash(trace_id) % 100 < 15"), Selection()), [])
    known = frame[frame["trace_id"].notna()]
    inside = known["trace_id"].map(lambda i: md5_head(i) % 100 < 15)
    assert 10 < known[inside]["trace_id"].nunique() < 50
    assert result.per == "trace"
    assert (result.a.size, result.b.size) == (
        known[~inside]["trace_id"].nunique(),
        known[inside]["trace_id"].nunique(),
    )
    runq = known["kind"].isin(RUNQ)
    assert_figures(
        result.classes["runq"],
        expected(known[runq & ~inside], result.a.size),
        expected(known[runq & inside], result.b.size),
    )


def test_every_table_divides_by_the_same_traces(tmp_path: Path) -> None:
    """A run-queue wait of 1 ms is in nine tenths of A's traces, and in one tenth of B's."""
    bucket = parse_bucket("hash(trace_id) % 2 = 1")
    ids = [f"{i:032x}" for i in range(1, 2001)]
    rows = []
    for i, trace_id in enumerate(ids):
        in_b = md5_head(trace_id) % 2 == 1
        own = {"trace_id": trace_id, "end_ns": (i + 1) * 5_000_000, "cgroup": "/w"}
        rows.append({**own, "kind": "blocked", "wait_ns": 2_000_000})
        if i % 10 < (1 if in_b else 9):
            rows.append({**own, "kind": "runq_wakeup", "wait_ns": 1_000_000})
    trace = Trace.open(make_trace(tmp_path, rows))
    sides = in_bucket(trace, bucket, Selection())
    result = diff(sides, ["kind", "cgroup", "comm"])
    (total,) = (c for c in result.classes["runq"] if c.name == "total_ns")
    assert total.a == pytest.approx(900_000, rel=0.02)
    assert total.b == pytest.approx(100_000, rel=0.2)
    by = {groups.by: {c.name: c for c in groups.changes} for groups in result.groups}
    for change in (by["kind"]["runq_wakeup"], by["cgroup"]["/w"], by["comm"]["web"]):
        assert (change.a, change.b) == (total.a, total.b)
        assert change.certain
        assert (change.low, change.high) == pytest.approx((total.low, total.high), rel=0.1)
    # The curves begin with all waits.
    (curve,) = distributions(sides, ["runq"]).values()
    (waits,) = (c for c in result.classes["runq"] if c.name == "waits")
    assert (curve.a.value[0], curve.b.value[0]) == pytest.approx((waits.a, waits.b))


@pytest.mark.parametrize(
    "text",
    [
        "hash(trace_id) % 100 < 15",
        "hash(tid)%7==3",
        "hash(tid) % 7 = 0",
        "hash(comm) % 2 != 1",
        "hash(cgroup) % 3 >= 1",
        "hash(pid) % 4 > 2",
        "hash(span_id) % 10 <= 8",
    ],
)
def test_bucket_and_others_are_everything_known(tmp_path: Path, text: str) -> None:
    frame = random_waits(28, 500)
    trace = open_trace(tmp_path, frame)
    bucket = parse_bucket(text)
    masks = []
    for part in (bucket, bucket.others()):
        condition, parameters = Selection(bucket=part).where()
        rows = trace.sql(f"SELECT {bucket.column} AS v FROM waits WHERE {condition}", parameters)
        masks.append(rows["v"].to_pylist())
    values = frame[bucket.column].dropna().map(str)
    number = values.map(md5_head) % bucket.modulus
    wanted = {
        "<": number < bucket.limit,
        "<=": number <= bucket.limit,
        ">": number > bucket.limit,
        ">=": number >= bucket.limit,
        "==": number == bucket.limit,
        "!=": number != bucket.limit,
    }[bucket.operator]
    assert sorted(map(str, masks[0])) == sorted(values[wanted])
    assert sorted(map(str, masks[1])) == sorted(values[~wanted])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a bucket"),
        ("hash(trace_id) % 100 < 15; DROP TABLE waits", "is not a bucket"),
        ("hash(trace_id) % 100 < 15 OR true", "is not a bucket"),
        ("trace_id = 'x'", "is not a bucket"),
        ("hash(wait_ns) % 2 = 0", "cannot hash 'wait_ns'"),
        ("hash(trace_id) % 0 < 1", "does not split"),
        ("hash(trace_id) % 100 < 0", "does not split"),
        ("hash(trace_id) % 100 < 100", "does not split"),
        ("hash(trace_id) % 100 == 100", "does not split"),
        ("hash(trace_id) % 100 >= 0", "does not split"),
        ("hash(trace_id) % 1 = 0", "does not split"),
    ],
)
def test_a_bad_bucket_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_bucket(text)
