"""What recording a Go service costs it, by level, beside the runtime's own execution tracer.

    sudo python -m bench.golang [--minutes 6] [--seconds 1] [--load http] [--only "level 0" ...]

One process serves HTTP to itself all the time (JSON, a goroutine and a channel per request), then
another passes a value between two goroutines: the worst case. Nothing is recorded for a moment,
then something, then nothing again, and so on: each way of recording is compared with what was
before and behind it, so that neither a start of the service nor a slow phase of the machine is in
the ratio; and so is nothing itself, which says how much of one is chance. Those that have a bound
come up most often. What counts is the process's own CPU time per request, once the recorder has
settled. The service has a P less than there are CPUs, so that it does not compete with the
recorder: how long one waits is not what the other costs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from bench.forked import prepare, recording
from bench.results import spread, surely, write
from tests.support.golang import VERSIONS, go_program
from tests.support.programs import ROOT

NOTHING, TRACER = "nothing", "execution tracer"
WAYS: dict[str, tuple[str, ...]] = {
    "level 0": ("--go-level", "0"),
    "level 1": ("--go-level", "1"),
    "level 1, no budget": ("--go-level", "1", "--go-budget", "none"),
    "level 2": ("--go-level", "2"),
    "level 2, no budget": ("--go-level", "2", "--go-budget", "none"),
    "level 3": ("--go-level", "3"),
    TRACER: (),
}
"""Options of `sltrace record`."""
BOUNDS = {"level 0": 1.03, "level 1": 1.03, "level 2": 1.10}
"""What a request may cost, in times of nothing."""
LOADS = {"http": "HTTP, us per request", "switch": "channels, ns per switch"}
_SHARE = {"http": 0.75, "switch": 0.25}
"""Of the time."""
_OFTEN = 5
"""Rounds of those with a bound for one of the others."""
_SETTLES_S = 0.7
"""The first look, when a recording begins, is longer than those that follow."""


@dataclass
class Service:
    """The program, running."""

    process: subprocess.Popen[str]

    def ask(self, command: str = "") -> tuple[int, int]:
        """CPU time so far, ns, and requests or switches."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        used, number = map(int, self.process.stdout.readline().split())
        return used, number

    def cost(self, seconds: float) -> float:
        """CPU ns per request or switch in the time that follows."""
        before = self.ask()
        time.sleep(seconds)
        after = self.ask()
        return (after[0] - before[0]) / (after[1] - before[1])


@contextmanager
def running(load: str, procs: int) -> Iterator[Service]:
    """The program under a load, with so many Ps; it ends with the block."""
    program = go_program(ROOT / "bench" / "go_cost", VERSIONS[2])
    environment = {**os.environ, "GOMAXPROCS": str(procs)}
    with subprocess.Popen(
        [program, load],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            yield Service(process)
        finally:
            process.kill()


@contextmanager
def traced(service: Service) -> Iterator[None]:
    """The runtime's own tracer is on."""
    service.ask("trace")
    try:
        yield
    finally:
        service.ask("untrace")


def measured(service: Service, way: str, seconds: float) -> float:
    """CPU ns per request or switch while it is recorded in this way."""
    options = WAYS[way]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "go.slt"
        pid = service.process.pid
        with recording(path, "--pid", pid, *options) if options else traced(service):
            time.sleep(_SETTLES_S)
            return service.cost(seconds)


def turns(ways: Sequence[str]) -> Iterator[str]:
    """Ways in the order in which they are measured, without end."""
    bounded = [way for way in ways if way in BOUNDS]
    for number in count():
        yield from bounded if number % 2 else reversed(bounded)
        if number % _OFTEN == 0 or not bounded:
            yield from (way for way in ways if way not in BOUNDS)


def main() -> None:
    """Measures, prints and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--seconds", type=float, default=1.0, help="each is measured for so long")
    parser.add_argument("--procs", type=int, default=max(len(os.sched_getaffinity(0)) - 1, 1))
    parser.add_argument("--load", action="append", choices=LOADS, help="of these; both if none")
    parser.add_argument("--only", action="append", choices=WAYS, help="of these")
    options = parser.parse_args()
    loads = options.load or list(LOADS)
    ways = [way for way in WAYS if way in (options.only or WAYS)]
    rows: list[tuple[str, ...]] = []
    kept: dict[str, list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, running(loads[0], options.procs) as service:
        prepare(Path(folder) / "first.slt", "--pid", service.process.pid)
    for load in loads:
        costs: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
        """Before, with it, after; what is after one is before the next."""
        minutes = options.minutes * _SHARE[load] / sum(_SHARE[other] for other in loads)
        ends = time.monotonic() + 60 * minutes
        with running(load, options.procs) as service:
            service.cost(1)
            quiet = [service.cost(options.seconds)]
            for way in turns(ways):
                if time.monotonic() > ends and all(len(costs[other]) > 1 for other in ways):
                    break
                cost = measured(service, way, options.seconds)
                quiet.append(service.cost(options.seconds))
                costs[way].append((quiet[-2], cost, quiet[-1]))
        # How much of a ratio is the machine's.
        costs = {NOTHING: list(zip(quiet, quiet[1:], quiet[2:], strict=False)), **costs}
        unit = 1000 if load == "http" else 1
        for way in (NOTHING, *ways):
            ratios = [cost / ((before + after) / 2) for before, cost, after in costs[way]]
            bound = BOUNDS.get(way) if load == "http" else None
            cells = [spread([cost / unit for _, cost, _ in costs[way]], 1), spread(ratios)]
            rows.append((LOADS[load], way, *cells, surely(ratios), f"{bound or ''}"))
        kept |= {f"{load}, {way}": each for way, each in costs.items()}
    print(
        write(
            "golang",
            f"A Go service's own CPU time (Go {VERSIONS[2]}, {options.procs} Ps)",
            (
                *("load", "recorded", "CPU: median [min-max]", "times nothing"),
                *("the median is, 19 times in 20", "at most"),
            ),
            rows,
            {"before_with_after_ns": kept},
        )
    )


if __name__ == "__main__":
    main()
