"""check: its figures against pandas, its limits against every world the losses allow."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from sltrace.analysis.bounds import Bounds, measure
from sltrace.analysis.check import check
from sltrace.analysis.latency import stat
from sltrace.analysis.rules import parse_rule
from sltrace.cli.check import command
from sltrace.cli.main import run
from sltrace.errors import UsageError
from sltrace.trace.reader import Trace
from tests.pure.test_analysis_latency import histogram_tables, random_waits
from tests.support.traces import SECOND, make_trace

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


def lossy(folder: Path, *, lost: int = 0, missed: tuple[dict[str, Any], ...] = ()) -> Trace:
    waits = [{"wait_ns": i * 1000, "tid": 5, "comm": "web", "cgroup": "/w"} for i in range(1, 101)]
    waits += [{"wait_ns": 7, "tid": 6, "comm": "db", "cgroup": "/d"}]
    counters = [
        {"start_ns": 0, "end_ns": SECOND, "cpu": 0, "name": n, "class": "loss", "value": lost}
        for n in ("ring_full",)
    ]
    return Trace.open(make_trace(folder, waits, missed=list(missed), counters=counters))


def verdict(trace: Trace, text: str) -> str:
    return check(trace, [parse_rule(text)]).outcomes[0].verdict


def test_lost_waits_leave_a_rule_undecided_only_where_they_matter(tmp_path: Path) -> None:
    trace = lossy(tmp_path, lost=2)
    # Two waits of any length move the median by one rank, the maximum to anywhere.
    assert verdict(trace, "p50(runq where comm=web) < 60us") == "pass"
    assert verdict(trace, "p50(runq where comm=web) < 40us") == "fail"
    assert verdict(trace, "p50(runq where comm=web) < 50.5us") == "unknown"
    assert verdict(trace, "max(runq where comm=web) < 1s") == "unknown"
    assert verdict(trace, "max(runq where comm=web) < 100us") == "fail"
    assert verdict(trace, "max(runq where comm=web) <= 1s") == "unknown"
    assert verdict(trace, "max(runq where comm=web) >= 100us") == "pass"
    assert verdict(trace, "count(runq where comm=web) <= 102") == "pass"
    assert verdict(trace, "count(runq where comm=web) < 102") == "unknown"
    assert verdict(trace, "total(runq where comm=web) < 1s") == "unknown"
    outcome = check(trace, [parse_rule("max(runq where comm=web) < 1s")]).outcomes[0]
    assert outcome.value.why == "2 waits are missing and may be of these"


def test_a_missed_wait_of_another_thread_changes_nothing(tmp_path: Path) -> None:
    of_db = {"tid": 6, "comm": "db", "low_ns": 0, "high_ns": SECOND, "cause": "hole"}
    trace = lossy(tmp_path, missed=(of_db,))
    assert exact(trace, "max(runq where cgroup=/w)") == 100_000
    assert exact(trace, "max(runq where comm=web)") == 100_000
    assert figure(trace, "max(runq where cgroup=/d)").high == SECOND
    assert figure(trace, "max(runq where comm=db)").high == SECOND
    of_nobody = {**of_db, "tid": 7, "comm": "new"}
    trace = lossy(tmp_path, missed=(of_nobody,))
    assert figure(trace, "max(runq where cgroup=/w)").high == SECOND
    assert figure(trace, "count(throttled)") == Bounds(
        Decimal(0), Decimal(1), "1 wait is missing and may be of these"
    )
    assert figure(trace, "max(blocked)").high is None


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
    for percent in (50, 99):
        limits = figure(trace, f"p{percent}(runq where cgroup=/a)")
        true = np.quantile(chosen, percent / 100, method="inverted_cdf")
        assert limits.high is not None
        assert limits.low <= int(true) <= limits.high <= limits.low * Decimal("1.13") + 16
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


def test_what_was_not_recorded_is_not_known(tmp_path: Path) -> None:
    trace = Trace.open(make_trace(tmp_path, [{}], meta={"blocked": False}))
    assert figure(trace, "p99(blocked)").why == "recorded with --no-blocked"
    assert figure(trace, "p99(gil)").why == "no runtime was looked into"
    assert figure(trace, "p99(runq where comm=typo)").why == "no wait matches its `where`"
    assert figure(trace, "p99(throttled)") == Bounds(Decimal(0), Decimal(0))
    assert verdict(trace, "count(throttled) < 1") == "pass"
    assert verdict(trace, "p99(runq where comm=typo) < 1s") == "unknown"
    (trace.path / "waits" / "000001.parquet").write_bytes(b"PAR1 not")
    damaged = Trace.open(trace.path)
    assert figure(damaged, "p99(runq)").why == "1 parts of the trace cannot be read"


def test_how_many_there_were_of_a_sample_is_known_from_below(tmp_path: Path) -> None:
    rows = [{"kind": "goroutine", "wait_ns": 100 * i, "sampled": 8} for i in (1, 2, 3)]
    trace = Trace.open(make_trace(tmp_path, rows))
    for what, rows_have in (("count", 3), ("total", 600), ("rate", Decimal("0.3"))):
        found = figure(trace, f"{what}(goroutine)")
        assert (found.low, found.high, found.why) == (
            rows_have,
            None,
            "one wait in 8 became a row",
        )
    # As `stat` counts them.
    (group,) = stat(trace, ["kind"]).groups
    assert (group.count, group.total_ns) == (3, 600)
    assert figure(trace, "share(goroutine)").high == 1
    assert verdict(trace, "count(goroutine) < 1000") == "unknown"
    assert verdict(trace, "count(goroutine) < 3") == "fail"
    assert exact(trace, "mean(goroutine)") == 200
    assert exact(trace, "p50(goroutine)") == 200
    assert (figure(trace, "max(goroutine)").low, figure(trace, "max(goroutine)").high) == (
        300,
        None,
    )


def test_what_is_sampled_on_purpose_is_not_damage(tmp_path: Path) -> None:
    go = {"sources": {"go": {"sampled": 8}}}
    trace = Trace.open(make_trace(tmp_path, [{"wait_ns": 1000}], meta=go))
    assert len(trace.notes) == 1
    assert verdict(trace, "p99(runq) < 5ms") == "pass"


def test_a_copy_without_the_waits_passes_nothing(tmp_path: Path) -> None:
    sums = [{"kind": "runq_wakeup", "count": 7, "sum_ns": 7000, "policy": "OTHER"}]
    path = make_trace(tmp_path, [{"wait_ns": 1000}] * 7, histogram_sums=sums)
    assert verdict(Trace.open(path), "p99(runq) < 5s") == "pass"
    shutil.rmtree(path / "waits")
    assert verdict(Trace.open(path), "p99(runq) < 5s") == "unknown"
    assert "are not in the trace" in figure(Trace.open(path), "count(runq)").why
    # Where nothing waited at all, every rule is about nothing.
    shutil.rmtree(path / "histogram_sums")
    assert verdict(Trace.open(path), "p99(runq) < 5s") == "pass"


def test_a_baseline_is_measured_as_the_trace_is(tmp_path: Path) -> None:
    old = Trace.open(make_trace(tmp_path, [{"wait_ns": 1000 * i} for i in range(1, 101)]))
    for name in "bc":
        (tmp_path / name).mkdir()
    path = make_trace(tmp_path / "b", [{"wait_ns": 1100 * i} for i in range(1, 101)])
    new = Trace.open(path)
    for text, expected in [
        ("p99(runq) <= 1.1 * baseline", "pass"),
        ("p99(runq) < 1.1*baseline", "fail"),
        ("p99(runq) < baseline + 10us", "pass"),
        ("p99(runq) < baseline", "fail"),
        ("count(runq) >= baseline", "pass"),
        ("count(runq) > 0.5 * baseline + 50", "fail"),
    ]:
        assert check(new, [parse_rule(text)], old).outcomes[0].verdict == expected, text
    with pytest.raises(UsageError, match="--baseline PATH"):
        check(new, [parse_rule("p99(runq) < baseline")])
    vague = lossy(tmp_path / "c", lost=5)
    rule = parse_rule("max(runq where comm=web) < baseline")
    assert check(new, [parse_rule("max(runq) < baseline")], vague).outcomes[0].verdict == "unknown"
    assert check(vague, [rule], vague).outcomes[0].verdict == "unknown"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a rule"),
        ("p99(runq)", "is not a rule"),
        ("p99(runq) < 5ms; DROP TABLE waits", "has the limit"),
        ("p99(runq) == 5ms", "is not a rule"),
        ("p999(runq) < 5ms", "choose from p50, p99, p99.9"),
        ("p0(runq) < 5ms", "choose from p50"),
        ("p100(runq) < 5ms", "choose from p50"),
        ("p99(cpu) < 5ms", "choose from runq, runq_wakeup"),
        ("p99(runq) < 5", "write it as a duration"),
        ("p99(runq) < 5%", "write it as a duration"),
        ("share(runq) < 5", "write it as a share"),
        ("rate(runq) < 5", "write it as a rate"),
        ("count(runq) < 5ms", "write it as a number"),
        ("count(runq) < -5", "write it as a number"),
        ("p99(runq where colour=red) < 5ms", "cannot select by 'colour'"),
        ("p99(runq where kind=gil) < 5ms", "cannot select by 'kind'"),
        ("p99(runq where cpu=x) < 5ms", "cpu=x is not a number"),
        ("p99(runq where cpu=1 and cpu=2) < 5ms", "names cpu twice"),
        ("p99(runq where cpu=1 and ) < 5ms", "ends with `and`"),
        ("p99(runq where ) < 5ms", "empty `where`"),
        ("p99(runq where comm=a b) < 5ms", "cannot be read"),
        ("p99(runq) < " + "9" * 5000, "characters long"),
    ],
)
def test_a_bad_rule_is_refused_in_words(text: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_rule(text)
    assert message in str(refused.value)
    assert len(str(refused.value)) < 400


@given(st.text(max_size=60))
@settings(max_examples=300)
def test_no_text_breaks_the_parser(text: str) -> None:
    for rule in (text, f"p99(runq where comm={text}) < 5ms", f"p99(runq) < {text}"):
        try:
            parse_rule(rule)
        except UsageError:
            continue


def test_quoted_values_and_hostile_ones(tmp_path: Path) -> None:
    names = ["my app", "' OR 1=1 --", "a)b", "x and y"]
    rows = [{"comm": name, "wait_ns": i} for i, name in enumerate(names, 1)]
    trace = Trace.open(make_trace(tmp_path, rows))
    for i, name in enumerate(names, 1):
        assert exact(trace, f'total(runq where comm="{name}")') == i


def shown(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command, list(arguments))
    return result.exit_code, result.output


def test_one_line_a_rule_and_an_exit_code(tmp_path: Path) -> None:
    rows = [{"comm": "\x1b[31mred", "wait_ns": 2000}, {"kind": "throttled", "wait_ns": 5 * SECOND}]
    path = str(make_trace(tmp_path, [{**r, "end_ns": 6 * SECOND} for r in rows]))
    code, out = shown(path, "p50(runq) < 5ms", "count(runq) > 0")
    assert (code, out.splitlines()) == (
        0,
        [
            "pass     p50(runq) < 5ms  2.00 us",
            "pass     count(runq) > 0  1",
            "losses: nothing was lost",
        ],
    )
    code, out = shown(path, "share(throttled) < 1%", "max(gil) < 1ms")
    assert code == 7
    assert out.splitlines()[:2] == [
        "FAIL     share(throttled) < 1%  50.00%",
        "unknown  max(gil) < 1ms         not known: no runtime was looked into",
    ]
    assert shown(path, "max(gil) < 1ms")[0] == 8
    code, out = shown(path, "max(runq where comm=\x1b[31mred) < 1us", "--json")
    document = json.loads(out)
    assert (code, document["verdict"]) == (7, "fail")
    assert document["rules"][0]["value"] == {"low": 2000, "high": 2000, "why": ""}
    assert "\x1b" not in shown(path, "max(runq where comm=\x1b[31mred) < 1us")[1]


def test_junit_has_a_case_a_rule(tmp_path: Path) -> None:
    path = str(make_trace(tmp_path, [{"wait_ns": 2000}]))
    file = tmp_path / "r.xml"
    rules = [
        "p50(runq) < 5ms",
        "p50(runq) < 1us",
        "max(gil) < 1ms",
        "count(runq where comm='\x01<') < 1",
    ]
    assert shown(path, *rules, "--junit", str(file))[0] == 7
    (suite,) = ElementTree.parse(file).getroot()
    assert {k: suite.get(k) for k in ("tests", "failures", "errors")} == {
        "tests": "4",
        "failures": "1",
        "errors": "2",
    }
    children = [[child.tag for child in case] for case in suite]
    assert children == [["system-out"], ["failure"], ["error"], ["error"]]
    assert suite[1][0].get("message") == "2.00 us"
    assert run(["check", path, rules[0], "--junit", str(file)]) == 6
    assert shown(path, rules[0], "--junit", str(file), "-f")[0] == 0


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
