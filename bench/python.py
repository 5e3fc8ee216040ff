"""What looking into Python costs a WSGI and an ASGI service.

    sudo python -m bench.python [--pairs 20] [--seconds 4]

gunicorn with Flask and uvicorn with FastAPI, both traced by OpenTelemetry, answer four clients
that ask without a pause. Meanwhile a recording comes and goes: pairs of periods with and without
one, in an order by chance, right after each other, as the machine is not the same a minute later.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from bench.machine import process_seconds
from bench.requests import Answered, clients
from bench.results import surely, within, write
from sltrace.names.proc import with_children
from sltrace.trace.reader import Trace
from tests.support.pythons import PROGRAMS
from tests.support.recorder import recorder

SERVICES = {
    "gunicorn, Flask": ("gunicorn", "-w", "2", "--threads", "4", "-b", "127.0.0.1:0",
                        "flask_app:app"),
    "uvicorn, FastAPI": ("uvicorn", "--port", "0", "--no-access-log", "fastapi_app:app"),
}  # fmt: skip
CLIENTS = 4
SETTLE_S = 0.5
"""Before each period: what a recording does at its start and at its end is not in it."""
AGAIN = 1000
"""How often pairs are drawn by chance, to see what else might have come out."""


@dataclass(frozen=True)
class Period:
    """Some seconds of the service.

    Attributes:
        rate: Requests per second.
        cpu_s: CPU time of the service per request.
        p99_s: 99th percentile of the requests' durations, `spent`.
        switch_ns: The probes' own time per switch-out of the service; 0 without a recording.
        recorder: CPUs that the recorder took; likewise.
    """

    service: str
    pair: int
    recorded: bool
    rate: float
    cpu_s: float
    p99_s: float
    switch_ns: float
    recorder: float
    spent: NDArray[np.float64] = field(repr=False)


Pair = dict[bool, Period]


@contextmanager
def serving(command: Sequence[str], folder: Path) -> Iterator[tuple[int, int]]:
    """Runs a service of tests/python/programs; its process id and port."""
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


def measure(
    service: str, pair: int, recorded: bool, pid: int, answered: Answered, seconds: float
) -> Period:
    """One period, under a recording or not."""
    pids, recorders, trace = with_children([pid]), [], None
    with ExitStack() as stack:
        if recorded:
            path = Path(stack.enter_context(TemporaryDirectory())) / "python.slt"
            running = stack.enter_context(recorder(path, "--pid", pid))
            recorders = [running.pid]
        time.sleep(SETTLE_S)
        before, begin = _cpu(pids), time.monotonic()
        own = _cpu(recorders)
        time.sleep(seconds)
        end, after = time.monotonic(), _cpu(pids)
        own = _cpu(recorders) - own
        switch_ns = 0.0
        if recorded:
            running.end()
            trace = Trace.open(path)
            counters = trace.meta["sources"]["python"]["counters"]
            switch_ns = counters["python_ns"] / max(counters["python_switches"], 1)
    spent = answered(begin, end)
    rate, cpu_s = len(spent) / (end - begin), (after - before) / len(spent)
    p99_s, cpus = float(np.quantile(spent, 0.99)), own / (end - begin)
    return Period(service, pair, recorded, rate, cpu_s, p99_s, switch_ns, cpus, spent)


def _cpu(pids: Sequence[int]) -> float:
    return sum(map(process_seconds, pids))


def pooled_p99(pairs: Sequence[Pair]) -> str:
    """p99 of all requests with by that of all without, and where it is in 19 of 20 drawings."""

    def ratio(some: Sequence[Pair]) -> float:
        with_it, without = (np.concatenate([p[way].spent for p in some]) for way in (True, False))
        return float(np.quantile(with_it, 0.99) / np.quantile(without, 0.99))

    chance = random.Random(1)
    again = sorted(ratio(chance.choices(pairs, k=len(pairs))) for _ in range(AGAIN))
    low, high = again[AGAIN // 40], again[-AGAIN // 40]
    return within(ratio(pairs), low, high)


def run(service: str, count: int, seconds: float) -> list[Pair]:
    """All pairs of a service."""
    pairs: list[Pair] = []
    chance = random.Random(service)
    with (
        TemporaryDirectory() as folder,
        serving(SERVICES[service], Path(folder)) as (pid, port),
        clients(port, CLIENTS, Path(folder)) as answered,
    ):
        time.sleep(2)
        for number in range(count):
            order = chance.sample((False, True), 2)
            pairs.append({w: measure(service, number, w, pid, answered, seconds) for w in order})
    return pairs


def row(service: str, pairs: Sequence[Pair]) -> list[str]:
    """Cells of the table."""

    def ratios(of: Callable[[Period], float]) -> str:
        return surely([of(p[True]) / of(p[False]) for p in pairs])

    recorded = [p[True] for p in pairs]
    switch, own = (np.median([getattr(r, n) for r in recorded]) for n in ("switch_ns", "recorder"))
    return [
        service,
        ratios(lambda p: p.rate),
        ratios(lambda p: p.p99_s),
        pooled_p99(pairs),
        ratios(lambda p: p.cpu_s),
        f"{switch:.0f} ns",
        f"{own:.1%}",
    ]


def main() -> None:
    """Measures and writes bench/results/python.*."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    measured = {name: run(name, options.pairs, options.seconds) for name in SERVICES}
    rows = [row(name, pairs) for name, pairs in measured.items()]
    header = ["service", "requests/s", "p99", "p99 of all requests", "CPU per request",
              "probes per switch", "recorder's CPU"]  # fmt: skip
    title = (
        "What looking into Python costs a service: with a recording by without, "
        f"medians of {options.pairs} pairs (95 %)"
    )
    periods = [p for pairs in measured.values() for pair in pairs for p in pair.values()]
    figures = [{k: v for k, v in asdict(p).items() if k != "spent"} for p in periods]
    print(write("python", title, header, rows, {"periods": figures}))


if __name__ == "__main__":
    main()
