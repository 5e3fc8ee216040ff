"""Recorders as processes of their own: the one that is looked at, and the one that keeps."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sltrace.cli.recording import default_path
from sltrace.errors import (
    CannotRecord,
    OutputError,
    SltraceError,
    TargetError,
    TraceError,
    UsageError,
)
from sltrace.trace.meta import read_meta

_PATIENCE_S = 30
LIVE = ("--no-go", "--no-python", "--max-size=256M")
"""Of runtimes the view shows nothing: no probes are put into them for it. And where the view is
stopped, so that it takes no segments, the recorder must not fill the disk."""
_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
_ERRORS = {e.exit_code: e for e in (UsageError, CannotRecord, TargetError, OutputError)}


class Recorder:
    """`sltrace record` as a process.

    Args:
        path: Trace to write.
        options: Of `sltrace record`: filters.
        said: File to make, for what it says of its failure.
    """

    def __init__(self, path: Path, options: Sequence[str], said: Path) -> None:
        self.path = path
        self._said = said
        with open(said, "wb") as stderr:
            self._process = _record(path, options, stderr.fileno())

    @property
    def running(self) -> bool:
        """It has not ended."""
        return self._process.poll() is None

    @property
    def failure(self) -> SltraceError | None:
        """What it failed of, in its own words; None if it runs or has recorded all."""
        code = self._process.poll()
        # One that had recorded all and was on its way out was only hurried.
        if not code or (code == -signal.SIGINT and self._has_finished()):
            return None
        lines = self._said.read_bytes().decode("utf-8", "replace").splitlines()
        said = [line for line in lines if line.startswith("sltrace: ")]
        how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
        message = said[-1].removeprefix("sltrace: ") if said else f"the recorder {how}"
        return _ERRORS.get(code, SltraceError)(message)

    def _has_finished(self) -> bool:
        with contextlib.suppress(TraceError):
            return bool(read_meta(self.path).get("finished"))
        return False

    def end(self) -> None:
        """Ends it as Ctrl-C does, and waits for that."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class LiveRecorder:
    """`sltrace record` into a temporary folder that goes away with it, and recordings that stay.

    Args:
        options: Of `sltrace record`: filters.
    """

    def __init__(self, options: list[str]) -> None:
        self._options = options
        self._folder = Path(tempfile.mkdtemp(prefix="sltrace-top-"))
        self.path = self._folder / "live.slt"
        self._live = Recorder(self.path, [*options, *LIVE], self._folder / "live")
        self._kept: list[Recorder] = []

    def ended(self) -> bool:
        """Whether the recorder has come to its end, as `why_ended` says.

        Raises:
            SltraceError: It failed, with what it said.
        """
        if failure := self._live.failure:
            if isinstance(failure, OutputError):
                # What it says to do is for a trace that somebody named, and that stays.
                why = str(failure).partition("; ")[0].partition(", so ")[0]
                raise OutputError(
                    f"the recorder writes to {self._folder.parent}: {why}",
                    "free some space there, or set TMPDIR to another folder",
                )
            raise failure
        return not self._live.running

    @property
    def why_ended(self) -> str:
        """Why the recorder came to its end: the processes it recorded have exited."""
        return str(read_meta(self.path).get("ended"))

    def keep(self) -> None:
        """Starts a recording that stays, or ends the one that runs."""
        if self._kept and self._kept[-1].running:
            self._kept[-1].end()
            return
        path = default_path().absolute()
        self._kept.append(Recorder(path, self._options, self._folder / f"kept{len(self._kept)}"))

    @property
    def status(self) -> str:
        """What became of the latest recording that stays; empty where there is nothing to say."""
        if not self._kept:
            return ""
        latest = self._kept[-1]
        if failure := latest.failure:
            return f"not recorded: {failure}"
        return f"recording {latest.path.name}" if latest.running else ""

    def close(self) -> list[tuple[Path, SltraceError | None]]:
        """Ends all recorders and removes the folder; recordings that stay, and their failures."""
        try:
            for recorder in (*self._kept, self._live):
                recorder.end()
            return [(recorder.path, recorder.failure) for recorder in self._kept]
        finally:
            # Also where a second Ctrl-C does not wait for it.
            shutil.rmtree(self._folder, ignore_errors=True)


def _end_with_parent() -> None:
    """In a new process: it gets SIGINT when the one that started it is gone, however that ended."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)


def _record(path: Path, options: Sequence[str], stderr: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "sltrace", "record", "-q", "-o", str(path), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        # Ctrl-C in the terminal is for the view, which then ends this.
        start_new_session=True,
        preexec_fn=_end_with_parent,
    )
