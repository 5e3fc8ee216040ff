"""What looking into Python costs a WSGI and an ASGI service.

    sudo python -m bench.python [--rounds 5] [--seconds 2]

gunicorn with Flask and uvicorn with FastAPI, both traced by OpenTelemetry, answer four clients.
Every round measures each with and without a recording, in reversed order the next time, and
compares the two: requests per second, the 99th percentile, and the service's own CPU time per
request, which other load on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.machine import process_seconds
from bench.results import spread, write
from sltrace.names.processes import with_children
from sltrace.trace.reader import Trace
from tests.support.pythons import PROGRAMS
from tests.support.recorder import recorder

SERVICES = {
    "gunicorn, Flask": ("gunicorn", "-w", "2", "--threads", "2", "-b", "127.0.0.1:0",
                        "flask_app:app"),
    "uvicorn, FastAPI": ("uvicorn", "--port", "0", "--no-access-log", "fastapi_app:app"),
}  # fmt: skip
CLIENTS = 4


@dataclass(frozen=True)
class Run:
    """One run of the clients.

    Attributes:
        rate: Requests per second.
        p99_s: 99th percentile of their duration.
        cpu_s: CPU time of the service per request.
        switch_ns: The probes' own time per switch-out of the service; 0 without a recording.
    """

    service: str
    round: int
    recorded: bool
    rate: float
    p99_s: float
    cpu_s: float
    switch_ns: float


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
    """Durations of the requests of all clients."""
    spent: list[float] = []
    until = time.monotonic() + seconds

    def client() -> None:
        while (begin := time.monotonic()) < until:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                answer.read()
            spent.append(time.monotonic() - begin)

    clients = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    return spent


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
    p99 = statistics.quantiles(spent, n=100)[98]
    return Run(name, number, recorded, len(spent) / seconds, p99, cpu / len(spent), switch_ns)


def main() -> None:
    """Measures and writes bench/results/python.*."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
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
    title = "What looking into Python costs a service: median of paired ratios [least-most]"
    print(write("python", title, header, rows, {"runs": [asdict(r) for r in runs]}))


def _row(service: str, runs: Sequence[Run]) -> list[str]:
    pairs: dict[int, dict[bool, Run]] = {}
    for run in runs:
        if run.service == service:
            pairs.setdefault(run.round, {})[run.recorded] = run
    ratios = [
        spread([getattr(p[True], field) / getattr(p[False], field) for p in pairs.values()], 3)
        for field in ("rate", "p99_s", "cpu_s")
    ]
    switch = statistics.median(p[True].switch_ns for p in pairs.values())
    return [service, *ratios, f"{switch:.0f} ns"]


if __name__ == "__main__":
    main()
