"""Percentiles where waits are missing: `stat` and `check` say the same limits, and they hold."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sltrace.analysis.bounds import measure
from sltrace.analysis.diff import diff
from sltrace.analysis.latency import stat
from sltrace.analysis.part import Whole
from sltrace.analysis.ranges import QUANTILES, Group, Range
from sltrace.analysis.rules import parse_rule
from sltrace.analysis.selection import Selection
from sltrace.analysis.sides import before_and_after
from sltrace.buckets import bucket_of
from sltrace.cli.answers import answer
from sltrace.trace.reader import Trace
from tests.pure.test_analysis_latency import histogram_tables, random_waits
from tests.support.cli import in_process
from tests.support.traces import SECOND, make_trace

FIGURES = {"p50": "p50", "p90": "p90", "p99": "p99", "p999": "p99.9", "max": "max"}


def missed_rows(seed: int, count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    lows = rng.lognormal(10, 2, count).astype(np.int64)
    return [
        # Threads 30 to 34 have no waits, CPU 4 no node.
        {"tid": int(rng.integers(1, 35)), "pid": int(rng.integers(1, 9)), "cause": "hole"}
        | {"comm": str(rng.choice(["web", "db"])), "cpu": int(rng.integers(0, 5))}
        | {"end_ns": SECOND, "low_ns": int(low), "high_ns": int(3 * low)}
        for low in lows
    ]


def by_name(group: Group) -> dict[str, Range]:
    names = [name for name, _ in QUANTILES]
    return {**dict(zip(names, group.quantiles, strict=True)), "max": group.longest}


def as_check(trace: Trace, what: str, where: str) -> dict[str, Range]:
    found = {}
    for name, figure in FIGURES.items():
        bounds = measure(trace, parse_rule(f"{figure}({what}{where}) < 1ms"))
        high = None if bounds.high is None else int(bounds.high)
        found[name] = Range(int(bounds.low), high)
    return found


NODES = {"nodes": {"0": [0, 1], "1": [2, 3]}}


_TOLD_BY_ROWS = ("", "kind", "comm", "cpu", "node", "cgroup", "state", "comm,cpu")
_CASES: list[tuple[dict[str, Any], int, str]] = [
    *(({}, lost, by) for lost in (0, 3) for by in _TOLD_BY_ROWS),
    *(
        (meta, 0, by)
        for meta in ({"histogram_only": True}, {"min_latency_ns": 100_000})
        for by in ("", "kind", "cgroup")
    ),
]


@pytest.mark.parametrize(("meta", "lost", "by"), _CASES)
def test_stat_has_the_limits_of_check(
    tmp_path: Path, meta: dict[str, Any], lost: int, by: str
) -> None:
    names = [name for name in by.split(",") if name]
    frame = random_waits(7, 3000)
    rows = frame[frame["wait_ns"] >= meta.get("min_latency_ns", 0)]
    # Another counter than that of a full ring: the histograms would have those.
    counter = {"name": "tail_lost", "class": "loss", "value": lost, "cpu": 1}
    path = make_trace(
        tmp_path,
        pa.Table.from_pandas(rows, preserve_index=False)[: 0 if "histogram_only" in meta else None],
        meta=NODES | meta,
        missed=missed_rows(8, 40),
        counters=[{"start_ns": 0, "end_ns": 9, **counter}],
        **histogram_tables(frame),
    )
    trace = Trace.open(path)
    found = stat(trace, names)
    assert any(not r.exact for g in found.groups for r in by_name(g).values())
    for group in found.groups:
        keys = dict(zip(names, group.keys, strict=True))
        what = str(keys.pop("kind", "runq"))
        where = " and ".join(f"{name}={value}" for name, value in keys.items())
        wanted = as_check(trace, what, where and f" where {where}")
        assert by_name(group) == wanted, keys
    for what, total in found.totals.items():
        assert by_name(total) == as_check(trace, what, ""), what


@given(
    kept=st.lists(st.integers(1, 3000), max_size=30),
    missed=st.lists(
        st.tuples(st.integers(0, 2000), st.integers(0, 2000), st.floats(0, 1)), max_size=8
    ),
    source=st.sampled_from(["waits", "histograms"]),
)
@settings(max_examples=60)
def test_the_true_percentile_is_within_the_limits(
    kept: list[int], missed: list[tuple[int, int, float]], source: str
) -> None:
    rows = [
        {"end_ns": 9, "low_ns": low, "high_ns": low + more, "cause": "hole", "tid": 1}
        for low, more, _ in missed
    ]
    truth = np.sort(kept + [low + round(more * where) for low, more, where in missed])
    with tempfile.TemporaryDirectory() as folder:
        group = total_of(Path(folder), kept, rows, source)
    if group is None:
        return
    for (_, quantile), found in zip(
        (*QUANTILES, ("max", Decimal(1))), (*group.quantiles, group.longest), strict=True
    ):
        true = int(truth[math.ceil(quantile * len(truth)) - 1])
        assert found.high_ns is not None
        assert found.low_ns <= true <= found.high_ns
        if all(more == 0 for _, more, _ in missed):
            same_bucket = bucket_of(found.low_ns) == bucket_of(found.high_ns)
            assert found.exact if source == "waits" else same_bucket


def total_of(
    folder: Path, kept: Sequence[int], missed: list[dict[str, Any]], source: str
) -> Group | None:
    """Run-queue latency of a trace with these waits, as rows or in histograms."""
    frame = pd.DataFrame({"end_ns": 5, "wait_ns": kept, "kind": "runq_wakeup", "tid": 1})
    tags = {"cgroup_id": 1, "cgroup": "/", "policy": "OTHER"}
    tables = histogram_tables(frame.assign(**tags)) if kept else {}
    if source == "histograms":
        path = make_trace(folder, missed=missed, meta={"histogram_only": True}, **tables)
    else:
        waits = [{"wait_ns": wait, "end_ns": 5} for wait in kept]
        path = make_trace(folder, waits, missed=missed)
    return stat(Trace.open(path)).totals.get("runq")


def test_what_is_missing_and_surely_there_decides_a_rule_of_histograms(tmp_path: Path) -> None:
    """None of the missing ones can be long, and p99 is short of the rank where they would be."""
    frame = random_waits(9, 4000).assign(wait_ns=10_000, kind="runq_wakeup", tid=1)
    missed = [
        {"end_ns": 9, "tid": 1, "cause": "hole", "low_ns": 0, "high_ns": 600_000}
        for _ in range(100)
    ]
    path = make_trace(
        tmp_path, missed=missed, meta={"histogram_only": True}, **histogram_tables(frame)
    )
    limits = measure(Trace.open(path), parse_rule("p99(runq) < 5ms"))
    assert [limits.low, limits.high] == [9216, 600_000]
    assert measure(Trace.open(path), parse_rule("p90(runq) < 5ms")).high == 10_239


def test_waits_that_are_too_short_or_long_for_a_selection_are_not_missing_in_it(
    tmp_path: Path,
) -> None:
    missed = [
        {"end_ns": 9, "tid": 1, "cause": "hole", "low_ns": low, "high_ns": high}
        for low, high in ((0, 900), (1500, 1600), (2500, 2600))
    ]
    trace = Trace.open(make_trace(tmp_path, [{"wait_ns": 1700}], missed=missed))
    total = stat(trace, selection=Selection(min_wait_ns=1000, max_wait_ns=2000)).totals["runq"]
    # One may be of it.
    assert (total.longest, total.quantiles[0]) == (Range(1700, 1700), Range(1000, 1700))
    total = stat(trace, selection=Selection(max_wait_ns=1800)).totals["runq"]
    assert total.quantiles[0] == Range(0, 1700)


def test_what_was_kept_is_exact_by_itself(tmp_path: Path) -> None:
    path = make_trace(
        tmp_path,
        [{"wait_ns": i} for i in range(1, 101)],
        missed=[{"end_ns": 9, "tid": 1, "cause": "hole", "low_ns": 0, "high_ns": 10**6}],
    )
    trace = Trace.open(path)
    p99 = [stat(trace, kept_only=kept).totals["runq"].quantiles[2] for kept in (False, True)]
    assert p99 == [Range(99, 100), Range(99, 99)]
    shown = in_process("stat", str(path)).stdout
    assert "99 ns - 100 ns" in shown
    assert "99 ns - 100 ns" not in in_process("stat", str(path), "--kept").stdout
    # The page calls them exact, and a difference is that of what both sides have.
    query = {"by": [""], "kept": ["1"]}
    (group,) = (answer(Whole(trace), "stat", query) or {})["groups"]
    assert group["p99_ns"] == 99
    changes = diff(before_and_after(trace, SECOND, Selection())).classes["runq"]
    assert {c.name: c.b for c in changes}["p99_ns"] == 99


def test_nothing_is_looked_up_where_nothing_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sltrace.analysis import latency

    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(latency, "counts_by_bucket", refuse)
    trace = Trace.open(make_trace(tmp_path, [{"wait_ns": 5}]))
    assert stat(trace).totals["runq"].longest.exact
