"""Runs the real `sltrace record` as a user would, in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import IO

from sltrace.trace.reader import Trace
from tests.support.programs import ROOT

_PATIENCE_S = 60
"""For anything that ends by itself: the recorder shares two CPUs with a load that fills them."""


class RecorderError(Exception):
    """The recorder did not start, did not end, or failed; with what it said."""


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


@dataclass
class Recorder:
    """A recorder that has attached its probes."""

    path: Path
    process: subprocess.Popen[bytes]
    _out: IO[bytes] = field(repr=False)
    _err: IO[bytes] = field(repr=False)
    started_ns: int = 0
    done: Done | None = None

    @property
    def pid(self) -> int:
        """Process id of the recorder."""
        return self.process.pid

    @property
    def trace(self) -> Trace:
        """The trace it wrote."""
        return Trace.open(self.path)

    def end(self, number: int = signal.SIGINT) -> Done:
        """Sends a signal and waits for the end; what it returned is not judged."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> Done:
        """Waits until it ends by itself."""
        if self.done is None:
            try:
                code = self.process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise RecorderError(f"it did not end: {self.said()}") from None
            self.done = Done(code, _text(self._out), _text(self._err))
        return self.done

    def said(self) -> str:
        """Its standard error so far."""
        return _text(self._err)


def command(*arguments: str | Path, before: str = "") -> list[str]:
    """The command line of the sltrace in this checkout.

    Args:
        arguments: Its own.
        before: Python code that is run first, in its process.
    """
    code = f"{before}\nfrom sltrace.cli.main import main\nmain()"
    return [sys.executable, *(("-c", code) if before else ("-m", "sltrace")), *map(str, arguments)]


def of_pids(pids: Iterable[int]) -> list[str | int]:
    """Options for the recorder: each of these processes."""
    return [text for pid in pids for text in ("--pid", pid)]


def sltrace(
    *arguments: str | Path,
    prefix: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    timeout: float = _PATIENCE_S,
) -> Done:
    """Runs sltrace to its end, under `prefix` if one is given."""
    done = subprocess.run(
        [*prefix, *command(*arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=ROOT,
        env=None if env is None else {**os.environ, **env},
        timeout=timeout,
        check=False,
    )
    return Done(done.returncode, _decoded(done.stdout), _decoded(done.stderr))


def one_line(done: Done, code: int, *words: str) -> None:
    """An error for people: its exit code, one line, and nothing of Python's."""
    assert done.code == code, (done.code, done.err)
    lines = [line for line in done.err.splitlines() if not line.startswith("recording into")]
    assert len(lines) == 1, done.err
    assert lines[0].startswith("sltrace: ")
    assert "Traceback" not in done.err
    for word in words:
        assert word in lines[0]


@contextmanager
def recorder(
    path: Path,
    *options: str | int | Path,
    env: Mapping[str, str] | None = None,
    before: str = "",
) -> Iterator[Recorder]:
    """Starts `sltrace record -o PATH OPTIONS`; inside the block it has attached.

    At the end of the block it is stopped with SIGINT, unless it has ended, and must have
    succeeded. Use `end` or `wait` inside the block for any other end. `before` is as for `command`.

    Raises:
        RecorderError: It failed or did not end in time.
    """
    # Files, not pipes: the recorder must never wait for its reader.
    with (
        open(path.with_suffix(".out"), "w+b") as out,
        open(path.with_suffix(".err"), "w+b") as err,
    ):
        process = subprocess.Popen(
            command("record", "-o", path, *map(str, options), before=before),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=ROOT,
            env=None if env is None else {**os.environ, **env},
        )
        running = Recorder(path, process, out, err)
        try:
            _await_attached(running)
            running.started_ns = time.monotonic_ns()
            yield running
            if running.done is None:
                done = running.end()
                if done.code:
                    raise RecorderError(f"it ended with {done.code}: {done.err}")
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def _await_attached(running: Recorder) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        # Asked first: what ends at once has said what it did before.
        code = running.process.poll()
        if "recording into" in running.said():
            return
        if code is not None:
            raise RecorderError(f"it ended with {code}: {running.said()}")
        if time.monotonic() > deadline:
            raise RecorderError(f"it did not attach: {running.said()}")
        time.sleep(0.02)


def _text(file: IO[bytes]) -> str:
    return _decoded(os.pread(file.fileno(), 1 << 20, 0))


def _decoded(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


Record = Callable[..., AbstractContextManager[Recorder]]
"""`recorder` without the path."""


def recording_into(folder: Path) -> Record:
    """Records into one trace of a folder after the other."""
    numbers = count()

    def start(*options: str | int | Path) -> AbstractContextManager[Recorder]:
        return recorder(folder / f"trace{next(numbers)}.slt", *options)

    return start
