"""Clients that ask a service again as soon as they have its answer, in a process of their own.

    python -m bench.requests PORT CLIENTS > FILE

Writes when each request began and how long it took, as two doubles in seconds, as each is
answered. One thread: clients that wait for one another's GIL have tails of their own, of 5 ms.
"""

from __future__ import annotations

import os
import re
import selectors
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Answered = Callable[[float, float], NDArray[np.float64]]
"""How long those requests took that began between two moments (CLOCK_MONOTONIC, seconds)."""


@contextmanager
def clients(port: int, count: int, folder: Path) -> Iterator[Answered]:
    """So many ask all the time within the block.

    Raises:
        SystemExit: They could not, or the service failed.
    """
    path = folder / "requests"
    with open(path, "wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.requests", str(port), str(count)], stdout=out
        )

    def answered(begin: float, end: float) -> NDArray[np.float64]:
        if process.poll() is not None:
            raise SystemExit("the clients gave up")
        raw = path.read_bytes()
        began, took = np.frombuffer(raw[: len(raw) & ~15]).reshape(-1, 2).T
        return took[(began >= begin) & (began < end)]

    try:
        yield answered
    finally:
        process.terminate()
        process.wait()


class _Client:
    """One connection, which has one request at a time."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._begin = 0.0
        self._answer = b""

    def ask(self) -> None:
        """Sends the next request."""
        self._answer = b""
        self._begin = time.monotonic()
        self.socket.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")

    def read(self) -> tuple[float, float] | None:
        """Takes what there is; once all of it is there, when it was asked for and how long ago."""
        part = self.socket.recv(1 << 16)
        if not part:
            raise SystemExit(f"the service closed a connection: {self._answer!r}")
        self._answer += part
        head, _, body = self._answer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if not length or len(body) < int(length[1]):
            return None
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"the service failed: {head!r}")
        return self._begin, time.monotonic() - self._begin


def main() -> None:
    """Asks for ever."""
    port, count = map(int, sys.argv[1:])
    selector = selectors.DefaultSelector()
    for _ in range(count):
        client = _Client(socket.create_connection(("127.0.0.1", port), timeout=10))
        selector.register(client.socket, selectors.EVENT_READ, client)
        client.ask()
    while True:
        for key, _ in selector.select(10):
            if (answered := key.data.read()) is not None:
                os.write(sys.stdout.fileno(), struct.pack("2d", *answered))
                key.data.ask()


if __name__ == "__main__":
    main()
