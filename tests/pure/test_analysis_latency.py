"""stat against pandas: the same trace, another program's arithmetic."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sltrace.analysis.blame import blame
from sltrace.analysis.cube import build_cube
from sltrace.analysis.latency import Stat, stat
from sltrace.analysis.ranges import QUANTILES
from sltrace.analysis.selection import DIMENSIONS, Selection
from sltrace.analysis.stacks import grouped_stacks
from sltrace.analysis.zoom import heat
from sltrace.buckets import bucket_of, lower_bounds
from sltrace.errors import UsageError
from sltrace.model import RUNQ_KINDS, SCHEDULER_KINDS
from sltrace.trace.reader import Trace
from tests.support.traces import make_trace

KINDS = [k.label for k in SCHEDULER_KINDS]
CGROUPS = [
    {"cgroup_id": 1, "container_id": "c1", "pod_uid": "p1", "unit": ""},
    {"cgroup_id": 2, "container_id": "", "pod_uid": "", "unit": "ssh.service"},
    {"cgroup_id": 2, "container_id": "", "pod_uid": "", "unit": "ssh.service", "removed_ns": 9},
]
CONTAINER = {1: "c1"}
UNIT = {2: "ssh.service"}


def random_waits(seed: int, count: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "end_ns": rng.integers(0, 10**10, count),
            "wait_ns": rng.lognormal(11, 3, count).astype(np.int64),
            "kind": rng.choice(KINDS, count, p=[0.4, 0.2, 0.1, 0.3]),
            "pid": rng.integers(1, 9, count).astype(np.int32),
            "tid": rng.integers(1, 30, count).astype(np.int32),
            "comm": rng.choice(["web", "db", "hog"], count),
            "cpu": rng.integers(0, 4, count).astype(np.uint16),
            "node": rng.integers(0, 2, count).astype(np.uint16),
            "cgroup_id": rng.integers(1, 4, count),
            "policy": rng.choice(["OTHER", "FIFO"], count),
            "state": rng.choice(["S", "R", "D"], count),
            "flags": rng.choice([0, 1], count, p=[0.99, 0.01]).astype(np.uint8),
        }
    )
    frame["cgroup"] = frame["cgroup_id"].map({1: "/a", 2: "/b", 3: "/c"})
    for name, values in (
        ("trace_id", ["ab" * 16, "cd" * 16, None]),
        ("goid", [7, 2**40, None]),
        ("span_id", ["ab" * 8, None]),
    ):
        frame[name] = pd.Series(rng.choice(np.array(values, dtype=object), count), dtype=object)
    return frame


def open_trace(folder: Path, frame: pd.DataFrame, **meta: object) -> Trace:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    return Trace.open(make_trace(folder, table, cgroups=CGROUPS, meta=meta))


def with_names(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(
        container=frame["cgroup_id"].map(CONTAINER),
        pod=frame["cgroup_id"].map({1: "p1"}),
        unit=frame["cgroup_id"].map(UNIT),
    )


def plain(value: object) -> object:
    return None if value is None or value != value else value


@pytest.mark.parametrize("name", list(DIMENSIONS))
def test_groups_are_those_of_pandas(tmp_path: Path, name: str) -> None:
    frame = with_names(random_waits(1, 5000))
    trace = open_trace(tmp_path, frame[[c for c in frame if c not in ("container", "pod", "unit")]])
    result = stat(trace, [name])
    chosen = frame if name == "kind" else frame[frame["kind"].isin(RUNQ_KINDS)]
    expected = {
        plain(key): group["wait_ns"].to_numpy() for key, group in chosen.groupby(name, dropna=False)
    }
    assert {g.keys[0] for g in result.groups} == set(expected)
    for group in result.groups:
        waits = np.sort(expected[group.keys[0]])
        assert group.count == len(waits)
        assert group.total_ns == waits.sum()
        assert group.longest.high_ns == waits[-1]
        for (_, q), found in zip(QUANTILES, group.quantiles, strict=True):
            # Nearest rank in integers: thousandths of the count, rounded up.
            rank = -(-int(q * 1000) * len(waits) // 1000)
            assert (found.low_ns, found.high_ns) == (waits[rank - 1], waits[rank - 1])


def test_quantiles_are_numpys_inverted_cdf(tmp_path: Path) -> None:
    frame = random_waits(2, 4321)
    (group,) = stat(open_trace(tmp_path, frame), []).groups
    waits = frame[frame["kind"].isin(RUNQ_KINDS)]["wait_ns"]
    expected = np.quantile(waits, [float(q) for _, q in QUANTILES], method="inverted_cdf")
    assert [q.high_ns for q in group.quantiles] == expected.tolist()


def test_names_of_percentiles(tmp_path: Path) -> None:
    trace = Trace.open(make_trace(tmp_path, [{"wait_ns": i} for i in range(1, 1001)]))
    group = stat(trace).to_json()["groups"][0]
    named = {name: group[f"{name}_ns"] for name in ("p50", "p90", "p99", "p999", "max")}
    assert named == {"p50": 500, "p90": 900, "p99": 990, "p999": 999, "max": 1000}


@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "wait_ns": st.integers(0, 10**12),
                "kind": st.sampled_from([*KINDS, "goroutine"]),
                "comm": st.none() | st.text(max_size=3).filter(lambda t: "\0" not in t),
                "cgroup": st.sampled_from([None, "/a", "/b"]),
                "cpu": st.integers(0, 3),
                "trace_id": st.none() | st.sampled_from(["a" * 32, "b" * 32]),
            }
        ),
        max_size=30,
    ),
    by=st.lists(st.sampled_from(list(DIMENSIONS)), unique=True, max_size=3),
    limit=st.none() | st.integers(1, 4),
)
@settings(max_examples=40)
def test_groups_and_rest_add_up_to_the_totals(
    rows: list[dict[str, Any]], by: list[str], limit: int | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        result = stat(Trace.open(make_trace(Path(folder), rows)), by, limit=limit)
    in_groups = set(RUNQ_KINDS) if "kind" not in by else {*KINDS, "goroutine"}
    expected = [r for r in rows if r["kind"] in in_groups]
    assert sum(g.count for g in result.groups) + result.rest.count == len(expected)
    grouped_ns = sum(g.total_ns for g in result.groups)
    assert grouped_ns + result.rest.total_ns == sum(r["wait_ns"] for r in expected)
    assert len(result.groups) <= (limit or len(rows))
    for name, total in result.totals.items():
        kinds = RUNQ_KINDS if name == "runq" else (name,)
        waits = [r["wait_ns"] for r in rows if r["kind"] in kinds]
        assert (total.count, total.total_ns) == (len(waits), sum(waits))
    assert sum(t.count for t in result.totals.values()) == len(rows)


def histogram_tables(frame: pd.DataFrame) -> dict[str, pa.Table]:
    """The tables the recorder's in-kernel histograms would have made, in two intervals."""
    tags = ["cgroup_id", "cgroup", "policy", "kind"]
    data = frame.assign(
        start_ns=(frame["end_ns"] // 5_000_000_000) * 5_000_000_000,
        bucket=bucket_of(frame["wait_ns"]).astype(np.uint8),
    )
    data["end_ns"] = data["start_ns"] + 5_000_000_000
    spans = ["start_ns", "end_ns", *tags]
    counts = data.groupby([*spans, "bucket"]).size().rename("count").reset_index()
    counts["low_ns"] = lower_bounds()[counts["bucket"]]
    sums = data.groupby(spans)["wait_ns"].agg(count="size", sum_ns="sum").reset_index()
    return {
        "histograms": pa.Table.from_pandas(counts, preserve_index=False),
        "histogram_sums": pa.Table.from_pandas(sums, preserve_index=False),
    }


def test_a_wait_without_a_policy_has_that_of_its_thread(tmp_path: Path) -> None:
    own = [(1, "FIFO"), (1, "FIFO"), (2, "OTHER"), (2, "BATCH")]
    rows = [{"kind": "runq_wakeup", "tid": tid, "policy": policy} for tid, policy in own]
    rows += [{"kind": "gil", "tid": tid, "policy": None} for tid in (1, 2, 3)]
    trace = Trace.open(make_trace(tmp_path, rows))
    held = Selection(values={"kind": ["gil"]})
    found = {g.keys[0]: g.count for g in stat(trace, ["policy"], held).groups}
    # The second thread has had two, of the third nothing is known.
    assert found == {"FIFO": 1, None: 2}
    fifo = Selection(values={"policy": ["FIFO"]})
    assert {g.keys[0]: g.count for g in stat(trace, ["kind"], fifo).groups} == {
        "runq_wakeup": 2,
        "gil": 1,
    }
    cube = build_cube(trace)
    sums = np.bincount(cube.rows["policy"], cube.rows["count"])
    assert dict(zip(cube.policies, sums, strict=True)) == {"FIFO": 3, "": 2, "OTHER": 1, "BATCH": 1}


@pytest.mark.parametrize("by", [["cgroup"], ["policy", "kind"], ["kind"], ["container"], []])
def test_histograms_give_the_same_sums_and_bounds_around_the_exact_percentiles(
    tmp_path: Path, by: list[str]
) -> None:
    frame = random_waits(3, 4000)
    exact = stat(open_trace(tmp_path, frame), by)
    path = make_trace(
        tmp_path, meta={"histogram_only": True}, cgroups=CGROUPS, **histogram_tables(frame)
    )
    bounded = stat(Trace.open(path), by)
    assert (exact.source, bounded.source) == ("waits", "histograms")
    assert exact.totals.keys() == bounded.totals.keys()
    pairs = list(zip(exact.groups, bounded.groups, strict=True))
    pairs += [(exact.totals[name], bounded.totals[name]) for name in exact.totals]
    for true, seen in pairs:
        assert (seen.keys, seen.count, seen.total_ns) == (true.keys, true.count, true.total_ns)
        for value, bounds in zip(
            (*true.quantiles, true.longest), (*seen.quantiles, seen.longest), strict=True
        ):
            assert bounds.low_ns <= value.low_ns
            assert bounds.high_ns is None or value.low_ns <= bounds.high_ns <= value.low_ns * 1.15


def test_kinds_that_no_histogram_has_are_named(tmp_path: Path) -> None:
    sums = [{"kind": "runq_wakeup", "count": 1, "sum_ns": 1000, "start_ns": 0, "end_ns": 1,
             "cgroup_id": 1, "cgroup": "/", "policy": "OTHER"}]  # fmt: skip
    waits = [{"kind": kind, "wait_ns": 5000} for kind in ("gil", "blocked", "loop")]
    path = make_trace(tmp_path, waits, meta={"min_latency_ns": 1000}, histogram_sums=sums)
    assert (
        "waits of kind gil, loop are not in them: --kept shows those"
        in stat(Trace.open(path)).notes
    )
    assert not any("--kept" in note for note in stat(Trace.open(path), kept_only=True).notes)


def test_a_minimum_latency_is_seen_through_by_the_histograms(tmp_path: Path) -> None:
    frame = random_waits(4, 3000)
    kept = frame[frame["wait_ns"] >= 100_000]
    path = make_trace(
        tmp_path,
        pa.Table.from_pandas(kept, preserve_index=False),
        meta={"min_latency_ns": 100_000},
        **histogram_tables(frame),
    )
    trace = Trace.open(path)
    assert sum(t.count for t in stat(trace).totals.values()) == len(frame)
    only_kept = stat(trace, ["comm"], kept_only=True)
    assert sum(t.count for t in only_kept.totals.values()) == len(kept)
    assert "100 us" in only_kept.notes[0]
    with pytest.raises(UsageError, match=r"comm is unknown.*--kept"):
        stat(trace, ["comm"])
    with pytest.raises(UsageError, match="--kept"):
        stat(trace, ["cgroup"], Selection(min_wait_ns=5))


@pytest.mark.parametrize("by", [(), ("kind",), ("cgroup", "policy"), ("unit",)])
def test_what_was_kept_makes_long_percentiles_exact(tmp_path: Path, by: tuple[str, ...]) -> None:
    frame = random_waits(4, 3000)
    whole = stat(open_trace(tmp_path, frame), by)
    kept = frame[frame["wait_ns"] >= 100_000]

    def bounded(rows: pd.DataFrame) -> Stat:
        path = make_trace(
            tmp_path,
            pa.Table.from_pandas(rows, preserve_index=False),
            meta={"min_latency_ns": 100_000},
            cgroups=CGROUPS,
            **histogram_tables(frame),
        )
        return stat(Trace.open(path), by)

    found = bounded(kept)
    pairs = list(zip(whole.groups, found.groups, strict=True))
    pairs += [(whole.totals[name], found.totals[name]) for name in whole.totals]
    exact = 0
    for true, seen in pairs:
        for value, told in zip(
            (*true.quantiles, true.longest), (*seen.quantiles, seen.longest), strict=True
        ):
            # 100 us is within a bucket, of which some were not kept.
            assert told == value or value.low_ns < 106_496
            exact += told == value
    assert exact > 2 * len(pairs)
    assert "percentiles under 100 us, and where a wait is missing, are from" in found.notes[-1]
    # Without one of them nobody knows which it was.
    longest = kept[kept["kind"].isin(RUNQ_KINDS)]["wait_ns"].idxmax()
    assert not bounded(kept.drop(index=longest)).totals["runq"].longest.exact


def test_histograms_only_cannot_tell_tasks(tmp_path: Path) -> None:
    trace = Trace.open(make_trace(tmp_path, meta={"histogram_only": True}))
    with pytest.raises(UsageError, match="--histogram-only"):
        stat(trace, ["pid"])
    with pytest.raises(UsageError, match="no single waits"):
        stat(trace, kept_only=True)
    assert stat(trace).totals == {}


def test_selections_are_those_of_pandas(tmp_path: Path) -> None:
    frame = random_waits(5, 3000)
    trace = open_trace(tmp_path, frame)
    runq = frame["kind"].isin(RUNQ_KINDS)
    # Bounds that waits lie on exactly.
    early, late = (int(frame[runq]["end_ns"].quantile(q, "nearest")) for q in (0.2, 0.7))
    short, long = (int(frame[runq]["wait_ns"].quantile(q, "nearest")) for q in (0.2, 0.7))
    cases = [
        (
            Selection(start_ns=early, end_ns=late),
            frame["end_ns"].between(early, late, inclusive="left") & runq,
        ),
        (
            Selection(min_wait_ns=short, max_wait_ns=long),
            frame["wait_ns"].between(short, long, inclusive="left") & runq,
        ),
        (
            Selection(values={"cpu": ["1", 2], "kind": ["throttled"]}),
            frame["cpu"].isin([1, 2]) & (frame["kind"] == "throttled"),
        ),
        (Selection(values={"trace_id": [None]}), frame["trace_id"].isna() & runq),
        (
            Selection(values={"trace_id": [None, "ab" * 16], "unit": ["ssh.service"]}),
            (frame["trace_id"] != "cd" * 16) & (frame["cgroup_id"] == 2) & runq,
        ),
        (Selection(values={"comm": []}), frame["cpu"] < 0),
    ]
    for selection, mask in cases:
        groups = stat(trace, [], selection).groups
        assert sum(g.count for g in groups) == mask.sum()
        assert sum(g.total_ns for g in groups) == frame[mask]["wait_ns"].sum()


@pytest.mark.parametrize("hostile", ["'; DROP TABLE waits; --", "%", "' OR 1=1 --"])
def test_a_value_is_never_sql(tmp_path: Path, hostile: str) -> None:
    trace = Trace.open(make_trace(tmp_path, [{"comm": hostile, "wait_ns": 7}, {"comm": "web"}]))
    (group,) = stat(trace, ["comm"], Selection(values={"comm": [hostile]})).groups
    assert (group.keys, group.total_ns) == ((hostile,), 7)


def test_a_name_that_is_not_utf8_is_found_as_the_trace_has_it(tmp_path: Path) -> None:
    path = make_trace(tmp_path, [{"comm": b"w\xff".decode(errors="replace")}, {"comm": "w"}])
    odd = Selection(values={"comm": (os.fsdecode(b"w\xff"),)})
    (group,) = stat(Trace.open(path), ["comm"], odd).groups
    assert (group.keys, group.count) == (("w�",), 1)


def test_in_a_locale_without_unicode_names_are_the_same() -> None:
    program = (
        "import sys; from sltrace.analysis.selection import Selection as S; "
        r"print(ascii(S(values={'comm': ('\u65e5', sys.argv[1])}).where()[1]))"
    )
    told = subprocess.run(
        [sys.executable, "-c", program, "\u672c"],
        env=os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == r"['\u65e5', '\u672c']" + "\n"


def test_wrong_names_are_usage_errors(tmp_path: Path) -> None:
    trace = Trace.open(make_trace(tmp_path, [{}]))
    with pytest.raises(UsageError, match=r"'waker'; choose from kind, .*cgroup"):
        stat(trace, ["waker"])
    with pytest.raises(UsageError, match="twice"):
        stat(trace, ["cpu", "cpu"])
    with pytest.raises(UsageError, match="'x; --'"):
        Selection(values={"x; --": [1]})
    with pytest.raises(UsageError, match="cpu=x is not a number"):
        stat(trace, [], Selection(values={"cpu": ["x"]}))


def test_waits_cut_by_the_start_are_counted(tmp_path: Path) -> None:
    trace = Trace.open(make_trace(tmp_path, [{"flags": 1}, {"flags": 3}, {"flags": 2}]))
    assert stat(trace).totals["runq"].censored == 2


def test_a_negative_length_counts_as_nothing_everywhere(tmp_path: Path) -> None:
    odd = {"wait_ns": -5, "culprit_tid": 7, "culprit_ns": 3, "cgroup": "/odd"}
    rows = [odd, odd | {"culprit_tid": None}, {"wait_ns": 8, "cgroup": "/even"}]
    trace = Trace.open(make_trace(tmp_path, rows))
    cube = build_cube(trace)
    assert cube.rows["sum_ns"].sum() == 8
    assert cube.totals == {"runq_wakeup": {"count": 3, "sum_ns": 8, "max_ns": 8}}
    found = stat(trace, ["cgroup"])
    assert {g.keys[0]: (g.count, g.total_ns) for g in found.groups} == {
        "/odd": (2, 0),
        "/even": (1, 8),
    }
    assert found.totals["runq"].total_ns == 8
    assert sum(c.wait_ns for c in blame(trace).cells) == 8
    assert grouped_stacks(trace).wait_ns == 8
    assert sum(heat(trace).cells["sum_ns"]) == 8
