"""The program as a user runs it: exit codes, one-line errors, lazy imports."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from sltrace import errors
from sltrace.capture import checkup
from sltrace.cli.main import _COMMANDS, cli
from tests.support.traces import make_trace

ROOT = Path(__file__).parents[2]
HEAVY = ("numpy", "pyarrow", "duckdb", "plotly", "pandas", "google.protobuf")


def sltrace(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sltrace", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        **options,  # type: ignore[call-overload]
    )


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


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys; from sltrace.cli.main import run; code = run(['--help']);"
        f"print([m for m in {HEAVY!r} if m in sys.modules]); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "[]"
    for name in _COMMANDS:
        assert re.search(rf"^  {name}  +\w", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    "name",
    [
        "stat",
        "blame",
        "check",
        "diff",
        "diagnose",
        "explain",
        "merge",
        "top",
        "export",
        "completion",
    ],
)
def test_the_help_of_a_command_loads_nothing_heavy(name: str) -> None:
    program = (
        "import sys; from sltrace.cli.main import run; code = run(sys.argv[1:]);"
        f"print([m for m in {HEAVY!r} if m in sys.modules]); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, name, "-h"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["stat", "nowhere.slt"], 5, "nowhere.slt does not exist; "),
        (["stat", "TRACE", "--by", "colour"], 2, "cannot group by 'colour'; choose from kind"),
        (["stat", "TRACE", "--only", "cpu=x"], 2, "cpu=x is not a number"),
        (["stat", "TRACE", "--only", "cpu"], 2, "--only cpu is not DIM=VALUE"),
        (["stat", "TRACE", "--only", "kind=foo"], 2, "no kind 'foo'; choose from runq_wakeup, "),
        (["diff", "TRACE", "--a", "kind=foo"], 2, "no kind 'foo'; choose from runq_wakeup, "),
        (["blame", "TRACE", "--after", "2s", "--before", "1s"], 2, "after 2.00 s and before 1.00"),
        (["stat", "TRACE", "--after", "10s"], 2, "after 10.0 s; the recording is 10.0 s long"),
        (["export", "TRACE", "--to", "json", "--before", "0s"], 2, "recording is 10.0 s long"),
        (["stat", "TRACE", "--min-wait", "2ms", "--max-wait", "1ms"], 2, "no wait is at least 2"),
        (["stat", "TRACE", "--after", "5"], 2, "'5' is not a duration: write 100us"),
        (["stat", "TRACE", "--colour"], 2, "see sltrace stat --help"),
        (["stat"], 2, "Missing argument 'TRACE'"),
        (["blame", "TRACE", "--only", "kind=blocked"], 2, "no culprit is known"),
        (["export", "TRACE", "--to", "pprof", "-o", "/dev/full", "--force"], 6, "No space left"),
        (["export", "TRACE", "--to", "json", "-o", "/no/x"], 6, "cannot write /no/x"),
        (["record", "--stack-min", "1ms"], 2, "--stack-min and --stack-rate are about stacks"),
        (["record", "--stack-rate", "9"], 2, "give --stacks both, or leave them out"),
        (["record", "--no-python", "--python-loops"], 2, "--no-python leaves nothing for"),
        (["record", "--no-python", "--python-rate", "9"], 2, "--no-python leaves nothing for"),
        (["record", "--no-go", "--go-level", "0"], 2, "--no-go leaves nothing for --go-level"),
        (["record", "--no-go", "--go-budget", "none"], 2, "--no-go leaves nothing for --go-level"),
        (["record", "--cpu", "0-"], 2, "--cpu '0-' is not a CPU list; write it as 0-3,8"),
        (["frobnicate"], 2, "No such command 'frobnicate'"),
        (["stat", "bad\x1b[31m\n.slt"], 5, "bad\\x1b[31m .slt does not exist"),
    ],
)
def test_an_error_is_one_line_with_its_code(
    trace: Path, arguments: list[str], code: int, message: str
) -> None:
    done = sltrace(*[str(trace) if a == "TRACE" else a for a in arguments])
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.startswith("sltrace: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_no_arguments_is_help(trace: Path) -> None:
    done = sltrace()
    assert done.returncode == 2
    assert "Usage: sltrace [OPTIONS] COMMAND" in done.stderr
    assert sltrace("--version").stdout.startswith("sltrace, version ")


def test_stat_prints_totals_apart_and_cleans_names(trace: Path) -> None:
    done = sltrace("stat", str(trace), "--by", "comm")
    assert done.returncode == 0, done.stderr
    lines = [re.split(r"  +", line) for line in done.stdout.splitlines()]
    assert ["total, run queue", "1", *["2.00 us"] * 6] in lines
    assert ["total, throttled", "1", *["3.00 us"] * 6] in lines
    assert ["\\x1b[31mred", "1", *["2.00 us"] * 6] in lines
    assert done.stdout.endswith("losses: nothing was lost\n")
    assert "\x1b" not in done.stdout


def test_json_is_one_document_in_ns(trace: Path) -> None:
    result = json.loads(sltrace("stat", str(trace), "--by", "comm,cpu", "--json").stdout)
    assert result["groups"][0]["keys"] == {"comm": "\x1b[31mred", "cpu": 0}
    assert result["groups"][0]["p99_ns"] == result["groups"][0]["p99_low_ns"] == 2000
    assert result["totals"]["blocked"]["total_ns"] == 5000
    blamed = json.loads(sltrace("blame", str(trace), "--json").stdout)
    assert blamed["total_ns"] == 5000
    assert blamed["losses"]["lost"] == 0
    assert {c["what"]: c["wait_ns"] for c in blamed["cells"]} == {
        "quota": 3000,
        "task": 1500,
        "unknown": 500,
    }


def test_blame_names_the_hog_and_the_quota(trace: Path) -> None:
    out = sltrace("blame", str(trace), "--by", "comm").stdout
    assert re.search(r"^\\x1b\[31mred +hog +1\.50 us +30\.0% +1$", out, re.MULTILINE)
    assert re.search(r"^web +quota of /q +3\.00 us +60\.0% +1$", out, re.MULTILINE)
    assert re.search(r"^total +5\.00 us +2$", out, re.MULTILINE)


def test_the_rest_is_summed(tmp_path: Path) -> None:
    path = make_trace(tmp_path, [{"comm": f"t{i}", "wait_ns": 1000} for i in range(9)])
    out = sltrace("stat", str(path), "--by", "comm", "--top", "2").stdout
    assert re.search(r"^7 more +7 +7\.00 us$", out, re.MULTILINE)
    out = sltrace("blame", str(path), "--by", "comm", "--top", "2").stdout
    assert re.search(r"^all other pairs +7\.00 us +77\.8% +7$", out, re.MULTILINE)


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
        done = sltrace(command, str(trace), *options, *more.get(command, ()), "--top", "3")
        if command == "export":
            done = sltrace(command, str(trace), *options, *more[command], "-f")
        assert done.returncode == 0, done.stderr
        assert said in done.stdout + done.stderr


def test_kinds_of_a_newer_sltrace_can_be_selected(tmp_path: Path) -> None:
    trace = str(make_trace(tmp_path, [{"kind": "new"}]))
    done = sltrace("stat", trace, "--only", "kind=new")
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
    done = sltrace("stat", str(trace), "--only", "cgroup=/nope")
    assert "no waits: cgroup is /web\n" in done.stdout


@pytest.mark.parametrize("target", ["pprof", "folded", "parquet", "json"])
def test_export_names_its_file_and_pipes(trace: Path, tmp_path: Path, target: str) -> None:
    done = sltrace("export", str(trace) + "/", "--to", target, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    (file,) = (p for p in tmp_path.iterdir() if p != trace)
    assert file.stem.startswith("made")
    again = sltrace("export", str(trace), "--to", target, cwd=tmp_path)
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
    done = sltrace("export", str(path), "--to", "json", "-o", "-")
    assert done.returncode == 2
    assert "histograms only" in done.stderr


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    path = make_trace(tmp_path, [{"wait_ns": i} for i in range(5000)])
    with subprocess.Popen(
        [sys.executable, "-m", "sltrace", "export", str(path), "--to", "json", "-o", "-"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""


def test_a_full_standard_output_is_one_line(trace: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sltrace", "stat", str(trace)],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert done.returncode == 6
    assert done.stderr == (
        "sltrace: cannot read or write standard output: No space left on device\n"
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_error(trace: Path, closed: str) -> None:
    command = f'"$0" -m sltrace stat "$1" {closed}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, str(trace)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ("losses:" in done.stdout) == (closed == "2>&-")


def failing(error: BaseException) -> click.Command:
    @click.command()
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, ""),
        (errors.TargetError("no pid 7", "look with ps"), 4, "sltrace: no pid 7; look with ps\n"),
        (errors.CannotRecord("no BTF"), 3, "sltrace: no BTF\n"),
        (ValueError("odd\x1b"), 1, "sltrace: internal error, ValueError: odd\\x1b; SLTRACE_DEBUG"),
    ],
)
def test_every_failure_ends_in_its_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    line: str,
) -> None:
    from sltrace.cli import main

    monkeypatch.setattr(type(cli), "get_command", lambda *_: failing(error))
    assert main.run(["stat"]) == code
    shown = capsys.readouterr().err.strip("\n")
    assert shown.startswith(line.strip("\n"))
    assert "\n" not in shown


@pytest.mark.parametrize(
    ("missing", "code", "verdict"),
    [
        ([], 0, "sudo sltrace record will work here."),
        (["privileges"], 3, "Recording needs root; `sudo sltrace doctor` tells the rest."),
        (["privileges", "libbpf"], 3, "sudo sltrace record will NOT work here."),
    ],
)
def test_doctor_asks_for_root_where_nothing_else_is_missing(
    monkeypatch: pytest.MonkeyPatch, missing: list[str], code: int, verdict: str
) -> None:
    found = [checkup.Finding(subject, "missing", "-") for subject in missing]
    monkeypatch.setattr(checkup, "examine", lambda: [checkup.Finding("system", "ok", "-"), *found])
    done = CliRunner().invoke(cli, ["doctor"])
    assert (done.exit_code, done.output.splitlines()[-1]) == (code, verdict)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("sltrace st", ["plain,stat"]),
        ("sltrace stat --b", ["plain,--by", "plain,--before"]),
        ("sltrace stat a", ["file,a"]),
        ("sltrace report a.slt -o b", ["file,b"]),
        ("sltrace merge a.slt b", ["file,b"]),
        ("sltrace record --profile p", ["file,p"]),
        ("sltrace stat a.slt --by cgroup,co", ["plain,cgroup,comm", "plain,cgroup,container"]),
        ("sltrace stat a.slt --only po", ["plain,policy", "plain,pod"]),
    ],
)
def test_bash_completes(words: str, expected: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sltrace"],
        cwd=ROOT,
        env={
            **os.environ,
            "_SLTRACE_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert sorted(done.stdout.splitlines()) == sorted(expected)


def test_what_bash_is_given_is_a_script() -> None:
    script = sltrace("completion", "bash").stdout
    checked = subprocess.run(["bash", "-n"], input=script, text=True, timeout=60)
    assert checked.returncode == 0


def commands() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(cli)
    for name in _COMMANDS:
        if importlib.util.find_spec(f"sltrace.cli.{name}"):
            found = cli.get_command(context, name)
            assert found
            yield name, found


def test_every_command_and_option_is_in_the_manual() -> None:
    manual = (ROOT / "docs" / "cli.md").read_text()
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", manual, re.MULTILINE | re.DOTALL))
    selecting = manual.partition("\n## Selecting waits\n")[2].partition("\n## ")[0]
    missing = []
    for name, command in commands():
        text = sections.get(name, "")
        if "(#selecting-waits)" in text:
            text += selecting
        options = {o for p in command.params if isinstance(p, click.Option) for o in p.opts}
        missing += [f"{name} {o}" for o in sorted(options) if f"`{o}`" not in text]
        missing += [] if text else [name]
    assert missing == []


def test_every_exit_code_is_in_the_manual() -> None:
    manual = (ROOT / "docs" / "cli.md").read_text()
    codes = {int(c) for c in re.findall(r"^\| (\d+) \|", manual, re.MULTILINE)}
    raised = {
        value.exit_code
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.SltraceError)
    }
    assert raised <= codes
