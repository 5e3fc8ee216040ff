"""diff: figures against pandas, intervals against processes of known behaviour."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner

from sltrace.analysis.bucket import parse_bucket
from sltrace.analysis.confidence import GRID, STEPS, Blocks, Redrawn
from sltrace.analysis.diff import Change, diff
from sltrace.analysis.distributions import distributions
from sltrace.analysis.selection import DIMENSIONS, Selection
from sltrace.analysis.sides import before_and_after, in_bucket, two_traces
from sltrace.cli.diff import command
from sltrace.cli.main import run
from sltrace.errors import UsageError
from sltrace.trace.reader import Trace
from tests.pure.test_analysis_latency import CGROUPS, random_waits
from tests.support.profiles import make_pprof
from tests.support.traces import SECOND, make_trace

RUNQ = ("runq_wakeup", "runq_preempt")
BLAMED = (*RUNQ, "throttled")


def open_trace(folder: Path, frame: pd.DataFrame, **meta: object) -> Trace:
    folder.mkdir(exist_ok=True)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    return Trace.open(make_trace(folder, table, cgroups=CGROUPS, meta=meta))


def expected(frame: pd.DataFrame, size: float) -> dict[str, float]:
    waits = frame["wait_ns"].to_numpy()
    figures = {"waits": len(waits) / size, "total_ns": waits.sum() / size, "max_ns": waits.max()}
    for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)):
        figures[f"{name}_ns"] = np.quantile(waits, q, method="inverted_cdf")
    return figures


def assert_figures(changes: tuple[Change, ...], a: dict[str, float], b: dict[str, float]) -> None:
    assert {c.name for c in changes} == set(a)
    for change in changes:
        assert change.a == pytest.approx(a[str(change.name)])
        assert change.b == pytest.approx(b[str(change.name)])
        if change.low is not None and change.high is not None:
            assert change.low <= change.high


def test_both_sides_are_pandas(tmp_path: Path) -> None:
    a, b = random_waits(21, 3000), random_waits(22, 5000)
    short = {"clock": {"start_ns": 0, "end_ns": 20 * SECOND}}
    sides = two_traces(open_trace(tmp_path / "a", a), open_trace(tmp_path / "b", b, **short))
    result = diff(sides, ["kind", "cgroup", "cpu"])
    assert list(result.classes) == ["runq", "blocked", "throttled"]
    for name, kinds in (("runq", RUNQ), ("blocked", ("blocked",)), ("throttled", ("throttled",))):
        assert_figures(
            result.classes[name],
            expected(a[a["kind"].isin(kinds)], 10),
            expected(b[b["kind"].isin(kinds)], 20),
        )
    for groups in result.groups:
        of_a, of_b = a, b
        if groups.by != "kind":
            of_a, of_b = a[a["kind"].isin(BLAMED)], b[b["kind"].isin(BLAMED)]
        sums = [f.groupby(groups.by)["wait_ns"].sum() for f in (of_a, of_b)]
        assert {c.name for c in groups.changes} == {*sums[0].index, *sums[1].index}
        for change in groups.changes:
            assert change.a == pytest.approx(sums[0].get(change.name, 0) / 10)
            assert change.b == pytest.approx(sums[1].get(change.name, 0) / 20)
        sizes = [abs(c.difference or 0) for c in groups.changes]
        assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("name", list(DIMENSIONS))
def test_a_trace_against_itself_is_zero_everywhere(tmp_path: Path, name: str) -> None:
    trace = open_trace(tmp_path, random_waits(23, 2000))
    result = diff(two_traces(trace, Trace.open(trace.path)), [name], limit=3)
    changes = [c for cs in result.classes.values() for c in cs]
    changes += [c for g in result.groups for c in (*g.changes, *((g.rest,) if g.rest else ()))]
    assert len(changes) > 10
    for change in changes:
        assert change.difference == 0
        assert not change.certain


def test_the_rest_is_summed(tmp_path: Path) -> None:
    a, b = random_waits(24, 1000), random_waits(25, 1000)
    sides = two_traces(open_trace(tmp_path / "a", a), open_trace(tmp_path / "b", b))
    (groups,) = diff(sides, ["tid"], limit=5).groups
    assert groups.rest
    assert groups.rest_groups == 24
    for frame, side in ((a, "a"), (b, "b")):
        whole = frame[frame["kind"].isin(BLAMED)]["wait_ns"].sum() / 10
        parts = sum(getattr(c, side) for c in (*groups.changes, groups.rest))
        assert parts == pytest.approx(whole)


def test_two_halves_by_time(tmp_path: Path) -> None:
    frame = random_waits(26, 3000)
    trace = open_trace(tmp_path, frame)
    result = diff(before_and_after(trace, 4 * SECOND, Selection(values={"kind": RUNQ})), [])
    runq = frame[frame["kind"].isin(RUNQ)]
    early = runq["end_ns"] < 4 * SECOND
    assert_figures(result.classes["runq"], expected(runq[early], 4), expected(runq[~early], 6))
    assert list(result.classes) == ["runq"]
    for wrong in (0, 10 * SECOND, 11 * SECOND):
        with pytest.raises(UsageError, match=r"10\.0 s long"):
            before_and_after(trace, wrong, Selection())


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


def test_what_was_in_one_moment_only_is_certain_of_nothing(tmp_path: Path) -> None:
    """A third of all draws leave that moment out: the interval ends at zero, whatever the sizes."""
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
    (groups,) = diff(two_traces(*sides), ["comm"], limit=100).groups
    found = [c for c in groups.changes if str(c.name).startswith("once")]
    assert len(found) == 40
    assert {c.high for c in found} == {0.0}
    assert not any(c.certain for c in found)


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


def test_unlike_minimum_latencies_are_made_alike(tmp_path: Path) -> None:
    frame = random_waits(30, 2000)
    kept = frame[frame["wait_ns"] >= 50_000]
    sides = two_traces(
        open_trace(tmp_path / "a", frame),
        open_trace(tmp_path / "b", kept, min_latency_ns=50_000),
    )
    result = diff(sides, [])
    assert all(c.difference == 0 for cs in result.classes.values() for c in cs)
    assert result.notes == ("only waits of 50,000 ns or more are compared",)
    with pytest.raises(UsageError, match="histograms only"):
        two_traces(sides[0].trace, open_trace(tmp_path / "c", kept[:0], histogram_only=True))


def shown(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command, list(arguments))
    return result.exit_code, result.output


def test_the_command_compares_and_folds(tmp_path: Path) -> None:
    stacks = [{"stack_id": i, "space": "kernel", "pid": 0, "addresses": [i]} for i in (1, 2)]
    frames = [
        {"space": "kernel", "pid": 0, "address": i, "name": n}
        for i, n in ((1, "read"), (2, "lock"))
    ]
    paths = []
    for name, times in (("a", (2000, 4000)), ("b", (2000, 9000))):
        (tmp_path / name).mkdir()
        waits = [
            {"wait_ns": t, "stack_kernel": i, "comm": "\x1bweb"} for i, t in enumerate(times, 1)
        ]
        paths.append(str(make_trace(tmp_path / name, waits, stacks=stacks, frames=frames)))
    code, out = shown(*paths, "--folded", "-")
    assert (code, out.splitlines()) == (
        0,
        ["\\x1bweb;lock 4000 9000", "\\x1bweb;read 2000 2000"],
    )
    code, out = shown(paths[0], paths[0], "--folded", "-")
    assert out.splitlines() == ["\\x1bweb;lock 4000 4000", "\\x1bweb;read 2000 2000"]
    code, out = shown(*paths)
    assert code == 0
    assert "\x1b" not in out
    assert "\\x1bweb" in out
    assert out.count("losses of") == 2
    document = json.loads(shown(*paths, "--json")[1])
    assert document["classes"]["runq"][-1]["difference"] == 5000
    code, out = shown(paths[0], "--a", "comm=\x1bweb", "--b", "comm=nobody")
    assert code == 0
    assert "-600 ns" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["T"], "nothing to compare"),
        (["T", "T", "--at", "2s"], "in one way"),
        (["T", "--at", "2s", "--bucket", "hash(tid) % 2 = 0"], "in one way"),
        (["T", "--at", "2s", "--after", "1s"], "--at with --after"),
        (["T", "T", "--by", "colour"], "cannot group by 'colour'"),
        (["T", "--a", "cpu"], "is not DIM=VALUE"),
        (["T", "T", "--bucket", "true"], "in one way"),
        (["T", "--bucket", "true"], "is not a bucket"),
        (["T", "--at", "2s", "--pprof", "P"], "--pprof is for the page"),
        (["T", "T", "--pprof", "P", "-o", "O"], "profiles do not tell them apart"),
    ],
)
def test_wrong_use_is_said(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "cpu.pb").write_bytes(make_pprof({("main",): [1, 5]}))
    files = {"T": make_trace(tmp_path, [{}]), "P": tmp_path / "cpu.pb", "O": tmp_path / "o.html"}
    result = CliRunner().invoke(command, [str(files.get(a, a)) for a in arguments])
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)


def test_distributions_are_pandas(tmp_path: Path) -> None:
    a, b = random_waits(31, 4000), random_waits(32, 2000)
    sides = two_traces(open_trace(tmp_path / "a", a), open_trace(tmp_path / "b", b))
    found = distributions(sides, ["runq", "blocked", "gil"])
    for name, kinds in (("runq", RUNQ), ("blocked", ("blocked",))):
        curve = found[name]
        assert len(curve.at_ns) > 20
        for frame, band in ((a, curve.a), (b, curve.b)):
            waits = frame[frame["kind"].isin(kinds)]["wait_ns"].to_numpy()
            longer = [(waits >= at).sum() / 10 for at in curve.at_ns]
            assert band.value.tolist() == pytest.approx(longer)
            assert band.low is not None
            assert band.high is not None
            assert (band.low <= band.value).mean() > 0.9
            assert (band.high >= band.value).mean() > 0.9
    assert not found["gil"].a.value.any()


def test_the_page_is_written_and_never_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = str(make_trace(tmp_path, [{"wait_ns": 10 + i, "end_ns": i} for i in range(50)]))
    page = tmp_path / "page.html"
    arguments = ["diff", trace, "--at", "5s", "-o", str(page)]
    assert run(arguments) == 0
    said = capsys.readouterr()
    assert "waits per second" in said.out
    assert "page.html: " in said.err
    assert page.read_bytes().startswith(b"<!doctype html>")
    assert run(arguments) == 6
    assert run([*arguments, "--force"]) == 0
    assert run(["diff", trace, "--at", "5s", "-o", "-", "--json"]) == 2
    assert "several things" in capsys.readouterr().err
