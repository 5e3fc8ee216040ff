"""Programs that run beside a test: from when they have begun, and no longer than it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def endless(
    command: Sequence[str | Path],
    *,
    stdin: int | IO[bytes] | None = None,
    stdout: int | IO[bytes] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a program, which is killed with the block, however that ends."""
    with subprocess.Popen(command, stdin=stdin, stdout=stdout) as process:
        try:
            yield process
        finally:
            process.kill()


def has_begun(cat: subprocess.Popen[bytes]) -> None:
    """Its exec is over: Popen returns in the middle of that."""
    assert cat.stdin
    assert cat.stdout
    cat.stdin.write(b"\n")
    cat.stdin.flush()
    cat.stdout.readline()


def thread_called(pid: int, begin: str) -> int:
    """The one thread of a process whose name begins so; those of the kernel name themselves."""
    until = time.monotonic() + 30
    while True:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        found = [int(t.name) for t in tasks if (t / "comm").read_text().startswith(begin)]
        if found:
            (tid,) = found
            return tid
        assert time.monotonic() < until
        time.sleep(0.01)
