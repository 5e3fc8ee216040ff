"""Recorders as processes of their own: the one that is looked at, and the one that keeps."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from sltrace.errors import CannotRecord, OutputError, SltraceError, TargetError, UsageError

_PATIENCE_S = 30
_NO_RUNTIMES = ("--no-go", "--no-python")
_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
_ERRORS = {e.exit_code: e for e in (UsageError, CannotRecord, TargetError, OutputError)}


class LiveRecorder:
    """`sltrace record` into a temporary folder that goes away with it.

    Args:
        options: Of `sltrace record`: filters.
    """

    def __init__(self, options: list[str]) -> None:
        self._options = options
        self._folder = Path(tempfile.mkdtemp(prefix="sltrace-top-"))
        self.path = self._folder / "live.slt"
        self._said = open(self._folder / "stderr", "w+b")  # noqa: SIM115
        # Of runtimes the view shows nothing: no probes are put into them for it.
        self._process = _record(self.path, [*options, *_NO_RUNTIMES], self._said.fileno())
        self._kept: subprocess.Popen[bytes] | None = None
        self.kept_path: Path | None = None

    def ended(self) -> bool:
        """Whether the recorder has come to its end: the processes it recorded have exited.

        Raises:
            SltraceError: It failed, with what it said.
        """
        code = self._process.poll()
        if not code:
            return code == 0
        lines = os.pread(self._said.fileno(), 1 << 16, 0).decode("utf-8", "replace").splitlines()
        said = [line for line in lines if line.startswith("sltrace: ")]
        message = said[-1].removeprefix("sltrace: ") if said else f"the recorder ended with {code}"
        raise _ERRORS.get(code, SltraceError)(message)

    def keep(self) -> Path | None:
        """Starts a recording that stays, or ends the one that runs; its path while it runs."""
        if self._kept is None:
            name = f"{os.uname().nodename}-{datetime.now():%Y%m%d-%H%M%S}.slt"
            self.kept_path = Path(name).absolute()
            self._kept = _record(self.kept_path, self._options, subprocess.DEVNULL)
            return self.kept_path
        _end(self._kept)
        self._kept = None
        return None

    @property
    def keeping(self) -> bool:
        """A recording that stays is running."""
        return self._kept is not None and self._kept.poll() is None

    def close(self) -> None:
        """Ends both recorders and removes the folder."""
        for process in (self._kept, self._process):
            if process is not None:
                _end(process)
        self._said.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _end_with_parent() -> None:
    """In a new process: it gets SIGINT when the one that started it is gone, however that ended."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)


def _record(path: Path, options: list[str], stderr: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "sltrace", "record", "-q", "-o", str(path), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        # Ctrl-C in the terminal is for the view, which then ends this.
        start_new_session=True,
        preexec_fn=_end_with_parent,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + _PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    if process.poll() is None:
        process.kill()
        process.wait()
