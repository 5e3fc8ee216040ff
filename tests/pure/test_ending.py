"""What a signal does to a recording that is over, to one that has not begun, and to the command."""

from __future__ import annotations

import contextlib
import os
import signal
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


STOPPED = """
import os, signal, sys
from pathlib import Path
from sltrace.capture.ending import Ending
from sltrace.trace.folder import TraceFolder
how = sys.argv[1]
with Ending(["sh", "-c", "kill -STOP $$"], (), 1 if how == "time" else None, 0) as ending:
    ending.begin()
    os.waitid(os.P_PID, ending.child_pid, os.WSTOPPED | os.WNOWAIT)
    if how == "time":
        assert ending.reached(TraceFolder(Path(sys.argv[2])))
    elif how != "failure":
        os.kill(os.getpid(), getattr(signal, how))
        ending.wait()
        ending.reason = "sh ended"
ending.wait()
sys.exit(ending.exit_code)
"""


@pytest.mark.parametrize(
    ("how", "code"), [("time", 143), ("failure", 143), ("SIGTERM", 143), ("SIGHUP", 129)]
)
def test_a_command_that_is_stopped_can_be_ended(tmp_path: Path, how: str, code: int) -> None:
    """A stopped process does not get a signal before it goes on."""
    command = [sys.executable, "-c", STOPPED, how, str(tmp_path)]
    child = subprocess.Popen(command, start_new_session=True)
    try:
        assert child.wait(timeout=30) == code
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


# The command has SIGTERM blocked, so that it can be seen whether it was sent one.
INTERRUPTED = """
import fcntl, os, re, signal, sys, termios
from pathlib import Path
from sltrace.capture.ending import Ending
if sys.argv[1] == "foreground":
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
with Ending(["sleep", "60"], (), None, 0) as ending:
    ending.begin()
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGINT)
        status = Path(f"/proc/{ending.child_pid}/status").read_text()
        pending = int(re.search("ShdPnd:(.*)", status)[1], 16)
        print(bool(pending & 1 << signal.SIGTERM - 1))
    os.kill(ending.child_pid, signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("where", "sent"), [("foreground", [False] * 3), ("elsewhere", [False, True, True])]
)
def test_a_command_that_gets_no_ctrl_c_is_ended_by_the_second(where: str, sent: list[bool]) -> None:
    """A supervisor may have sent the first to the command, too; a terminal does so each time."""
    master, slave = os.openpty()
    try:
        found = subprocess.run(
            [sys.executable, "-c", INTERRUPTED, where],
            check=True,
            timeout=60,
            start_new_session=True,
            stdin=slave,
            stdout=subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(master)
        os.close(slave)
    assert found.stdout.split() == [str(each) for each in sent]
