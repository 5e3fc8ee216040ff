"""What stat, blame and export say of a trace: figures, names made safe, files and pipes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sltrace.cli.main import cli
from tests.support.cli import in_process
from tests.support.programs import ROOT
from tests.support.traces import META, SECOND, make_trace


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    hog = {"culprit_tid": 9, "culprit_pid": 9, "culprit_comm": "hog", "culprit_ns": 1500}
    return make_trace(
        tmp_path,
        [
            {"wait_ns": 2000, "comm": "\x1b[31mred", **hog},
            {"wait_ns": 3000, "kind": "throttled", "cgroup": "/q"},
            {"wait_ns": 5000, "kind": "blocked"},
        ],
    )


def test_stat_prints_totals_apart_and_cleans_names(trace: Path) -> None:
    done = in_process("stat", str(trace), "--by", "comm")
    assert done.returncode == 0, done.stderr
    lines = [re.split(r"  +", line) for line in done.stdout.splitlines()]
    assert ["total, run queue", "1", *["2.00 us"] * 6] in lines
    assert ["total, throttled", "1", *["3.00 us"] * 6] in lines
    assert ["\\x1b[31mred", "1", *["2.00 us"] * 6] in lines
    assert done.stdout.endswith("losses: nothing was lost\n")
    assert "\x1b" not in done.stdout


def test_json_is_one_document_in_ns(trace: Path) -> None:
    result = json.loads(in_process("stat", str(trace), "--by", "comm,cpu", "--json").stdout)
    assert result["groups"][0]["keys"] == {"comm": "\x1b[31mred", "cpu": 0}
    assert result["groups"][0]["p99_ns"] == result["groups"][0]["p99_low_ns"] == 2000
    assert result["totals"]["blocked"]["total_ns"] == 5000
    blamed = json.loads(in_process("blame", str(trace), "--json").stdout)
    assert blamed["total_ns"] == 5000
    assert blamed["losses"]["lost"] == 0
    assert {c["what"]: c["wait_ns"] for c in blamed["cells"]} == {
        "quota": 3000,
        "task": 1500,
        "unknown": 500,
    }


def test_blame_names_the_hog_and_the_quota(trace: Path) -> None:
    out = in_process("blame", str(trace), "--by", "comm").stdout
    assert re.search(r"^\\x1b\[31mred +hog +1\.50 us +30\.0% +1$", out, re.MULTILINE)
    assert re.search(r"^web +quota of /q +3\.00 us +60\.0% +1$", out, re.MULTILINE)
    assert re.search(r"^total +5\.00 us +2$", out, re.MULTILINE)


def test_the_rest_is_summed(tmp_path: Path) -> None:
    path = make_trace(tmp_path, [{"comm": f"t{i}", "wait_ns": 1000} for i in range(9)])
    out = in_process("stat", str(path), "--by", "comm", "--top", "2").stdout
    assert re.search(r"^all others \(7\) +7 +7\.00 us$", out, re.MULTILINE)
    out = in_process("blame", str(path), "--by", "comm", "--top", "2").stdout
    assert re.search(r"^all others +7\.00 us +77\.8% +7$", out, re.MULTILINE)


@pytest.mark.parametrize("command", ["stat", "blame", "diff", "export"])
def test_what_there_is_instead_of_nothing_is_said(
    trace: Path, tmp_path: Path, command: str
) -> None:
    more = {"diff": ["--at", "5s"], "export": ["--to", "folded", "-o", str(tmp_path / "out")]}
    for only, said in (
        (["comm=nobody"], "no waits: comm is web, \\x1b[31mred\n"),
        (["cgroup=web", "cpu=7"], "no waits: cgroup is /, /q; cpu is 0\n"),
        (["policy=FIFO", "cpu=0"], "no waits: policy is OTHER\n"),
        (["trace_id=ab"], "no waits: the trace has none, or none that match\n"),
        (["comm=web", "cgroup=/q", "kind=gil"], "no waits: kind is "),
    ):
        options = [o for value in only for o in ("--only", value)]
        done = in_process(command, str(trace), *options, *more.get(command, ()), "--top", "3")
        if command == "export":
            done = in_process(command, str(trace), *options, *more[command], "-f")
        assert done.returncode == 0, done.stderr
        assert said in done.stdout + done.stderr


def test_blame_of_nothing_is_no_table(trace: Path) -> None:
    done = in_process("blame", str(trace), "--only", "kind=gil")
    assert done.stdout.splitlines() == [
        "no waits: kind is blocked, runq_wakeup, throttled; no Python process was looked into",
        f"next: sltrace stat {trace} --by kind",
        "losses: none of these waits was lost",
    ]


_PID = {"pids": [7]}


@pytest.mark.parametrize(
    ("command", "meta", "said"),
    [
        ("go", {}, "; record one with sltrace record --pid PID or -- COMMAND, not with --loader"),
        ("go", {"sources": {"go": {}}}, ": none was among those that were recorded; record one"),
        ("go", {"sources": {}, "loader": "bcc"}, "--loader bcc looks into none; record again w"),
        ("go", {"sources": {}}, ": --no-go looks into none; record again without --no-go"),
        ("python", {}, "; record one with sltrace record --pid PID or -- COMMAND, not with"),
        ("python", {"sources": {"python": {}}, "filters": _PID}, ": none was among those that"),
        ("python", {"sources": {}, "loader": "bcc", "filters": _PID}, "record again without --l"),
        ("python", {"sources": {"go": {}}}, ": only those that are named are looked into; record"),
        ("python", {"sources": {}, "filters": _PID}, "record again without --no-python"),
        (
            "python",
            {"sources": {}, "filters": _PID, "histogram_only": True},
            ": --histogram-only looks into none; record again without --histogram-only",
        ),
    ],
)
def test_why_no_process_of_a_runtime_is_there(
    tmp_path: Path, command: str, meta: dict[str, Any], said: str
) -> None:
    path = make_trace(tmp_path, [{"wait_ns": 1}], meta=meta)
    done = in_process(command, str(path))
    assert done.returncode == 2
    assert done.stderr.startswith(f"sltrace: {path} has no {command.capitalize()} process")
    assert said in done.stderr


def test_kinds_of_a_newer_sltrace_can_be_selected(tmp_path: Path) -> None:
    trace = str(make_trace(tmp_path, [{"kind": "new"}]))
    done = in_process("stat", trace, "--only", "kind=new")
    assert done.returncode == 0
    assert "total, new" in done.stdout


def test_a_trace_of_histograms_says_what_there_is(tmp_path: Path) -> None:
    row = {"kind": "runq_wakeup", "cgroup": "/web", "cgroup_id": 1, "policy": "OTHER"}
    trace = make_trace(
        tmp_path,
        meta={"histogram_only": True},
        histogram_sums=[row | {"count": 1, "sum_ns": 5}],
        histograms=[row | {"bucket": 1, "count": 1}],
    )
    done = in_process("stat", str(trace), "--only", "cgroup=/nope")
    assert "no waits: cgroup is /web\n" in done.stdout


@pytest.mark.parametrize("target", ["pprof", "folded", "parquet", "json"])
def test_export_names_its_file_and_pipes(
    trace: Path, tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = in_process("export", str(trace) + "/", "--to", target)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    (file,) = (p for p in tmp_path.iterdir() if p != trace)
    assert file.stem.startswith("made")
    again = in_process("export", str(trace), "--to", target)
    assert again.returncode == 6
    piped = subprocess.run(
        [sys.executable, "-m", "sltrace", "export", str(trace), "--to", target, "-o", "-"],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
    )
    assert piped.stdout == file.read_bytes()


def test_export_of_histograms_says_why_not(tmp_path: Path) -> None:
    path = make_trace(tmp_path, meta={"histogram_only": True})
    done = in_process("export", str(path), "--to", "json", "-o", "-")
    assert done.returncode == 2
    assert "histograms only" in done.stderr


def test_a_little_is_not_nothing(tmp_path: Path) -> None:
    hour = {"clock": META["clock"] | {"end_ns": 3600 * SECOND}}
    throttled = [{"kind": "throttled", "wait_ns": 1_004_000, "cgroup": "/q"}] * 40
    ran = [{"wait_ns": 600 * SECOND, "end_ns": 700 * SECOND, "tid": 7}]
    path = str(make_trace(tmp_path, [*throttled, *ran], meta=hour))
    rules = ("rate(throttled) <= 0/s", "share(throttled) <= 0%", "max(throttled) <= 1ms")
    said = CliRunner().invoke(cli, ["check", path, *rules, "count(throttled) <= 39"]).output
    assert re.search(r"^FAIL +rate\(throttled\) <= 0/s +0\.0111/s$", said, re.MULTILINE)
    assert re.search(r"^FAIL +share\(throttled\) <= 0% +0\.000028%$", said, re.MULTILINE)
    assert re.search(r"^FAIL +max\(throttled\) <= 1ms +1,004,000 ns$", said, re.MULTILINE)
    assert re.search(r"^FAIL +count\(throttled\) <= 39 +40$", said, re.MULTILINE)
    blamed = in_process("blame", path).stdout
    assert re.search(r"^/q +quota of /q +40\.2 ms +<0\.1% +40$", blamed, re.MULTILINE)
    compared = in_process("diff", path, path, "--only", "kind=throttled", "--by", "cgroup").stdout
    assert re.search(r"waits per second +0\.0111 +0\.0111", compared), compared


def test_a_side_without_waits_is_said_to_be_one(trace: Path) -> None:
    sides = ("--a", "cgroup=/nope", "--b", "cgroup=/", "--only", "kind=runq_wakeup")
    said = in_process("diff", str(trace), *sides).stdout
    assert re.search(r"^A has no waits: cgroup is /, /q", said, re.MULTILINE)
    assert "B has no waits" not in said
