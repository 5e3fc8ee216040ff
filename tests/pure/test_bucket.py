"""Buckets of traces: against an MD5 of hashlib's, and pandas."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from sltrace.analysis.bucket import parse_bucket
from sltrace.analysis.diff import diff
from sltrace.analysis.selection import Selection
from sltrace.analysis.sides import in_bucket
from sltrace.errors import UsageError
from tests.pure.test_analysis_latency import random_waits
from tests.pure.test_diff import RUNQ, assert_figures, expected, open_trace


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
