from __future__ import annotations

from pathlib import Path

import pytest

from sltrace.analysis.blame import blame
from sltrace.analysis.diff import diff
from sltrace.analysis.histograms import histogram_counts
from sltrace.analysis.latency import stat
from sltrace.analysis.losses import Losses, Missed, losses
from sltrace.analysis.part import part_of
from sltrace.analysis.selection import Selection
from sltrace.analysis.sides import before_and_after
from sltrace.analysis.timeline import slowest
from sltrace.analysis.zoom import heat
from sltrace.trace.reader import Trace
from tests.support.traces import SECOND, make_trace


def counter(name: str, kind: str, value: int, cpu: int = 0, second: int = 0) -> dict[str, object]:
    return {
        "start_ns": second * SECOND,
        "end_ns": (second + 1) * SECOND,
        "cpu": cpu,
        "name": name,
        "class": kind,
        "value": value,
    }


def test_nothing_lost(tmp_path: Path) -> None:
    counters = [counter("switches", "info", 99), counter("below_min", "discard", 5)]
    found = losses(Trace.open(make_trace(tmp_path, [{}], counters=counters)))
    assert found.sentence == "nothing was lost"
    assert (found.lost, found.missed_count, found.fraction) == (0, 0, 0.0)
    assert [(c.name, c.kind, c.value) for c in found.counters] == [
        ("below_min", "discard", 5),
        ("switches", "info", 99),
    ]


def test_nothing_is_said_of_goroutines_where_waits_of_theirs_were_lost(tmp_path: Path) -> None:
    sources = {"go": {"counters": {"go_ring_full": 7}}}
    trace = Trace.open(make_trace(tmp_path, [{}], meta={"sources": sources}))
    assert losses(trace).sentence == "no wait of a thread was lost"
    some = losses(trace, Selection(values={"comm": ("x",)}))
    assert some.sentence == "no wait of a thread was lost among these"


def test_losses_say_where_and_when(tmp_path: Path) -> None:
    counters = [
        counter("ring_full", "loss", 1000, cpu=3, second=4),
        counter("ring_full", "loss", 204, cpu=3, second=6),
        counter("ring_full", "loss", 0, cpu=1),
    ]
    trace = Trace.open(make_trace(tmp_path, [{}] * 8796, counters=counters))
    found = losses(trace)
    assert found.lost == 1204
    assert found.fraction == pytest.approx(0.1204)
    assert "1,204 waits lost on CPU 3 between 4.0 s and 7.0 s" in found.sentence
    assert "12.04%" in found.sentence
    assert [(i.cpu, i.start_ns, i.value) for i in found.intervals] == [
        (3, 4 * SECOND, 1000),
        (3, 6 * SECOND, 204),
    ]


def test_few_losses_among_many_waits_are_not_none() -> None:
    missed = (Missed("hole", 2185, 0, 1_336_000_000_000),)
    found = Losses((), (), missed, kept=44_484_384, start_ns=0)
    assert found.sentence.endswith(
        "(0.0049% of all: without them percentiles are off by up to 0.0050 percentage points, "
        "and those above 99.9950% have no upper limit)"
    )


@pytest.mark.parametrize(
    ("selection", "lost", "said"),
    [
        (
            {},
            0,
            ", none over 3.00 s: without them percentiles are off by up to 42.86 percentage "
            "points, and those above 70.00% may be theirs)",
        ),
        ({"kind": ("runq_preempt",)}, 0, ", none over 3.00 s: "),
        ({"kind": ("blocked",)}, 0, " have no upper limit)"),
        ({"comm": ("b",)}, 0, ", none over 2.00 ms: "),
        ({}, 1, " have no upper limit)"),
    ],
)
def test_waits_of_bounded_length_leave_no_figure_without_a_limit(
    tmp_path: Path, selection: dict[str, tuple[str, ...]], lost: int, said: str
) -> None:
    missed = [
        {"tid": 1, "comm": comm, "cause": "hole", "end_ns": 5, "low_ns": 0, "high_ns": high}
        for comm, high in (("a", 3 * SECOND), ("a", 5), ("b", 2_000_000))
    ]
    counters = [counter("ring_full", "loss", lost)]
    path = make_trace(tmp_path, [{"tid": 1}] * 7, counters=counters, missed=missed)
    assert said in losses(Trace.open(path), Selection(values=selection)).sentence


def test_a_part_that_cannot_be_read_may_have_had_longer_waits() -> None:
    found = Losses((), (), (Missed("hole", 1, 0, 9),), kept=9, start_ns=0, unread=1, longest_ns=9)
    assert found.sentence.endswith(" have no upper limit)")


@pytest.mark.parametrize(
    ("missed", "said"),
    [
        ((1, 31_300_000, 31_300_400), "1 wait not seen whole, 31.3 ms ("),
        ((2, 31_300_000, 31_300_400), "2 waits not seen whole, 31.3 ms together ("),
        ((1, 0, 250), "1 wait not seen whole, at most 250 ns ("),
    ],
)
def test_limits_that_read_alike_are_said_once(missed: tuple[int, int, int], said: str) -> None:
    found = Losses((), (), (Missed("hole", *missed),), kept=100, start_ns=0)
    assert found.sentence.startswith(said)


def test_a_missed_wait_counts_once_with_its_bounds(tmp_path: Path) -> None:
    counters = [counter("holes", "loss", 2), counter("unstamped", "loss", 1)]
    missed = [
        {"cpu": 0, "cause": "hole", "end_ns": 5, "low_ns": 1_000_000, "high_ns": 3_000_000},
        {"cpu": 1, "cause": "hole", "end_ns": 6, "low_ns": 500_000, "high_ns": 1_500_000},
        {"cpu": 1, "cause": "unstamped", "end_ns": 7, "low_ns": 0, "high_ns": 250_000},
    ]
    trace = Trace.open(make_trace(tmp_path, [{}] * 7, counters=counters, missed=missed))
    found = losses(trace)
    assert (found.lost, found.missed_count, found.fraction) == (0, 3, 0.3)
    assert "3 waits not seen whole, 1.50 ms to 4.75 ms together" in found.sentence
    assert [(m.cause, m.count, m.low_ns, m.high_ns) for m in found.missed] == [
        ("hole", 2, 1_500_000, 4_500_000),
        ("unstamped", 1, 0, 250_000),
    ]


def lossy(folder: Path) -> Trace:
    """Losses on CPU 0 early and on CPU 1 late, and waits of two threads in between."""
    counters = [
        counter("ring_full", "loss", 30, cpu=0, second=1),
        counter("ring_full", "loss", 10, cpu=1, second=7),
        counter("below_min", "discard", 5, cpu=1, second=7),
    ]
    missed = [
        {"cpu": 0, "tid": 1, "comm": "a", "cause": "hole", "end_ns": 2 * SECOND}
        | {"low_ns": 0, "high_ns": 1000},
        {"cpu": 1, "tid": 2, "comm": "b", "cause": "hole", "end_ns": 8 * SECOND}
        | {"low_ns": 0, "high_ns": 3 * SECOND},
    ]
    waits = [
        {"end_ns": second * SECOND, "cpu": cpu, "node": cpu, "tid": tid, "comm": comm}
        | {"cgroup": f"/{comm}"}
        for second in range(10)
        for cpu, tid, comm in ((0, 1, "a"), (1, 2, "b"))
    ]
    meta = {"nodes": {"0": [0], "1": [1]}}
    return Trace.open(make_trace(folder, waits, meta=meta, counters=counters, missed=missed))


@pytest.mark.parametrize(
    ("selection", "lost", "missed", "kept"),
    [
        (Selection(), 40, 2, 20),
        (Selection(end_ns=7 * SECOND), 30, 2, 14),
        (Selection(end_ns=5 * SECOND), 30, 1, 10),
        (Selection(start_ns=3 * SECOND, end_ns=4 * SECOND), 0, 0, 2),
        (Selection(start_ns=3 * SECOND), 10, 1, 14),
        # Losses are of a whole interval, of which a part is within.
        (Selection(start_ns=3 * SECOND // 2), 40, 2, 16),
        (Selection(end_ns=3 * SECOND // 2), 30, 0, 4),
        (Selection(values={"cpu": (1,)}), 10, 1, 10),
        (Selection(values={"node": (0,)}), 30, 1, 10),
        (Selection(values={"cpu": (0,)}, start_ns=3 * SECOND), 0, 0, 7),
        (Selection(values={"comm": ("b",)}), 40, 1, 10),
        (Selection(values={"cgroup": ("/a",)}), 40, 1, 10),
    ],
)
def test_losses_of_a_selection_are_those_that_may_be_of_it(
    tmp_path: Path, selection: Selection, lost: int, missed: int, kept: int
) -> None:
    found = losses(lossy(tmp_path), selection)
    assert (found.lost, found.missed_count, found.kept) == (lost, missed, kept)


def test_what_one_wait_was_says_nothing_of_another(tmp_path: Path) -> None:
    """All waits of a thread were on one node, and the one that is missed was on the other."""
    missed = [
        {"cpu": 1, "tid": 1, "comm": "a", "cause": "hole", "end_ns": 5, "low_ns": 1, "high_ns": 9}
    ]
    waits = [{"tid": 1, "comm": "a", "cpu": 0, "node": 0, "state": "S"}]
    meta = {"nodes": {"0": [0], "1": [1]}}
    trace = Trace.open(make_trace(tmp_path, waits, meta=meta, missed=missed))
    for dimension, value, n in (
        ("node", 1, 1), ("node", "01", 1), ("node", 0, 0), ("state", "D", 1),
        ("cgroup", "/other", 0), ("comm", "b", 0),
    ):  # fmt: skip
        found = losses(trace, Selection(values={dimension: (value,)}))
        assert found.missed_count == n, (dimension, value)


def test_buckets_beyond_the_last_are_of_the_last(tmp_path: Path) -> None:
    """No recorder writes them."""
    rows = [{"kind": "runq_wakeup", "cgroup": "/", "bucket": b, "count": n}
            for b, n in ((251, 5), (253, 8), (None, 1))]  # fmt: skip
    trace = Trace.open(make_trace(tmp_path, [], histograms=rows))
    counts = histogram_counts(trace, Selection())
    assert (counts[-1], counts.sum()) == (13, 13)


def test_rows_that_do_not_say_how_much_was_lost_are_left_out(tmp_path: Path) -> None:
    """As whoever made the trace wrote them."""
    counters = [counter("ring_full", "loss", 3) | {"cpu": None}, counter("ring_full", "loss", 4)]
    missed = [{"cpu": 0, "tid": 1, "end_ns": 5, "low_ns": 1}]
    trace = Trace.open(make_trace(tmp_path, [{}], counters=counters, missed=missed))
    found = losses(trace)
    assert (found.lost, found.missed_count) == (4, 0)


def test_each_ring_loses_waits_of_its_kinds(tmp_path: Path) -> None:
    counters = [counter("ring_full", "loss", 3), counter("python_waits_lost", "loss", 5)]
    trace = Trace.open(make_trace(tmp_path, [{}], counters=counters))
    for kinds, lost in (
        (None, 8), (("runq_wakeup",), 3), (("blocked", "gil"), 8), (("gil",), 5), (("stw",), 5),
        (("goroutine",), 0),
    ):  # fmt: skip
        selection = Selection(values={"kind": kinds}) if kinds else Selection()
        assert losses(trace, selection).lost == lost, kinds


def test_what_losses_cannot_be_told_by_is_said(tmp_path: Path) -> None:
    trace = lossy(tmp_path)
    by_name = Selection(values={"comm": ("b",), "cgroup": ("/b",)}, start_ns=6 * SECOND)
    assert losses(trace, by_name).sentence == (
        "10 waits lost on CPU 1 between 7.0 s and 8.0 s, of any comm or cgroup; 1 wait not seen "
        "whole, at most 3.00 s (at most 73.33% of these: without them percentiles are "
        "off by up to 100.00 percentage points, and those above 26.66% have no upper limit)"
    )
    quiet = Selection(start_ns=3 * SECOND, end_ns=4 * SECOND)
    assert losses(trace, quiet).sentence == "none of these waits was lost"


def test_every_view_of_a_selection_says_what_that_lacks(tmp_path: Path) -> None:
    trace = lossy(tmp_path)
    late = Selection(start_ns=3 * SECOND)
    wanted = losses(trace, late)
    sides = diff(before_and_after(trace, 3 * SECOND, Selection())).losses
    assert sides == (losses(trace, Selection(end_ns=3 * SECOND)), wanted)
    assert stat(trace, selection=late).losses == wanted
    assert blame(trace, selection=late).losses == wanted
    assert heat(trace, selection=late).losses == wanted
    assert slowest(trace, late).losses == wanted


def test_a_part_keeps_what_its_histograms_surely_count(tmp_path: Path) -> None:
    sums = [
        {"start_ns": i * SECOND, "end_ns": (i + 1) * SECOND, "kind": "runq_wakeup", "count": 100}
        for i in range(10)
    ]
    waits = [{"end_ns": 5 * SECOND}]
    trace = Trace.open(make_trace(tmp_path, waits, histogram_sums=sums))
    assert losses(trace).kept == 1000
    assert losses(trace, Selection(start_ns=3 * SECOND - 1, end_ns=6 * SECOND)).kept == 300
    assert losses(part_of(trace, 3 * SECOND - 1, 6 * SECOND)).kept == 300
