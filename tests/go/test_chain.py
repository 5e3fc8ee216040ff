"""Chains of traces made by hand, with a known answer."""

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

from sltrace.analysis.golang.chain import NOBODY, chain
from sltrace.analysis.golang.reasons import explain
from sltrace.analysis.golang.sites import sites
from sltrace.cli.main import cli
from sltrace.errors import OutputError, UsageError
from sltrace.trace.reader import Trace
from tests.support.gotraces import STACKS, TARGET, made, waited
from tests.support.traces import SECOND, make_trace


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
    for reason, words, costs in (
        ("chan send", "waits until a channel takes its value", ""),
        ("IO wait", "waits for the network (netpoller)", "a system call"),
        ("system call", "came back from a system call", "a system call; its P is handed off"),
        ("something new", "something new", ""),
    ):
        assert (explain(reason).words, explain(reason).costs) == (words, costs)
