"""What looking into Python costs a WSGI and an ASGI service.

    sudo python -m bench.python [--rounds 8] [--seconds 4]

gunicorn with Flask and uvicorn with FastAPI, both traced by OpenTelemetry, answer four clients.
Every round measures each with and without a recording, in reversed order the next time, and
compares the two: requests per second, and the service's own CPU time per request, which other load
on the machine disturbs least. The 99th percentiles are those of all rounds' requests.
"""

from __future__ import annotations

import argparse
import random
import re
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.machine import process_seconds
from bench.results import spread, write
from sltrace.names.processes import with_children
from sltrace.trace.reader import Trace
from tests.support.pythons import PROGRAMS
from tests.support.recorder import recorder

SERVICES = {
    "gunicorn, Flask": ("gunicorn", "-w", "2", "--threads", "4", "-b", "127.0.0.1:0",
                        "flask_app:app"),
    "uvicorn, FastAPI": ("uvicorn", "--port", "0", "--no-access-log", "fastapi_app:app"),
}  # fmt: skip
CLIENTS = 4


@dataclass(frozen=True)
class Run:
    """One run of the clients.

    Attributes:
        rate: Requests per second.
        cpu_s: CPU time of the service per request.
        switch_ns: The probes' own time per switch-out of the service; 0 without a recording.
        p99_s: 99th percentile of the requests' durations.
        spent: The durations.
    """

    service: str
    round: int
    recorded: bool
    rate: float
    cpu_s: float
    switch_ns: float
    p99_s: float
    spent: list[float] = field(repr=False)


@contextmanager
def serving(command: Sequence[str], folder: Path) -> Iterator[tuple[int, int]]:
    """The service; its process id and port."""
    log = folder / "log"
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=PROGRAMS, stdout=out, stderr=out
        )
    try:
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())):
            if process.poll() is not None:
                raise SystemExit(f"{command[0]} did not start: {log.read_text()}")
            time.sleep(0.05)
        yield process.pid, int(found[1])
    finally:
        process.terminate()
        process.wait()


def load(port: int, seconds: float) -> list[float]:
    """Durations of the requests of all clients.

    One thread: clients that wait for one another's GIL have tails of their own, of 5 ms.
    """
    spent: list[float] = []
    until = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for _ in range(CLIENTS):
            client = Client(socket.create_connection(("127.0.0.1", port), timeout=10))
            selector.register(client.socket, selectors.EVENT_READ, client)
            client.ask()
        while selector.get_map():
            for key, _ in selector.select(10):
                client = key.data
                if (duration := client.read()) is None:
                    continue
                spent.append(duration)
                if time.monotonic() < until:
                    client.ask()
                else:
                    selector.unregister(client.socket)
                    client.socket.close()
    return spent


class Client:
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

    def read(self) -> float | None:
        """Takes what there is; how long the request took once all of it is there."""
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
        return time.monotonic() - self._begin


def measure(
    name: str, number: int, recorded: bool, server: tuple[int, int], seconds: float, folder: Path
) -> Run:
    """One run, under a recording or not."""
    pid, port = server
    path = folder / f"{number}.slt"
    with ExitStack() as stack:
        if recorded:
            stack.enter_context(recorder(path, "--force", "--pid", pid))
        pids = with_children([pid])
        before = sum(map(process_seconds, pids))
        spent = load(port, seconds)
        cpu = sum(map(process_seconds, pids)) - before
    switch_ns = 0.0
    if recorded:
        counters = Trace.open(path).meta["sources"]["python"]["counters"]
        switch_ns = counters["python_ns"] / max(counters["python_switches"], 1)
    rate, per_request = len(spent) / seconds, cpu / len(spent)
    return Run(name, number, recorded, rate, per_request, switch_ns, p99(spent), spent)


def p99(spent: Sequence[float]) -> float:
    """The 99th percentile."""
    return statistics.quantiles(spent, n=100)[98]


def p99_ratio(pairs: Sequence[dict[bool, Run]]) -> str:
    """Of all requests with by all without, and where 95 % of resampled rounds have it.

    A round has too few requests above its 99th percentile to be compared by itself.
    """

    def ratio(some: Sequence[dict[bool, Run]]) -> float:
        with_it, without = ([s for p in some for s in p[way].spent] for way in (True, False))
        return p99(with_it) / p99(without)

    chance = random.Random(1)
    again = sorted(ratio(chance.choices(pairs, k=len(pairs))) for _ in range(400))
    return f"{ratio(pairs):.3f} [{again[9]:.3f}-{again[-10]:.3f}]"


def main() -> None:
    """Measures and writes bench/results/python.*."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    runs: list[Run] = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        for service, command in SERVICES.items():
            with serving(command, folder) as server:
                load(server[1], 1)
                for number in range(options.rounds):
                    order = (False, True) if number % 2 == 0 else (True, False)
                    runs += [
                        measure(service, number, recorded, server, options.seconds, folder)
                        for recorded in order
                    ]
    rows = [_row(service, runs) for service in SERVICES]
    header = ["service", "requests/s, with / without", "p99, with / without",
              "CPU per request, with / without", "probes per switch"]  # fmt: skip
    title = (
        "What looking into Python costs a service: median of paired ratios [least-most]; "
        "p99 of all requests [95 %]"
    )
    figures = [{k: v for k, v in asdict(r).items() if k != "spent"} for r in runs]
    print(write("python", title, header, rows, {"runs": figures}))


def _row(service: str, runs: Sequence[Run]) -> list[str]:
    pairs: dict[int, dict[bool, Run]] = {}
    for run in runs:
        if run.service == service:
            pairs.setdefault(run.round, {})[run.recorded] = run
    rounds = list(pairs.values())
    rate, cpu = (
        spread([getattr(p[True], name) / getattr(p[False], name) for p in rounds], 3)
        for name in ("rate", "cpu_s")
    )
    switch = statistics.median(p[True].switch_ns for p in rounds)
    return [service, rate, p99_ratio(rounds), cpu, f"{switch:.0f} ns"]


if __name__ == "__main__":
    main()
