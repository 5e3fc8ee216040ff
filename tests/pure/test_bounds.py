"""Figures of rules: against pandas, their limits against every world the losses allow."""

from __future__ import annotations

import math
import tempfile
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sltrace.analysis.bounds import Bounds, measure
from sltrace.analysis.latency import stat
from sltrace.analysis.rules import parse_rule
from sltrace.trace.reader import Trace
from tests.pure.test_analysis_latency import histogram_tables, random_waits
from tests.support.traces import SECOND, WAIT, make_trace

RUNQ = ("runq_wakeup", "runq_preempt")


def figure(trace: Trace, text: str) -> Bounds:
    return measure(trace, parse_rule(f"{text} < 1{_SUFFIX.get(text.split('(')[0], 'ms')}"))


_SUFFIX = {"count": "", "rate": "/s", "share": "%"}


def exact(trace: Trace, text: str) -> float:
    value = figure(trace, text)
    assert value.exact, value
    return float(value.low)


def union_ns(waits: list[tuple[int, int]]) -> int:
    """Time covered by (end, length), within 10 s, counted microsecond by microsecond."""
    covered = np.zeros(10_000_001, bool)
    for end, length in waits:
        covered[max(0, end - length) // 1000 : min(end, 10 * SECOND) // 1000] = True
    return int(covered.sum()) * 1000


def test_every_figure_is_pandas(tmp_path: Path) -> None:
    frame = random_waits(11, 4000)
    frame["wait_ns"] = (frame["wait_ns"] // 1000 + 1) * 1000
    frame["end_ns"] = frame["end_ns"] // 1000 * 1000
    trace = Trace.open(make_trace(tmp_path, pa.Table.from_pandas(frame, preserve_index=False)))
    cases = [
        ("runq", frame["kind"].isin(RUNQ)),
        ("throttled", frame["kind"] == "throttled"),
        ("blocked where comm=web", (frame["kind"] == "blocked") & (frame["comm"] == "web")),
        (
            "runq where cgroup=/b and cpu=3",
            frame["kind"].isin(RUNQ) & (frame["cgroup"] == "/b") & (frame["cpu"] == 3),
        ),
        ("runq where trace_id=''", frame["kind"].isin(RUNQ) & frame["trace_id"].isna()),
    ]
    for what, mask in cases:
        waits = frame[mask]["wait_ns"].to_numpy()
        assert len(waits) > 50
        for percent in ("50", "99", "99.9", "7.3"):
            found = exact(trace, f"p{percent}({what})")
            expected = np.quantile(waits, float(percent) / 100, method="inverted_cdf")
            assert found == expected
        assert exact(trace, f"max({what})") == waits.max()
        assert exact(trace, f"count({what})") == len(waits)
        assert exact(trace, f"total({what})") == waits.sum()
        assert exact(trace, f"mean({what})") == pytest.approx(waits.mean())
        assert exact(trace, f"rate({what})") == pytest.approx(len(waits) / 10)
        spans = list(frame[mask][["end_ns", "wait_ns"]].itertuples(index=False, name=None))
        assert exact(trace, f"share({what})") == pytest.approx(union_ns(spans) / 10**10)


FIGURES = ["p50", "p90", "p99", "max", "mean", "total", "count", "share"]


@given(
    kept=st.lists(st.integers(1, 1000), max_size=12),
    missed=st.lists(
        st.tuples(st.integers(0, 800), st.integers(0, 800), st.floats(0, 1)), max_size=5
    ),
)
@settings(max_examples=30)
def test_the_limits_hold_whatever_the_missed_waits_were(
    kept: list[int], missed: list[tuple[int, int, float]]
) -> None:
    rows = [
        {"end_ns": SECOND, "low_ns": low, "high_ns": low + more, "cause": "hole", "tid": 1}
        for low, more, _ in missed
    ]
    truth = [low + round(more * where) for low, more, where in missed]
    # Waits and missed waits one after the other: the time that they cover is their sum.
    end, waits = 0, []
    for wait in kept:
        end += wait
        waits.append({"end_ns": end, "wait_ns": wait})
    with tempfile.TemporaryDirectory() as folder:
        path = make_trace(
            Path(folder), waits, missed=rows, meta={"clock": {"start_ns": 0, "end_ns": SECOND}}
        )
        trace = Trace.open(path)
        found = {name: figure(trace, f"{name}(runq)") for name in FIGURES}
    everything = np.array(kept + truth)
    true: dict[str, float] = {
        "max": everything.max(initial=0),
        "mean": everything.mean() if len(everything) else 0,
        "total": everything.sum(),
        "count": len(everything),
        "share": everything.sum() / SECOND,
    }
    for name in ("p50", "p90", "p99"):
        rank = math.ceil(int(name[1:]) * len(everything) / 100)
        true[name] = np.sort(everything)[rank - 1] if rank else 0
    for name, value in true.items():
        limits = found[name]
        assert limits.high is not None
        assert float(limits.low) <= value * (1 + 1e-12) + 1e-12, name
        assert value <= float(limits.high) * (1 + 1e-12) + 1e-12, name
        if not missed:
            assert limits.exact


@pytest.mark.parametrize("meta", [{"histogram_only": True}, {"min_latency_ns": 100_000}, {}])
def test_the_histograms_answer_where_the_rows_cannot(
    tmp_path: Path, meta: dict[str, object]
) -> None:
    frame = random_waits(12, 3000)
    threshold = int(str(meta.get("min_latency_ns", 0)))
    rows = frame.iloc[:0] if "histogram_only" in meta else frame[frame["wait_ns"] >= threshold]
    # Without a setting that leaves rows out, 40 of them were lost on the way.
    below = {"name": "below_min", "class": "discard", "value": len(frame) - len(rows)}
    if not meta:
        rows = frame.iloc[40:]
        below = {"name": "ring_full", "class": "loss", "value": 40}
    path = make_trace(
        tmp_path,
        pa.Table.from_pandas(rows, preserve_index=False),
        meta=meta,
        counters=[{"cpu": 0, "start_ns": 0, "end_ns": 9, **below}],
        **histogram_tables(frame),
    )
    trace = Trace.open(path)
    chosen = frame[frame["kind"].isin(RUNQ) & (frame["cgroup"] == "/a")]["wait_ns"].to_numpy()
    assert exact(trace, "count(runq where cgroup=/a)") == len(chosen)
    assert exact(trace, "total(runq where cgroup=/a)") == chosen.sum()
    of_a = next(g for g in stat(trace, ["cgroup"]).groups if g.keys == ("/a",))
    for percent, same in ((50, of_a.quantiles[0]), (99, of_a.quantiles[2])):
        limits = figure(trace, f"p{percent}(runq where cgroup=/a)")
        if meta:
            assert limits.low == same.low_ns
            assert limits.high == same.high_ns
        true = np.quantile(chosen, percent / 100, method="inverted_cdf")
        assert limits.high is not None
        assert limits.low <= int(true) <= limits.high <= limits.low * Decimal("1.13") + 16
    assert limits.exact == ("histogram_only" not in meta)
    share = figure(trace, "share(runq where cgroup=/a)")
    assert share.high in (None, 1)
    assert share.why
    of_web = frame[frame["kind"].isin(RUNQ) & (frame["comm"] == "web")]["wait_ns"].to_numpy()
    true = np.sort(of_web)
    for text, value in [
        ("count", len(true)),
        ("p99", true[math.ceil(0.99 * len(true)) - 1]),
        ("total", true.sum()),
    ]:
        limits = figure(trace, f"{text}(runq where comm=web)")
        assert limits.low <= int(value)
        assert limits.why
        if "histogram_only" in meta or (not meta and text == "total"):
            assert limits.high is None
        else:
            assert limits.high is None or int(value) <= limits.high


def test_a_large_frame_is_measured_in_a_moment(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "end_ns": np.arange(1_000_000) * 10_000,
            "wait_ns": np.random.default_rng(1).integers(1, 10**6, 1_000_000),
            "kind": "runq_wakeup",
        }
    )
    trace = Trace.open(make_trace(tmp_path, pa.Table.from_pandas(frame, preserve_index=False)))
    waits = np.sort(frame["wait_ns"].to_numpy())
    assert exact(trace, "p99(runq)") == waits[989_999]
    assert 0 < exact(trace, "share(runq)") <= 1


def test_short_waits_beside_long_sleeps_are_missing_too(tmp_path: Path) -> None:
    """What is kept for its sleep has no row for the wait after it."""
    slept = [{"end_ns": i, "wait_ns": 7_000_000, "kind": "blocked"} for i in range(1, 1001)]
    waits = [20_000] * 1000 + [5_000_000]
    path = make_trace(
        tmp_path,
        [*slept, {"end_ns": 2000, "wait_ns": waits[-1]}],
        meta={"min_latency_ns": 1_000_000},
        counters=[
            {"cpu": 0, "start_ns": 0, "end_ns": 9, "name": name, "class": kind, "value": value}
            for name, kind, value in (("records", "info", 1001), ("below_min", "discard", 0))
        ],
    )
    trace = Trace.open(path)
    for text, true in (
        ("count", len(waits)),
        ("total", sum(waits)),
        ("mean", sum(waits) / len(waits)),
        ("p50", 20_000),
        ("max", waits[-1]),
    ):
        limits = figure(trace, f"{text}(runq where comm={WAIT['comm']})")
        assert limits.high is not None
        assert float(limits.low) <= true <= float(limits.high), text
        assert limits.exact == (text == "max")
        assert text == "max" or "1,000 waits are missing" in limits.why


@pytest.mark.parametrize(
    ("which", "mean", "total"),
    [
        ("runq", (700, 750), (1400, 1500)),
        # Of the policy of the one that is missing nothing is known: it may be of another.
        ("runq where policy=OTHER", (500, 1500), (1000, 1500)),
    ],
)
def test_what_may_be_of_others_raises_no_lower_limit_and_lowers_no_upper_one(
    tmp_path: Path, which: str, mean: tuple[int, int], total: tuple[int, int]
) -> None:
    """A wait of 1000 ns, and one of 400 to 500 ns that was not seen whole."""
    missed = {"tid": 1, "cause": "hole", "end_ns": SECOND, "low_ns": 400, "high_ns": 500}
    trace = Trace.open(make_trace(tmp_path, [{}], missed=[missed]))
    for name, (low, high) in (("mean", mean), ("total", total)):
        limits = figure(trace, f"{name}({which})")
        assert limits.low == low, name
        assert limits.high == high, name
