"""Intervals of differences: how often they hold a truth that is known."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sltrace.analysis.confidence import GRID, STEPS, Blocks, Redrawn
from sltrace.analysis.diff import diff
from sltrace.analysis.sides import two_traces
from sltrace.trace.reader import Trace
from tests.pure.test_analysis_latency import random_waits
from tests.pure.test_diff import open_trace
from tests.support.traces import SECOND, make_trace


def bursty(rng: np.random.Generator, scale: float = 1.0) -> Blocks:
    """40 blocks of waits whose load changes from burst to burst of about a block's fifth."""
    counts, totals = np.zeros((40, GRID)), np.zeros((40, 1))
    for block in range(40):
        for _ in range(5):
            load = rng.lognormal(0, 0.5)
            waits = rng.lognormal(10, 1, rng.poisson(40 * load)) * load * scale
            np.add.at(counts[block], np.floor(np.log2(waits) * STEPS).astype(int) + 1, 1)
            totals[block, 0] += waits.sum()
    return Blocks(counts, totals, np.full(40, 0.25))


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Two recordings of one process: in 95 % the difference should lie within the spread.

    160 pairs of three figures: fewer than 86 % would come once in 1e5 if it were 95 %.
    """
    rng = np.random.default_rng(5)
    names = ("total", "p50", "p90")
    held = dict.fromkeys(names, 0)
    for _ in range(160):
        a, b = bursty(rng), bursty(rng)
        redrawn = Redrawn(a, b)
        spreads = [
            *redrawn.totals(),
            *redrawn.quantiles([Decimal("0.5"), Decimal("0.9")]),
        ]
        for name, spread in zip(names, spreads, strict=True):
            assert spread
            difference = figure(b, name) - figure(a, name)
            held[name] += difference + spread.low <= 0 <= difference + spread.high
    for name in names:
        assert held[name] > 0.86 * 160, held


def figure(side: Blocks, name: str) -> float:
    if name == "total":
        return float(side.totals.sum() / side.sizes.sum())
    counts = side.counts.sum(0)
    rank = np.ceil(counts.sum() * int(name[1:]) / 100)
    return float(np.exp2((np.searchsorted(np.cumsum(counts), rank) - 0.5) / STEPS))


def test_a_slowdown_is_found() -> None:
    rng = np.random.default_rng(6)
    for _ in range(20):
        a, b = bursty(rng), bursty(rng, scale=2)
        redrawn = Redrawn(a, b)
        (total,) = redrawn.totals()
        (median,) = redrawn.quantiles([Decimal("0.5")])
        assert total
        assert median
        assert figure(b, "total") - figure(a, "total") + total.low > 0
        assert figure(b, "p50") - figure(a, "p50") + median.low > 0


def test_a_group_has_an_interval_from_ten_blocks_with_its_waits_on() -> None:
    """However many blocks have waits of other groups; on one side is enough."""
    blocks = np.arange(40)[:, None]
    a = np.where(blocks < [40, 9, 10, 9, 0], 1e6, 0.0)
    b = np.where(blocks < [40, 0, 0, 9, 10], 1e6, 0.0)
    sides = (Blocks(np.ones((40, 1)), totals, np.full(40, 0.25)) for totals in (a, b))
    found = [spread is not None for spread in Redrawn(*sides).totals()]
    assert found == [True, False, True, False, True]


def test_what_was_in_one_moment_only_is_certain_of_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    steady = [
        {"end_ns": i * SECOND // 50, "wait_ns": 9000, "comm": comm}
        for i in range(1, 500)
        for comm in ("web", "db")
    ]
    once = [
        {"end_ns": 3 * SECOND, "wait_ns": int(rng.integers(1, 10**8)), "comm": f"once-{i}"}
        for i in range(40)
    ]
    sides = []
    clock = {"start_ns": 7, "end_ns": 11_714_285_713}
    for name, rows in (("a", [*steady, *once]), ("b", steady)):
        (tmp_path / name).mkdir()
        sides.append(Trace.open(make_trace(tmp_path / name, rows, meta={"clock": clock})))
    (groups,) = diff(two_traces(sides[0], sides[1]), ["comm"], limit=100).groups
    found = [c for c in groups.changes if str(c.name).startswith("once")]
    assert len(found) == 40
    assert not any(c.certain for c in found)
    assert {(c.low, c.high) for c in found} == {(None, None)}


def test_too_little_gives_no_interval(tmp_path: Path) -> None:
    frame = random_waits(29, 300)
    short = frame.assign(end_ns=frame["end_ns"] // 20)
    clock = {"clock": {"start_ns": 0, "end_ns": SECOND // 2}}
    sides = two_traces(
        open_trace(tmp_path / "a", frame), open_trace(tmp_path / "b", short, **clock)
    )
    result = diff(sides)
    assert all(c.low is None for cs in result.classes.values() for c in cs)
    assert any("shorter than 1 s" in note for note in result.notes)
    sides = two_traces(open_trace(tmp_path / "c", frame), open_trace(tmp_path / "d", frame[:0]))
    (gone,) = (c for c in diff(sides).classes["runq"] if c.name == "waits")
    assert gone.certain
    assert gone.b == 0
    tail = {c.name: c.low for c in diff(sides).classes["runq"]}
    assert tail["p999_ns"] is None


@pytest.mark.parametrize(("more", "certain"), [(0.0000073, False), (0.01, False), (0.013, True)])
def test_what_cannot_be_resolved_is_no_difference(
    tmp_path: Path, more: float, certain: bool
) -> None:
    """Waits of one length each, longer by a share: all draws of a side are the same."""
    ends = [i * SECOND // 100 for i in range(1, 1000)]
    sides = []
    for name, ns in (("a", 98e6), ("b", 98e6 * (1 + more))):
        waits = {"end_ns": ends, "wait_ns": round(ns), "kind": "runq_wakeup"}
        sides.append(open_trace(tmp_path / name, pd.DataFrame(waits)))
    changes = {str(c.name): c for c in diff(two_traces(sides[0], sides[1]), []).classes["runq"]}
    judged = [changes[name].certain for name in ("p50_ns", "p90_ns", "total_ns")]
    assert judged == [certain] * 3
    assert not changes["waits"].certain


def test_a_side_whose_size_is_in_few_blocks_is_certain_of_nothing() -> None:
    """As requests that all began in the first second: a draw may be without any of them."""
    rng = np.random.default_rng(32)
    a, b = bursty(rng), bursty(rng, 3.0)
    few = Blocks(b.counts, b.totals, np.where(np.arange(40) < 3, 1.0, 0.0))
    assert Redrawn(a, b).count() is not None
    assert Redrawn(a, few).count() is None
    one, other = Redrawn(a, few).at_least(np.array([10 * STEPS]))
    assert one.low is not None
    assert (other.low, other.high) == (None, None)
