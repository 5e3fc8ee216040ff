"""How the program ends where its streams cannot be written, and where it is interrupted early."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from tests.support.programs import ROOT
from tests.support.traces import make_trace

INTERRUPTED = """
import os, signal, sys
import sltrace.entry
class Interrupts:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == sys.argv[0]:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupts)
sys.argv = sys.argv[1:]
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
sys.stdout.flush()
sltrace.entry.main()
"""
"""With a Ctrl-C while the module that is named first is imported."""


def unwritable(stream: str) -> IO[bytes]:
    """A file, or a pipe that nobody reads."""
    if stream != "closed pipe":
        return open(stream, "wb")
    theirs, ours = os.pipe()
    os.close(theirs)
    return os.fdopen(ours, "wb", buffering=0)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return make_trace(tmp_path, [{"wait_ns": 2000}])


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["stat", "nowhere.slt"], 5),
        (["stat"], 2),
        ([], 2),
        (["stat", "TRACE", "--by", "colour"], 2),
        (["check", "TRACE", "max(runq) < 1ns"], 7),
        (["report", "TRACE", "-o", "page.html"], 0),
        (["export", "TRACE", "--to", "json", "-o", "waits.ndjson"], 0),
        (["diff", "TRACE", "--at", "1s", "-o", "page.html"], 0),
    ],
)
@pytest.mark.parametrize("stream", ["/dev/full", "closed pipe"])
def test_a_full_standard_error_changes_no_exit_code(
    trace: Path, arguments: list[str], code: int, stream: str
) -> None:
    words = [str(trace) if a == "TRACE" else a for a in arguments]
    with unwritable(stream) as error:
        done = subprocess.run(
            [sys.executable, "-m", "sltrace", *words],
            cwd=trace.parent,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=error,
            timeout=60,
        )
    assert done.returncode == code


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], ["stat", "--help"]])
def test_a_reader_that_left_before_the_help_is_no_error(arguments: list[str]) -> None:
    with unwritable("closed pipe") as out:
        done = subprocess.run(
            [sys.executable, "-m", "sltrace", *arguments],
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("module", "code"),
    [
        # What the shell calls 130: that the program was ended by it.
        ("sltrace.cli.main", -signal.SIGINT),
        ("click", -signal.SIGINT),
        ("sltrace.cli.stat", 130),
        ("sltrace.trace.reader", 130),
    ],
)
def test_an_interrupt_is_no_traceback_however_early(trace: Path, module: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, module, "stat", str(trace)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr.strip()) == (code, "")
    # To import it changes nothing yet.
    assert done.stdout == "True\n"


def test_who_ignores_interrupts_goes_on(trace: Path) -> None:
    """As what a script starts with &."""
    ignoring = ["sh", "-c", "trap '' INT; exec \"$@\"", "-"]
    done = subprocess.run(
        [*ignoring, sys.executable, "-c", INTERRUPTED, "click", "stat", str(trace)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "losses:" in done.stdout
