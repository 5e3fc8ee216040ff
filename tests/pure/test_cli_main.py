"""The program as a user runs it: exit codes, one-line errors, lazy imports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from sltrace import errors
from sltrace.capture import checkup
from sltrace.cli.main import _COMMANDS, cli, run
from sltrace.names import hierarchy
from tests.support.cli import sltrace
from tests.support.programs import ROOT
from tests.support.terminal import terminal
from tests.support.traces import make_trace

HEAVY = ("numpy", "pyarrow", "duckdb", "plotly", "pandas", "google.protobuf")


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return make_trace(tmp_path, [{"wait_ns": 2000}])


def test_help_loads_nothing_heavy() -> None:
    """That of all, and that of each command, one after the other."""
    program = (
        "import sys; from sltrace.cli.main import run\n"
        "for arguments in (['--help'], *([name, '-h'] for name in sys.argv[1:])):\n"
        f"  print(run(arguments), [m for m in {HEAVY!r} if m in sys.modules], arguments)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *_COMMANDS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    for name in _COMMANDS:
        assert re.search(rf"^  {name}  +\w", done.stdout, re.MULTILINE)
        assert f"\n0 [] ['{name}', '-h']\n" in done.stdout
    assert "\n0 [] ['--help']\n" in done.stdout


@pytest.mark.parametrize("name", _COMMANDS)
def test_help_fits_a_terminal(name: str) -> None:
    shown = CliRunner().invoke(cli, [name, "--help"], terminal_width=80).output
    assert all(len(line) <= 80 for line in shown.splitlines())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["stat", "nowhere.slt"], 5, "nowhere.slt does not exist; "),
        (["stat", "TRACE", "--by", "colour"], 2, "cannot group by 'colour'; choose from kind"),
        (["stat", "TRACE", "--only", "cpu=x"], 2, "cpu=x is not a number"),
        (["stat", "TRACE", "--only", "cpu"], 2, "--only cpu is not DIM=VALUE"),
        (["stat", "TRACE", "--only", "kind=foo"], 2, "no kind 'foo'; choose from runq_wakeup, "),
        (["stat", "TRACE", "--only", "kind="], 2, "each wait has a kind; choose from runq_wakeup"),
        (["diff", "TRACE", "--a", "kind="], 2, "each wait has a kind; choose from runq_wakeup"),
        (["chain", "TRACE", "--trace-id", "\udcff"], 2, "is not a trace id; it is 32 hex digits"),
        (["diff", "TRACE", "--a", "kind=foo"], 2, "no kind 'foo'; choose from runq_wakeup, "),
        (["blame", "TRACE", "--after", "2s", "--before", "1s"], 2, "after 2.00 s and before 1.00"),
        (["stat", "TRACE", "--after", "10s"], 2, "after 10.0 s; the recording is 10.0 s long"),
        (["export", "TRACE", "--to", "json", "--before", "0s"], 2, "recording is 10.0 s long"),
        (["stat", "TRACE", "--min-wait", "2ms", "--max-wait", "1ms"], 2, "no wait is at least 2"),
        (["stat", "TRACE", "--after", "5"], 2, "'5' is not a duration: write 100us"),
        (["stat", "TRACE", "--colour"], 2, "see sltrace stat --help"),
        (["stat"], 2, "Missing argument 'TRACE'"),
        (["record", "--top"], 2, "No such option '--top'; see sltrace record --help"),
        (["record", "--polic"], 2, "'--polic' (did you mean --policy?); see sltrace record --help"),
        (["record", "-d"], 2, "Option '-d' requires an argument; see sltrace record --help"),
        (["record", "-d", "0"], 2, "'0' is too short: 1ms at least; see sltrace record --help"),
        (["record", "-d", "9us"], 2, "'9us' is too short: 1ms at least"),
        (["record", "nowhere", "-f", "--frob"], 4, "there is no command nowhere; check its name"),
        (["stat", "TRACE", "--after", "1h"], 2, "after 3,600 s; the recording is 10.0 s long"),
        (["record", "/etc"], 4, "/etc is a folder; name a program"),
        (["record", ""], 4, "there is no command ''; check its name"),
        (["record", "new.slt"], 4, "no command new.slt; to record into it: -o new.slt"),
        (["blame", "TRACE", "--only", "kind=blocked"], 2, "no culprit is known"),
        (["export", "TRACE", "--to", "pprof", "-o", "/dev/full", "--force"], 6, "No space left"),
        (["export", "TRACE", "--to", "json", "-o", "/no/x"], 6, "cannot write /no/x"),
        (["export", "TRACE", "--to", "json", "--stack", "waker"], 2, "--to pprof or folded"),
        (
            ["export", "TRACE", "--to", "pprof", "--root", "comm"],
            2,
            "--root means nothing for pprof",
        ),
        (["diff", "TRACE", ""], 2, "an empty name names no file; see sltrace diff --help"),
        (["diff", "TRACE", "--bucket", ""], 2, "'' is not a bucket; write it as"),
        (["check", "TRACE", "count(runq) < 1", "--baseline", ""], 2, "an empty name names no file"),
        (["check", "TRACE", "count(runq) < 1", "--junit", ""], 2, "an empty name names no file"),
        (["record", "--max-size", ""], 2, "--max-size '' is not a size"),
        (["record", "--buffer", ""], 2, "--buffer '' is not a size"),
        (["record", "--pyroscope-listen", ""], 2, "--pyroscope-listen '' has no port"),
        (["record", "-o", ""], 2, "an empty name names no file"),
        (["record", "--profile", ""], 2, "an empty name names no file"),
        (["chain", "TRACE", "-o", "x.html", "--top", "3"], 2, "the page has all of it"),
        (["frobnicate"], 2, "No such command 'frobnicate'"),
        (["stat", "bad\x1b[31m\n.slt"], 5, "bad\\x1b[31m .slt does not exist"),
    ],
)
def test_an_error_is_one_line_with_its_code(
    trace: Path, arguments: list[str], code: int, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run([str(trace) if a == "TRACE" else a for a in arguments]) == code
    done = capfd.readouterr()
    assert done.out == ""
    assert done.err.startswith("sltrace: ")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_no_arguments_is_help(trace: Path) -> None:
    done = sltrace()
    assert done.returncode == 2
    assert "Usage: sltrace [OPTIONS] COMMAND" in done.stderr
    assert sltrace("--version").stdout.startswith("sltrace, version ")


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


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_colours_are_for_who_wants_and_has_them(
    trace: Path, tmp_path: Path, environment: dict[str, str], coloured: bool
) -> None:
    check = [sys.executable, "-m", "sltrace", "check", str(trace), "max(runq) < 1s"]
    with terminal(check, cwd=tmp_path, environment={"PYTHONPATH": str(ROOT), **environment}) as t:
        assert t.end() == 0
    assert "pass" in t.text
    assert (b"\x1b[32m" in t.raw) == coloured


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


@pytest.mark.parametrize(
    ("where", "given", "name"),
    [
        ("made.slt", ".", "made"),
        ("made.slt/waits", "..", "made"),
        ("", "made.slt/", "made"),
        ("", "latest", "latest"),
    ],
)
def test_what_is_written_is_called_as_the_trace_is(
    trace: Path, monkeypatch: pytest.MonkeyPatch, where: str, given: str, name: str
) -> None:
    (trace.parent / "latest").symlink_to("made.slt")
    monkeypatch.chdir(trace.parent / where)
    for arguments in (["export", given, "--to", "folded"], ["report", given]):
        assert run(arguments) == 0
    assert {f"{name}.folded", f"{name}.html"} <= {p.name for p in Path().iterdir()}


def test_what_is_asked_for_on_a_closed_stream_is_not_thrown_away(trace: Path) -> None:
    for arguments in ("export --to json -o -", "report -o -", "check --junit -"):
        command, *options = arguments.split()
        rules = ["max(runq) < 1s"] if command == "check" else []
        shell = ["sh", "-c", '"$0" -m sltrace "$@" >&-', sys.executable]
        done = subprocess.run(
            [*shell, command, str(trace), *options, *rules],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
        assert done.returncode == 6, arguments
        assert done.stderr == "sltrace: standard output is closed; name a file instead of -\n"


def test_cgroups_that_are_mounted_nowhere_are_not_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tree = hierarchy.choose_hierarchy(tmp_path)
    monkeypatch.setattr(hierarchy, "choose_hierarchy", lambda: tree)
    (found,) = checkup._cgroups()
    assert (found.state, found.text) == ("limited", tree.limit)
    tree = hierarchy.Hierarchy("v2", tmp_path, 0, "of all that is known")
    assert checkup._cgroups()[0].state == "ok"


def test_a_limit_of_memory_is_no_error_of_ours(trace: Path) -> None:
    done = subprocess.run(
        ["prlimit", f"--as={200 << 20}", sys.executable, "-m", "sltrace", "stat", str(trace)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    line = "sltrace: there is not enough memory; free some, or raise its limit (ulimit -v)"
    assert done.stderr.splitlines()[-1] == line


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
        (MemoryError(), 1, "sltrace: there is not enough memory; free some, or raise its limit"),
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
    found = [checkup.Check(subject, "missing", "-") for subject in missing]
    monkeypatch.setattr(checkup, "examine", lambda: [checkup.Check("system", "ok", "-"), *found])
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
        ("sltrace stat a.slt --only po", ["plain,policy=", "plain,pod="]),
        ("sltrace diff a.slt --a po", ["plain,policy=", "plain,pod="]),
        # As bash splits --only kind=runq_, --only=policy=R, --stacks=, and a:b.slt.
        ("sltrace stat a --only kind = runq_", ["plain,runq_wakeup", "plain,runq_preempt"]),
        ("sltrace stat a --only = policy = R", ["plain,RR"]),
        ("sltrace record --stacks = bo", ["plain,both"]),
        ("sltrace record --stacks =", [f"plain,{w}" for w in ("none", "kernel", "user", "both")]),
        ("sltrace stat a : b.slt --on", ["plain,--only"]),
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


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_an_option_is_not_replaced_by_its_value(shell: str) -> None:
    """Where a shell does not split `--stacks=bo` it replaces all of that."""
    done = subprocess.run(
        [sys.executable, "-m", "sltrace"],
        cwd=ROOT,
        env={
            **os.environ,
            "_SLTRACE_COMPLETE": f"{shell}_complete",
            "COMP_WORDS": "sltrace record --stacks=bo",
            "COMP_CWORD": "2",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "--stacks=both" in done.stdout


def test_bash_completes_what_is_typed(tmp_path: Path) -> None:
    (tmp_path / "sltrace").write_text(f'#!/bin/sh\nexec {sys.executable} -m sltrace "$@"\n')
    (tmp_path / "sltrace").chmod(0o755)
    paths = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    with terminal(["bash", "--norc", "-i"], cwd=tmp_path, environment=paths) as t:
        t.press('eval "$(sltrace completion bash)"; echo re""ady\n')
        t.wait_for(lambda s: "ready" in s.lines, "the script")
        t.press("echo 1; sltrace stat a.slt --only ki\tru\t")
        t.wait_for(lambda s: "--only kind=runq_" in s.text, "its beginning")
        t.press("w\t--ke\t")
        t.wait_for(lambda s: "--only kind=runq_wakeup --kept" in s.text, "all of it")


def test_zsh_is_told_of_words_that_go_on() -> None:
    assert "[[ $completions[1] == *= ]] && ending=(-S '')" in sltrace("completion", "zsh").stdout


def test_an_interrupt_after_all_is_done_is_no_failure() -> None:
    program = (
        "import atexit, os, signal, sys; from sltrace.cli.main import main;"
        "atexit.register(os.kill, os.getpid(), signal.SIGINT);"
        "sys.argv = ['sltrace', '--version']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_bash_is_given_is_a_script() -> None:
    script = sltrace("completion", "bash").stdout
    checked = subprocess.run(["bash", "-n"], input=script, text=True, timeout=60)
    assert checked.returncode == 0
