"""Recorders that begin at once: forked off a process that has imported all that they need.

Most of the time a recorder takes to begin is Python's for its imports: 0.6 of 0.9 s. What compares
short times with and without one has the more of them.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sltrace.cli.main import run

_PATIENCE_S = 60
_BEGUN = b"recording into"


class ForkedError(Exception):
    """A recorder did not begin, or failed; with what it said."""


@contextmanager
def recording(path: Path, *options: str | int) -> Iterator[None]:
    """Runs `sltrace record -o PATH OPTIONS`; inside the block it has attached.

    Raises:
        ForkedError: It failed, or did not begin in time.
    """
    said = path.with_suffix(".said")
    child = os.fork()
    if not child:
        _record(path, said, options)
    try:
        _await(child, said)
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGINT)
        _, status = os.waitpid(child, 0)
    if status:
        raise ForkedError(said.read_text(errors="replace"))


def prepare(path: Path, *options: str | int) -> None:
    """Imports what one does that records into this path with these options."""
    with recording(path, *options):
        pass
    for name in _modules(path).read_text().splitlines():
        with suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


def _record(path: Path, said: Path, options: tuple[str | int, ...]) -> None:
    """What the child does."""
    code = 1
    try:
        out = os.open(said, os.O_WRONLY | os.O_CREAT, 0o600)
        for fd in (1, 2):
            os.dup2(out, fd)
        run(["record", "-o", str(path), *map(str, options)])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        _modules(path).write_text("\n".join(sys.modules))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _modules(path: Path) -> Path:
    return path.with_suffix(".modules")


def _await(child: int, said: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not said.exists() or _BEGUN not in said.read_bytes():
        if time.monotonic() > deadline or not Path(f"/proc/{child}").exists():
            raise ForkedError(said.read_text(errors="replace") if said.exists() else "")
        time.sleep(0.01)
