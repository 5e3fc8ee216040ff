"""What a signal does to a recording that is over."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys, time
from sltrace.capture.ending import Ending
if sys.argv[2] == "ignored":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
with Ending([], (), None, 0) as ending:
    ending.exit_code = 5
    ending.settled()
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    time.sleep(0.1)
    sys.exit(7)
"""


@pytest.mark.parametrize(
    ("name", "before", "code"),
    [
        ("SIGINT", "", 5),
        ("SIGTERM", "", 5),
        ("SIGHUP", "", 5),
        ("SIGHUP", "ignored", 7),
    ],
)
def test_once_the_trace_is_whole_a_signal_ends_it_at_once(
    name: str, before: str, code: int
) -> None:
    """With the exit code that it would have had; below nohup the terminal's end is none."""
    command = [sys.executable, "-c", PROGRAM, name, before]
    assert subprocess.run(command, check=False, timeout=60).returncode == code
