"""Chains, windows and findings of traces made by hand, with a known answer."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner

from heatmaps.facts import facts
from sltrace.analysis.bounds import measure
from sltrace.analysis.cube import build_cube
from sltrace.analysis.golang.chain import NOBODY, chain
from sltrace.analysis.golang.findings import findings
from sltrace.analysis.golang.health import windows
from sltrace.analysis.golang.reasons import explain
from sltrace.analysis.golang.sites import sites
from sltrace.analysis.rules import parse_rule
from sltrace.cli.main import cli
from sltrace.errors import OutputError, UsageError
from sltrace.trace.reader import Trace
from tests.support.traces import SECOND, make_trace

FRAMES = {
    1: "runtime.gopark",
    2: "main.waits",
    3: "main.start",
    4: "runtime.goexit",
    5: "main.wakes",
    6: "time.Sleep",
    7: "runtime.bgsweep",
    8: "runtime.systemstack_switch",
}
STACKS = {
    11: [1, 2, 3, 4],
    12: [5, 3, 4],
    13: [1, 6, 2, 3, 4],
    14: [1, 7, 4],
    15: [1],
    16: [8, 7, 4],
}
TARGET = {"pid": 100, "runtime": "go", "version": "go1.27.3", "exe": "/x", "level": 2, "why": ""}


def made(folder: Path, waits: list[dict[str, Any]] = [], **tables: Any) -> Trace:  # noqa: B006
    return Trace.open(
        make_trace(
            folder,
            waits,
            targets=[TARGET],
            stacks=[
                {"stack_id": number, "space": "go", "pid": 100, "addresses": addresses}
                for number, addresses in STACKS.items()
            ],
            frames=[
                {"space": "go", "pid": 100, "address": a, "name": n, "module": "x",
                 "build_id": "", "language": "go"}
                for a, n in FRAMES.items()
            ],
            **tables,
        )
    )  # fmt: skip


def waited(kind: str, ns: int, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "wait_ns": ns, "goid": 7, "stack_runtime": 11, "sampled": 8, **more}


def test_chain_sums_by_where_why_and_waker(tmp_path: Path) -> None:
    woken = {"reason": "chan receive", "waker_goid": 9, "waker_stack_runtime": 12}
    trace = made(
        tmp_path,
        [
            waited("goroutine_blocked", 5000, trace_id="a" * 32, **woken),
            waited("goroutine", 300, trace_id="a" * 32, **woken),
            waited("goroutine_blocked", 7000, **woken),
            waited("goroutine", 100, **woken),
            waited("goroutine_blocked", 900, reason="sleep"),
            waited("goroutine", 50, reason="sleep"),
            waited("runq_wakeup", 10**9),
        ],
    )
    first, second = chain(trace).links
    assert (first.where, first.started, first.waker) == ("main.waits", "main.start", "main.wakes")
    assert (first.count, first.blocked_ns, first.runq_ns) == (2, 12_000, 400)
    assert (second.waker, second.blocked_ns) == (NOBODY, 900)
    path = chain(trace, trace_id="a" * 32).steps
    assert [(s.kind, s.waker_goid) for s in path] == [("goroutine_blocked", 9), ("goroutine", 9)]
    assert not chain(trace, trace_id="a" * 32).several
    with pytest.raises(UsageError, match="no goroutine waits match"):
        chain(trace, goid=99)


def test_where_a_goroutine_waits_is_told_from_where_all_do(tmp_path: Path) -> None:
    """All that sleep do so in one function, and all of the runtime's own park in one."""
    found = sites(made(tmp_path), STACKS)
    where = {number: (site.where, site.started) for number, site in found.items()}
    assert where == {
        11: ("main.waits", "main.start"),
        12: ("main.wakes", "main.start"),
        13: ("main.waits", "main.start"),
        14: ("runtime.bgsweep", "runtime.bgsweep"),
        15: ("runtime.gopark", "runtime.gopark"),
        16: ("runtime.bgsweep", "runtime.bgsweep"),
    }


def test_a_chain_says_why_it_does_not_know_who_woke_whom(tmp_path: Path) -> None:
    """It was not asked for, or was not to be had, or nothing was."""
    found = []
    for asked, why in ((1, ""), (2, "no place for it")):
        path = make_trace(
            tmp_path,
            [waited("goroutine", 300)],
            targets=[TARGET | {"level": 1, "why": why}],
            meta={"sources": {"go": {"level_asked_for": asked}}},
        )
        found.append(chain(Trace.open(path)).notes[-1])
        said = CliRunner().invoke(cli, ["chain", str(path)])
        assert re.search(r" -  +- +300 ns +1$", said.output, re.M), said.output
    assert found == [
        "who woke whom is not in this trace: record with --go-level 2",
        "who woke whom is not in this trace: 100 was at level 1 only: no place for it",
    ]
    refused = make_trace(tmp_path, targets=[TARGET | {"level": None, "why": "built by go1.99"}])
    with pytest.raises(UsageError, match=r"no goroutine waits; .* \(100\) .*: built by go1.99"):
        chain(Trace.open(refused))


@pytest.mark.parametrize("part", [{"trace_id": "a" * 32}, {"goid": 5_000_000_000}])
def test_the_losses_of_a_chain_are_those_of_the_part_asked_for(
    tmp_path: Path, part: dict[str, Any]
) -> None:
    missed = {"pid": 100, "cause": "hole", "low_ns": 5, "high_ns": 40, "end_ns": SECOND}
    trace = made(
        tmp_path,
        [waited("goroutine", 100, tid=101, **part), waited("goroutine", 100, tid=102)],
        missed=[{**missed, "tid": 101}, *[{**missed, "tid": 102}] * 8],
    )
    assert chain(trace).losses.sentence.startswith("9 waits not seen whole")
    assert chain(trace, **part).losses.sentence.startswith(
        "1 wait not seen whole, 5 ns to 40 ns (at most 50.00% of these"
    )


def test_goroutines_are_called_what_their_runtime_calls_them(tmp_path: Path) -> None:
    """And not what the file does, which may be the name of the assembly behind it."""
    trace = made(tmp_path, [waited("goroutine", 100, reason="sleep")])
    also = pa.Table.from_pylist(
        [{"space": "user", "pid": 100, "address": 4, "name": "runtime.goexit.abi0",
          "module": "zzz", "build_id": "", "language": "native"}]
    )  # fmt: skip
    trace.connection.register("also", also)
    trace.connection.execute("CREATE TABLE both_names AS FROM frames UNION ALL BY NAME FROM also")
    trace.connection.execute("CREATE OR REPLACE VIEW frames AS FROM both_names")
    (link,) = chain(trace).links
    assert (link.where, link.started) == ("main.waits", "main.start")


def test_a_backlog_names_the_stack_that_waited_longest(tmp_path: Path) -> None:
    at = [SECOND + i * SECOND // 10 for i in range(30)]
    gauges = [
        {"ns": ns, "pid": 100, "name": name, "item": None, "value": value}
        for ns in at
        for name, value in (("gomaxprocs", 1.0), ("runq_local", 40.0))
    ]
    rows = [
        waited("goroutine", ns, reason="sleep", stack_runtime=stack, end_ns=2 * SECOND)
        for stack, ns in ((12, 10), (11, 500), (12, 20), (12, 30))
    ]
    trace = made(tmp_path, rows, gauges=gauges)
    (found,) = findings(trace)
    assert "as in main.start" in found.sentence
    assert found.evidence["by_reason"][0]["total"] == 560


def test_a_backlog_that_comes_and_goes_is_no_time_of_idle_ps(tmp_path: Path) -> None:
    """None is idle while goroutines are queued, though both are in each of the seconds."""
    gauges = [
        {"ns": SECOND + i * SECOND // 10, "pid": 100, "name": name, "item": None, "value": value}
        for i in range(30)
        for name, value in (
            ("gomaxprocs", 2.0),
            ("runq_local", 0.0 if i % 10 else 400.0),
            ("idle_ps", 2.0 if i % 10 else 0.0),
        )
    ]
    (found,) = findings(made(tmp_path, gauges=gauges))
    assert (
        "up to 20 goroutines were queued per P, on average over a second, in 3 " in found.sentence
    )
    assert "meanwhile 0% of the Ps were idle" in found.sentence


def test_a_leak_only_grows(tmp_path: Path) -> None:
    def scans(counts: list[int]) -> list[dict[str, Any]]:
        return [
            {"ns": i * SECOND, "source": "wall", "pid": 100, "state": "waiting", "reason": "select",
             "count": n, "stack_runtime": 11}
            for i, n in enumerate(counts)
        ]  # fmt: skip

    (found,) = findings(made(tmp_path, samples=scans([10, 60, 110, 160, 210])))
    assert found.name == "goroutine_leak"
    assert found.evidence["where"] == "main.waits"
    assert "main.waits (select), started by main.start, grew from 10 to 210" in found.sentence
    # The last but one is a pool that has been filled.
    filled = [10, 500, 1000, 1500, 2000, 2000, 2000]
    for healthy in ([10, 200, 20, 210, 30, 220], [500, 500, 501, 500, 500], filled, [10, 210]):
        assert not findings(made(tmp_path, samples=scans(healthy)))


def scans_of(scans: list[dict[int, int]]) -> list[dict[str, Any]]:
    """Rows of `samples`, a scan each second: by stack how many goroutines wait there."""
    return [
        {"ns": i * SECOND, "source": "wall", "pid": 100, "state": "waiting", "reason": "select",
         "count": n, "stack_runtime": stack}
        for i, counts in enumerate(scans)
        for stack, n in counts.items()
    ]  # fmt: skip


def test_counts_that_stray_by_chance_are_no_leak(tmp_path: Path) -> None:
    """Of 30,000 goroutines 2,048 are looked at: what a quarter of them is thought to be strays."""

    def found_of(counts: list[int]) -> list[Any]:
        scans = [{11: n, 12: 30_000 - n} for n in counts]
        return [f.evidence["counts"] for f in findings(made(tmp_path, samples=scans_of(scans)))]

    assert not found_of([7179, 7414, 7458, 7600])
    assert not found_of([7179, 7414, 7458, 7600, 7700, 7810])
    # What grows by far more than that is one, and so is what grows where all are looked at.
    leak = [3000, 5000, 7000, 9000, 11_000]
    assert found_of(leak) == [leak]
    few = [{11: n, 12: 900} for n in (500, 560, 620, 680, 740)]
    (found,) = findings(made(tmp_path, samples=scans_of(few)))
    assert found.evidence["counts"] == [500, 560, 620, 680, 740]


def test_a_stack_that_was_gone_between_is_no_leak(tmp_path: Path) -> None:
    """Ever larger batches, each of which ends: a scan that does not have it says that it fell."""
    batches = [{12: 5} | ({11: n} if n else {}) for n in (150, 0, 300, 0, 500, 0, 1500)]
    assert not findings(made(tmp_path, samples=scans_of(batches)))
    # One that begins late is a leak all the same.
    late = [{12: 5} | ({11: n} if n else {}) for n in (0, 0, 10, 60, 110, 160, 210)]
    (found,) = findings(made(tmp_path, samples=scans_of(late)))
    assert found.evidence["counts"] == [10, 60, 110, 160, 210]


def test_time_lost_with_a_p_is_that_of_threads_that_held_one(tmp_path: Path) -> None:
    ps = [{"ns": 0, "pid": 100, "name": "gomaxprocs", "value": 2.0}]
    lost = {"kind": "runq_preempt", "end_ns": 5 * SECOND, "wait_ns": 4 * SECOND, "queued": 3}
    assert not findings(made(tmp_path, [lost], gauges=ps))
    # 4 s of 2 Ps' 10 s each.
    (found,) = findings(made(tmp_path, [{**lost, "held_p": 0}] * 2, gauges=ps))
    assert found.name == "lost_p"
    assert found.evidence["preempted_ns"] == 8 * SECOND
    assert found.evidence["queued_behind_ns"] == 24 * SECOND


def test_ps_that_were_there_for_longer_count_for_more(tmp_path: Path) -> None:
    """A busy one of 8, then the only one: 2 of 9, as the runtime's /cpu/classes has it."""
    gauges = [
        {"ns": ns * SECOND, "pid": 100, "name": name, "value": value}
        for ns, ps, idle, queued in ((1, 8.0, 7.0, 0.0), (2, 1.0, 0.0, 18.0))
        for name, value in (("gomaxprocs", ps), ("idle_ps", idle), ("runq_local", queued))
    ]
    (window,) = windows(made(tmp_path, gauges=gauges), 10 * SECOND)
    assert window.p_utilisation == pytest.approx(2 / 9)
    assert window.runnable_per_p == pytest.approx(2)


def test_windows_count_idle_ps_and_waits(tmp_path: Path) -> None:
    gauges = [
        {"ns": t * SECOND, "pid": 100, "name": name, "value": value}
        for t in (1, 2, 6)
        for name, value in (("gomaxprocs", 4.0), ("idle_ps", float(t)), ("spinning_ms", 1.0),
                            ("runq_local", 0.0), ("runq_global", 0.0))
    ]  # fmt: skip
    trace = made(tmp_path, [waited("goroutine", 100), waited("goroutine", 300)], gauges=gauges)
    first, second = windows(trace, 5 * SECOND)
    assert first.p_utilisation == pytest.approx(1 - 1.5 / 4)
    assert (first.waits, first.mean_wait_ns, first.spinning) == (2, 200, 1.0)
    assert (second.waits, second.start_ns) == (0, 5 * SECOND)


def test_the_page_of_chains_has_them_all_and_nothing_that_runs(tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script>"
    woken = {"reason": "chan receive", "waker_goid": 9, "waker_stack_runtime": 12}
    trace = made(
        tmp_path,
        [waited("goroutine_blocked", 5000, **woken), waited("goroutine", 300, reason=hostile)],
        meta={"host": hostile},
    )
    page = tmp_path / "chain.html"
    command = ["chain", str(trace.path), "--goid", "7", "-o", str(page)]
    assert CliRunner().invoke(cli, command).exit_code == 0
    text = page.read_text()
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert data
    found = json.loads(data[1])
    assert (found["subject"], found["host"]) == ("goroutine 7", hostile)
    said = [(link.where, link.blocked_ns, link.runq_ns, link.count) for link in chain(trace).links]
    assert said == [(k["where"], k["blocked"], k["runq"], k["count"]) for k in found["links"]]
    assert [(s["to"] - s["from"], s["parked"]) for s in found["steps"]] == [
        (5000, True),
        (300, False),
    ]
    code = re.findall(r"<script>(.*?)</script>", text, re.S)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    assert set(re.findall(r"'sha256-([^']+)'", policy[1])) == {
        base64.b64encode(hashlib.sha256(c.encode()).digest()).decode() for c in code
    }
    assert "default-src 'none'" in policy[1]
    assert not re.search(r'\b(src|href)="', text)
    # It stays what it is unless told otherwise.
    assert isinstance(CliRunner().invoke(cli, command).exception, OutputError)
    assert CliRunner().invoke(cli, [*command, "--force"]).exit_code == 0
    both = CliRunner().invoke(cli, [*command, "--json"]).exception
    assert isinstance(both, UsageError)


def test_goroutines_of_two_processes_are_not_one(tmp_path: Path) -> None:
    """Each process counts its own from 1."""
    trace = made(tmp_path, [waited("goroutine", ns, pid=ns) for ns in (100, 200, 200)])
    with pytest.raises(UsageError, match="2 processes have a goroutine 7: 100, 200"):
        chain(trace, goid=7)
    path = chain(trace, goid=7, pid=200)
    assert [s.end_ns - s.start_ns for s in path.steps] == [200, 200]
    (all_of_one,) = chain(trace, pid=200).links
    assert (all_of_one.count, chain(trace, pid=200).steps) == (2, ())


def test_a_long_path_says_how_long_it_is(tmp_path: Path) -> None:
    """A goroutine that yields all the time: only the beginning of its path is read."""
    rows = [waited("goroutine", 100, reason=f"r{n % 3}") for n in range(10_005)]
    trace = made(tmp_path, rows)
    run = CliRunner().invoke
    said = run(cli, ["chain", str(trace.path), "--goid", "7", "--top", "2"]).output
    assert "and 1 more; --top 3 shows all\n" in said
    # Nobody woke it, which is known.
    assert "record with --go-level 2" not in said
    assert "and 10,003 more; --top 10000 shows the first 10,000\n" in said
    answer = json.loads(run(cli, ["chain", str(trace.path), "--goid", "7", "--json"]).output)
    assert (len(answer["steps"]), answer["steps_total"]) == (10_000, 10_005)
    page = run(cli, ["chain", str(trace.path), "--goid", "7", "-o", "-"]).output
    assert "of 10,005 waits of the path are on this page" in page


def test_reasons_have_plain_words() -> None:
    assert explain("system call") == "came back from a system call"
    assert explain("chan send") == "waits until a channel takes its value"
    assert explain("something new") == "something new"


def test_commands_say_what_to_record(tmp_path: Path) -> None:
    trace = make_trace(tmp_path, [{}])
    for command in ("go", "chain"):
        done = CliRunner().invoke(cli, [command, str(trace)])
        assert isinstance(done.exception, UsageError)
        assert "--pid PID" in str(done.exception)
    healthy = made(tmp_path)
    done = CliRunner().invoke(cli, ["go", str(healthy.path)])
    assert "nothing was read, so what is wrong is not known" in done.output
    document = json.loads(CliRunner().invoke(cli, ["go", str(healthy.path), "--json"]).output)
    assert document["findings"] == []


def test_every_view_says_that_probes_were_on_in_part(tmp_path: Path) -> None:
    """And no figure of what they tell is taken for all there was; those of the kernel are."""
    process = {"pid": 100, "level": 1, "looked": 0.27}
    source = {"sources": {"go": {"budget": 0.03, "processes": [process], "counters": {}}}}
    edges = [
        {"ns": t * SECOND, "pid": 100, "name": "probes_on", "value": value}
        for t, value in ((1, 1.0), (3, 0.0), (6, 1.0), (7, 0.0), (9, 1.0))
    ]
    rows = [{"kind": "stw", "wait_ns": 5}, waited("goroutine", 9), {"kind": "runq_wakeup"}]
    path = str(make_trace(tmp_path, rows, targets=[TARGET], meta=source, gauges=edges))
    for command in (["stat"], ["go"], ["chain"], ["stat", "--json"]):
        done = CliRunner().invoke(cli, [command[0], path, *command[1:]])
        said = "level 1 looked at Go process 100 27.0% of the time, to stay within 3% of its CPU"
        assert said in done.output, command
    trace = Trace.open(path)
    assert any("looked at Go process 100" in n for n in facts(trace, build_cube(trace))["notes"])
    for what, all_there in (("stw", False), ("goroutine", False), ("runq", True)):
        assert measure(trace, parse_rule(f"count({what}) < 9")).exact == all_there, what
    (window,) = windows(trace, 10 * SECOND)
    assert window.looked == pytest.approx(4 / 9)


def test_every_view_says_that_goroutines_are_sampled(tmp_path: Path) -> None:
    source = {"sources": {"go": {"sampled": 8, "processes": [], "counters": {}}}}
    path = str(make_trace(tmp_path, [waited("goroutine", 5)], targets=[TARGET], meta=source))
    for command in (["stat"], ["go"], ["chain"], ["stat", "--json"]):
        done = CliRunner().invoke(cli, [command[0], path, *command[1:]])
        assert "1 in 8" in done.output, command
    trace = Trace.open(path)
    assert any("1 in 8" in note for note in facts(trace, build_cube(trace))["notes"])
