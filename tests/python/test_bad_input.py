"""What cannot be looked into is said, and the kernel's view is there all the same."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sltrace.cli.main import run
from sltrace.trace.reader import Trace
from tests.support.loads import until_switched
from tests.support.pythons import NO_GIL, interpreter, service
from tests.support.recorder import Record, sltrace

pytestmark = pytest.mark.bpf


def _target(record: Record, *command: str) -> tuple[dict[str, object], int]:
    """The only target, and how many waits there are of it."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        time.sleep(0.3)
        with record("--pid", process.pid) as recording:
            time.sleep(0.7)
    finally:
        process.kill()
        process.communicate()
    rows = recording.trace.sql("SELECT * FROM targets WHERE pid = ?", (process.pid,)).to_pylist()
    waits = recording.trace.sql("SELECT count(*) AS n FROM waits").to_pylist()
    assert len(rows) == 1
    return rows[0], waits[0]["n"]


def test_a_program_that_is_no_python(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, waits = _target(record, "sh", "-c", "while :; do sleep 0.01; done")
    assert target["level"] is None
    assert target["why"] == "no CPython in it: no mapped file has _PyRuntime"
    assert waits > 10
    # Of such a trace both say what to type, in one line.
    trace = str(tmp_path / "trace0.slt")
    for command in (["python", trace], ["python", trace, "--json"], ["go", trace]):
        assert run(command) == 2
        said = capsys.readouterr()
        assert not said.out
        next_step = "(record one|sltrace diagnose) .*"
        line = rf"sltrace: .* has no (Python|Go) process.*; {next_step}\n"
        assert re.fullmatch(line, said.err)


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.9"])
def test_a_python_that_is_too_old(version: str, record: Record) -> None:
    old = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    if not old:
        pytest.skip(f"no Python {version} on this machine: its refusal is NOT TESTED")
    code = "import time\nwhile True: time.sleep(0.01)"
    target, waits = _target(record, str(old[-1]), "-c", code)
    assert target["level"] is None
    assert target["why"] == f"Python {version} is older than 3.10"
    assert waits > 10


def test_a_build_without_gil_is_told_and_seen_by_the_scheduler(record: Record) -> None:
    with service(NO_GIL, "contend", 30, 2) as process:
        roles = json.loads(process.said)  # type: ignore[attr-defined]
        with record("--pid", process.pid) as recording:
            time.sleep(0.7)
    (target,) = recording.trace.sql("SELECT level, why FROM targets").to_pylist()
    assert target["level"] is None
    assert re.fullmatch(
        r"Python 3\.14\.\d+ is a free-threaded build: it has no GIL, .*", target["why"]
    )
    rows = recording.trace.sql("SELECT kind, tid, reason FROM waits").to_pylist()
    assert {r["kind"] for r in rows} <= {"blocked", "runq_wakeup", "runq_preempt"}
    assert {r["reason"] for r in rows} == {None}
    slept = {roles.get(str(r["tid"])) for r in rows if r["kind"] == "blocked"}
    assert slept >= {"sleeper", "locker", "reader", "writer"}
    done = sltrace("python", recording.path)
    assert (done.code, done.out) == (2, "")
    assert "has no Python process that was looked into" in done.err
    assert "it has no GIL" in done.err


def test_a_name_alone_makes_no_python(record: Record, tmp_path: Path) -> None:
    fake = tmp_path / "python3.12"
    fake.write_bytes(Path("/bin/sleep").read_bytes())
    fake.chmod(0o755)
    target, _ = _target(record, str(fake), "5")
    assert target["level"] is None
    assert "no mapped file has _PyRuntime" in str(target["why"])


def test_a_process_that_ends_while_it_is_looked_at(record: Record) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.4)"])
    try:
        with record("--pid", process.pid) as recording:
            recording.wait()
    finally:
        process.kill()
        process.wait()
    assert recording.done
    assert recording.done.code == 0
    assert "Traceback" not in recording.done.err


def test_a_fork_and_an_exec_are_followed(record: Record) -> None:
    other = interpreter("3.13")
    with (
        service("3.11", "changes", 30, other) as process,
        record("--pid", process.pid) as recording,
    ):
        time.sleep(0.5)
        process.send_signal(signal.SIGUSR1)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        until = time.monotonic() + 60
        while not (forked := children.read_text().split()):
            assert time.monotonic() < until
            time.sleep(0.01)
        child = int(forked[0])
        try:
            # Both are there until their code was read.
            until_switched(60, process.pid, child)
            recording.end()
        finally:
            os.kill(child, signal.SIGKILL)
    rows = recording.trace.sql(
        "SELECT DISTINCT w.pid, f.name FROM waits w JOIN stacks k ON k.stack_id = w.stack_runtime "
        "JOIN frames f ON f.pid = k.pid AND f.address = k.addresses[1] "
        "WHERE w.reason = 'sleep'"
    ).to_pylist()
    named = {(r["pid"] == process.pid, r["name"]) for r in rows}
    assert (True, "after_the_exec") in named
    assert (False, "in_the_child") in named
    targets = recording.trace.sql("SELECT pid, version FROM targets ORDER BY from_ns").to_pylist()
    mine = [t["version"][:4] for t in targets if t["pid"] == process.pid]
    assert mine == ["3.11", "3.13"]
    assert [t["version"][:4] for t in targets if t["pid"] != process.pid] == ["3.11"]


def test_only_the_command_itself_is_told_of(record: Record) -> None:
    """Not the recorder's own fork before it, nor what it was before the interpreter."""
    script = f'exec {sys.executable} -c "import time; time.sleep(1.2)"'
    with record("--", "sh", "-c", script) as recording:
        recording.wait()
    rows = recording.trace.sql("SELECT version, why FROM targets").to_pylist()
    assert rows == [{"version": platform.python_version(), "why": ""}]


def test_it_can_be_left_out(record: Record) -> None:
    with (
        service("3.12", "contend", 30, 1) as process,
        record("--pid", process.pid, "--no-python") as recording,
    ):
        time.sleep(0.5)
    assert not recording.trace.sql("SELECT 1 FROM targets").num_rows
    assert "python" not in recording.trace.meta["sources"]


_DEFECT = """
import sys
from sltrace.capture.python.frames import FrameTable
from sltrace.cli.main import main

def fails(self, records):
    raise IndexError("a defect")

FrameTable.add = fails
sys.argv[0] = "sltrace"
main()
"""


def test_a_defect_of_ours_ends_the_looking_into_python_alone(tmp_path: Path) -> None:
    path = tmp_path / "d.slt"
    with service("this", "contend", 30, 2) as process:
        options = ("record", "-o", str(path), "--pid", str(process.pid), "-d", "2")
        begin = time.monotonic_ns()
        done = subprocess.run(
            [sys.executable, "-c", _DEFECT, *options], capture_output=True, text=True, check=False
        )
    took_ns = time.monotonic_ns() - begin
    assert done.returncode == 1
    (said,) = (x for x in done.stderr.splitlines() if x.startswith("sltrace: "))
    assert "internal error in what records python: IndexError: a defect; all else was" in said
    assert "Traceback" not in done.stderr
    trace = Trace.open(path)
    last = trace.sql("SELECT max(end_ns) AS ns FROM waits").to_pylist()[0]["ns"]
    assert last > trace.meta["clock"]["end_ns"] - 1_000_000_000
    failed = trace.meta["sources"]["python"]["failed"]
    assert 0 < failed["after_ns"] < took_ns
    assert 'raise IndexError("a defect")' in failed["where"] or "in fails" in failed["where"]
    assert any("what records python failed after" in note for note in trace.notes)
    assert trace.sql("SELECT level FROM targets").to_pylist() == [{"level": 1}]
