"""diff: figures against pandas, and what the command says."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner

from sltrace.analysis.diff import Change, diff
from sltrace.analysis.distributions import distributions
from sltrace.analysis.selection import DIMENSIONS, Selection
from sltrace.analysis.sides import before_and_after, two_traces
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


def test_a_trace_against_itself_is_zero_everywhere(tmp_path: Path) -> None:
    trace = open_trace(tmp_path, random_waits(23, 2000))
    result = diff(two_traces(trace, Trace.open(trace.path)), list(DIMENSIONS), limit=3)
    assert {g.by for g in result.groups} == set(DIMENSIONS)
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


def test_the_intervals_are_of_the_waits_that_are_selected(tmp_path: Path) -> None:
    """Of one kind of the two that make up a class: as if there were no others."""
    a, b = random_waits(24, 4000), random_waits(25, 8000)
    only = Selection(values={"kind": ("runq_preempt",)})
    results = []
    for name, of in (("all", [a, b]), ("alone", [f[f["kind"] == "runq_preempt"] for f in (a, b)])):
        one, other = (open_trace(tmp_path / f"{name}{i}", f) for i, f in enumerate(of))
        sides = two_traces(one, other, only, only)
        results.append((diff(sides, ["comm"]).classes, distributions(sides, ["runq"])["runq"]))
    (found, curve), (wanted, wanted_curve) = results
    assert {*found} == {"runq"}
    assert found == wanted
    assert curve.at_ns == wanted_curve.at_ns
    assert curve.b.low is not None
    assert wanted_curve.b.low is not None
    assert curve.b.low.tolist() == wanted_curve.b.low.tolist()


def test_sides_that_are_told_apart_by_what_they_are_grouped_by(tmp_path: Path) -> None:
    """As if each were a trace of its own."""
    frame = random_waits(23, 4000)
    one = open_trace(tmp_path / "one", frame)
    each = ("/a", "/b")
    sides = [replace(s, selection=Selection(values={"cgroup": (name,)}))
             for s, name in zip(two_traces(one, one), each, strict=True)]  # fmt: skip
    apart = [
        open_trace(tmp_path / str(i), frame[frame["cgroup"] == name]) for i, name in enumerate(each)
    ]
    (found,), (expected,) = (
        diff((a, b), ["cgroup"]).groups for a, b in (sides, two_traces(apart[0], apart[1]))
    )
    assert {c.name for c in found.changes} == set(each)
    assert found.changes == expected.changes


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


def test_the_tables_say_what_the_sides_are(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    made = [make_trace(tmp_path / name, [{"cgroup": "/web"}]) for name in ("a", "b")]
    a, other = str(made[0]), str(made[1].rename(tmp_path / "b" / "new.slt"))
    long = f"cgroup=/{'x' * 90}/web"
    for arguments, names in (
        ([a, "--a", "cgroup=/web", "--b", "cgroup="], ("cgroup=/web", "cgroup=")),
        ([a, "--a", "cpu=0", "--a", "comm=web"], ("cpu=0 comm=web", "all waits")),
        ([a, other], ("made.slt", "new.slt")),
        ([a, other, "--b", "cpu=0"], ("made.slt", "new.slt cpu=0")),
        ([a, "--at", "2s"], ("before 2 s", "after 2 s")),
        ([a, "--a", long, "--b", "cpu=0"], ("cgroup=/xxx…xxxxxxxxx/web", "cpu=0")),
    ):
        code, out = shown(*arguments)
        assert code == 0
        heads = [line for line in out.splitlines() if "CONFIDENCE" in line]
        assert heads
        for head in heads:
            assert re.search(rf"  A: {re.escape(names[0])}  +B: {re.escape(names[1])}  ", head)
    assert f"A: {long} (" in out, "in full above the tables"
    moved = str(Path(other).rename(Path(other).with_name("made.slt")))
    assert f"A: {a} (" in shown(a, moved)[1]


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
        (["T", "--only", "cpu=1", "--a", "cpu=2", "--b", "cpu=3"], "is for both sides"),
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
