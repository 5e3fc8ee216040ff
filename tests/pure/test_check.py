"""check: what a rule says where the trace is whole, where it is not, and of a baseline."""

from __future__ import annotations

import json
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from sltrace.analysis.bounds import Bounds
from sltrace.analysis.check import check
from sltrace.analysis.latency import stat
from sltrace.analysis.rules import parse_rule
from sltrace.cli.check import command
from sltrace.cli.main import run
from sltrace.errors import UsageError
from sltrace.trace.reader import Trace
from tests.pure.test_bounds import exact, figure
from tests.support.traces import SECOND, make_trace


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
    of_db = {"tid": 6, "comm": "db", "end_ns": SECOND, "low_ns": 0, "high_ns": SECOND}
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


def test_what_was_not_recorded_is_not_known(tmp_path: Path) -> None:
    trace = Trace.open(make_trace(tmp_path, [{}], meta={"blocked": False}))
    assert figure(trace, "p99(blocked)").why == "recorded with --no-blocked"
    assert figure(trace, "p99(gil)").why == "no Python process was looked into"
    assert figure(trace, "p99(runq where comm=typo)").why == "no wait matches its `where`"
    assert figure(trace, "p99(throttled)") == Bounds(Decimal(0), Decimal(0))
    assert verdict(trace, "count(throttled) < 1") == "pass"
    assert verdict(trace, "p99(runq where comm=typo) < 1s") == "unknown"
    (trace.path / "waits" / "000001.parquet").write_bytes(b"PAR1 not")
    damaged = Trace.open(trace.path)
    assert figure(damaged, "p99(runq)").why == "1 part of the trace cannot be read"


def looked(runtime: str, level: int | None) -> dict[str, Any]:
    return {"pid": 100, "runtime": runtime, "level": level, "from_ns": 0}


@pytest.mark.parametrize(
    ("sources", "targets", "known"),
    [
        # Of a whole machine, as by default: only the names of Go programs are read.
        ({"go": {"level_asked_for": 0, "sampled": None}}, [looked("go", 0)], ""),
        ({"profiles": {"received": {"push": 1}}}, [], ""),
        ({"go": {"level_asked_for": 2, "sampled": None}}, [], ""),
        ({"go": {"level_asked_for": 1, "sampled": None}}, [looked("go", None)], ""),
        ({"go": {"level_asked_for": 1, "sampled": None}}, [looked("go", 1)], "goroutine stw"),
        (
            {"made.slt: go": {"level_asked_for": 2, "sampled": None}},
            [looked("go", 2)],
            "goroutine goroutine_blocked stw",
        ),
        ({"python": {}}, [looked("python", 1)], "gil loop stw"),
        ({"python": {}}, [looked("python", None)], ""),
        ({"python": {"refused": "no such probe"}}, [looked("python", 1)], ""),
        (
            {"python": {}, "go": {"level_asked_for": 2}},
            [looked("go", 2)],
            "goroutine goroutine_blocked stw",
        ),
    ],
)
def test_no_wait_of_a_runtime_is_none_only_where_one_was_looked_into(
    tmp_path: Path, sources: dict[str, Any], targets: list[dict[str, Any]], known: str
) -> None:
    trace = Trace.open(make_trace(tmp_path, [{}], meta={"sources": sources}, targets=targets))
    for kind in ("goroutine", "goroutine_blocked", "stw", "gil", "loop"):
        for rule in ("count({}) < 1", "p99({}) < 1ms", "max({}) < 1us", "share({}) <= 0%"):
            expected = "pass" if kind in known.split() else "unknown"
            assert verdict(trace, rule.format(kind)) == expected, (rule, kind)
        if kind not in known.split():
            assert figure(trace, f"max({kind})").why == {
                "goroutine": "no Go process was looked into",
                "goroutine_blocked": "no Go process was looked into at level 2",
                "stw": "no runtime was looked into",
            }.get(kind, "no Python process was looked into")


def test_what_failed_before_the_end_may_have_missed_anything(tmp_path: Path) -> None:
    gil: list[dict[str, Any]] = [{"kind": "gil", "wait_ns": 100 * i} for i in (1, 2, 3)]
    failed = {"failed": {"after_ns": SECOND, "why": "OSError: gone", "where": "rows"}}
    for rows in (gil[:0], gil):
        path = make_trace(
            tmp_path,
            rows,
            meta={"sources": {"python": failed, "go": {}}},
            targets=[looked("python", 1), looked("go", 1)],
        )
        trace = Trace.open(path)
        for text in (
            *("count(gil) < 5", "max(gil) < 1ms", "total(gil) < 1ms", "rate(gil) < 5/s"),
            *("share(gil) < 50%", "mean(gil) < 1ms", "p50(gil) < 1ms", "count(stw) < 1"),
        ):
            assert verdict(trace, text) == "unknown", text
        assert verdict(trace, "count(goroutine) < 1") == "pass"
        assert verdict(trace, "count(throttled) < 1") == "pass"
    assert figure(trace, "max(gil)").why == "what records python failed before the end"
    # What there was, there was.
    assert verdict(trace, "max(gil) < 200ns") == "fail"
    assert verdict(trace, "count(gil) >= 3") == "pass"


def test_the_mean_of_a_sample_of_which_some_were_lost_is_known_from_below(tmp_path: Path) -> None:
    rows = [{"kind": "goroutine", "wait_ns": 100 * i, "sampled": 8} for i in (1, 2, 3)]
    go = {"sources": {"go": {"sampled": 8, "counters": {"go_ring_full": 3}}}}
    trace = Trace.open(make_trace(tmp_path, rows, meta=go))
    found = figure(trace, "mean(goroutine)")
    assert (found.low, found.high) == (Decimal(100), None)
    assert "3 waits are missing" in found.why
    assert verdict(trace, "mean(goroutine) < 1ms") == "unknown"
    assert verdict(trace, "mean(goroutine) < 100ns") == "fail"


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
    longest = figure(trace, "max(goroutine)")
    assert longest.low == 300
    assert longest.high is None


def test_of_a_sample_without_a_row_nothing_is_known(tmp_path: Path) -> None:
    """A goroutine may have waited seven times before the runtime notes one wait."""
    go = {"sources": {"go": {"sampled": 8}}}
    trace = Trace.open(make_trace(tmp_path, [{"comm": "web"}], meta=go, targets=[looked("go", 1)]))
    for text in ("count(goroutine) < 1", "max(goroutine) < 1ms", "p99(goroutine) < 1ms"):
        assert verdict(trace, text) == "unknown", text
    # The runtime notes each of those.
    assert verdict(trace, "count(stw) < 1") == "pass"


@pytest.mark.parametrize("counter", ["go_ring_full", "go_unreadable", "go_scratch_full"])
def test_waits_of_goroutines_that_were_lost_may_be_of_any(tmp_path: Path, counter: str) -> None:
    go = {"sources": {"go": {"sampled": None, "counters": {counter: 1000}}}}
    rows = [{"kind": "goroutine", "wait_ns": 100 * i} for i in (1, 2, 3)]
    trace = Trace.open(make_trace(tmp_path, [*rows, {}], meta=go))
    found = figure(trace, "count(goroutine)")
    assert (found.low, found.high) == (Decimal(3), Decimal(1003))
    assert verdict(trace, "count(goroutine) < 4") == "unknown"
    assert verdict(trace, "max(goroutine) < 1ms") == "unknown"
    assert verdict(trace, "max(goroutine) < 200ns") == "fail"
    assert verdict(trace, "max(runq) < 1ms") == "pass"


def test_of_runtimes_histograms_alone_tell_nothing(tmp_path: Path) -> None:
    """Whatever rows of theirs there are: the histograms are of the scheduler's waits."""
    rows = [{"kind": "goroutine", "wait_ns": SECOND}]
    meta = {"histogram_only": True, "sources": {"go": {}}}
    trace = Trace.open(make_trace(tmp_path, rows, meta=meta))
    assert verdict(trace, "p99(goroutine) < 1ms") == "unknown"
    assert "keeps no waits of runtimes" in figure(trace, "max(goroutine)").why
    assert not any("--kept" in note for note in stat(trace).notes)


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
    assert "cannot be read" in figure(Trace.open(path), "count(runq)").why
    # Of an older sltrace, which did not say how many segments there are.
    meta = json.loads((path / "meta.json").read_text())
    del meta["segments"]
    (path / "meta.json").write_text(json.dumps(meta))
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
    (tmp_path / "d").mkdir()
    some = [{"wait_ns": 1000 * i} for i in range(1, 101)]
    limited = Trace.open(make_trace(tmp_path / "d", some, meta={"filters": {"cpus": [0]}}))
    found = check(limited, [parse_rule("p99(runq) <= 1.1 * baseline")], old)
    assert found.verdict == "unknown"
    assert any("it was not limited to the same" in note for note in found.notes)
    assert check(limited, [parse_rule("p99(runq) < 1ms")], old).verdict == "pass"
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
        "unknown  max(gil) < 1ms         not known: no Python process was looked into",
    ]
    assert shown(path, "max(gil) < 1ms")[0] == 8
    code, out = shown(path, "max(runq where comm=\x1b[31mred) < 1us", "--json")
    document = json.loads(out)
    assert (code, document["verdict"]) == (7, "fail")
    assert document["rules"][0]["value"] == {"low": 2000, "high": 2000, "why": ""}
    assert "\x1b" not in shown(path, "max(runq where comm=\x1b[31mred) < 1us")[1]


def test_why_a_figure_is_not_exact_is_clean(tmp_path: Path) -> None:
    process = {"pid": 7, "level": "\x1b[31m", "looked": 0.5}
    meta = {"sources": {"go": {"sampled": 8, "budget": 0.01, "processes": [process]}}}
    path = str(make_trace(tmp_path, [{"kind": "goroutine"}], meta=meta))
    code, out = shown(path, "count(goroutine) < 9")
    assert (code, "\x1b" in out, "\\x1b[31m" in out) == (8, False, True)


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


def test_one_document_on_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(make_trace(tmp_path, [{"wait_ns": 2000}]))
    assert run(["check", path, "p50(runq) < 5ms", "--json", "--junit", "-"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "both write to standard output; give --junit a file" in shown.err
