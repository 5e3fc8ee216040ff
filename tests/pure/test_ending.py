"""What a signal does to a recording that is over, to one that has not begun, and to the command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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

# As if it came in the moment it forks.
HELD = """
import os, signal, sys
from pathlib import Path
from sltrace.capture.ending import Ending
from sltrace.trace.folder import TraceFolder
number = getattr(signal, sys.argv[1])
if sys.argv[2] == "forking":
    os.register_at_fork(before=lambda: os.kill(os.getpid(), number))
with Ending(["sleep", "60"], (), None, 0) as ending:
    if sys.argv[2] == "held":
        os.kill(os.getpid(), number)
        os.waitid(os.P_PID, ending.child_pid, os.WEXITED | os.WNOWAIT)
    ending.begin()
    os.waitid(os.P_PID, ending.child_pid, os.WEXITED | os.WNOWAIT)
    assert ending.reached(TraceFolder(Path(sys.argv[3])))
    assert ending.reason == "sleep ended"
    sys.exit(ending.exit_code)
"""


@pytest.mark.parametrize("when", ["forking", "held"])
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_while_the_probes_are_loaded_ends_the_command(
    tmp_path: Path, name: str, code: int, when: str
) -> None:
    """The recording then ends as if it had begun before."""
    command = [sys.executable, "-c", HELD, name, when, str(tmp_path)]
    assert subprocess.run(command, check=False, timeout=30).returncode == code


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


COMMAND = """
import sys
from sltrace.capture.ending import Ending
with Ending(["grep", "Sig[IB]", "/proc/self/status"], (), None, 0) as ending:
    ending.begin()
    ending.wait()
    ending.reason = "grep ended"
"""


def test_the_command_has_the_signals_that_it_would_have_without() -> None:
    """Python ignores SIGPIPE: what writes to a pipe that nobody reads would go on."""
    plain = subprocess.run(
        ["grep", "Sig[IB]", "/proc/self/status"], check=True, capture_output=True
    )
    command = [sys.executable, "-c", COMMAND]
    assert subprocess.run(command, check=True, capture_output=True).stdout == plain.stdout
