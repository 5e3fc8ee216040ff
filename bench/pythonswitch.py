"""What one switch of a Python thread costs, by the depth of its stack, and one of somebody else.

    sudo python -m bench.pythonswitch [--rounds 5] [--seconds 1]

Two threads on one CPU wake each other through pipes. Selected: the probes' own time per switch-out,
and the process's CPU time for a round trip, which is two switches, with and without a recording.
Not selected: the same while another Python process is recorded, which does nothing, with and
without looking into Python; what the scheduler's own probes cost everybody is in both.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.results import spread, write
from sltrace.trace.reader import Trace
from tests.support.pythons import PROGRAMS
from tests.support.recorder import recorder

DEPTHS = (1, 8, 32, 120)
_OPTIONS = ("--force", "--min-latency", "1s")
_LOOKED_INTO = (*_OPTIONS, "--python-rate", "0")
"""Every switch has its stack, and no wait becomes a row: the probes, not the rings."""


@dataclass(frozen=True)
class Round:
    """One pair of measurements.

    Attributes:
        depth: Frames on the stack of each thread.
        selected: Whether it was the recorded process.
        without_ns: CPU time of a round trip without a recording; if not selected, without Python.
        with_ns: And with one.
        switch_ns: The probes' own time per switch-out of the recorded process.
    """

    depth: int
    selected: bool
    without_ns: float
    with_ns: float
    switch_ns: float


@contextmanager
def _running(*command: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _trip_ns(process: subprocess.Popen[str], seconds: float) -> float:
    """CPU time that a round trip takes now."""
    assert process.stdin
    assert process.stdout
    readings = []
    for wait in (seconds, 0):
        process.stdin.write("\n")
        process.stdin.flush()
        readings.append([int(x) for x in process.stdout.readline().split()])
        time.sleep(wait)
    (begin, before), (end, after) = readings
    return (end - begin) / max(after - before, 1)


def measure(depth: int, selected: bool, rounds: int, seconds: float, path: Path) -> list[Round]:
    """Pairs of measurements of one process."""
    found = []
    program = str(PROGRAMS / "pingpong.py")
    length = str(60 + rounds * (2 * seconds + 30))
    idle = ("-c", "import time; time.sleep(3600)")
    with _running(program, str(depth), length) as process, _running(*idle) as other:
        assert process.stdout
        process.stdout.readline()
        recorded = process.pid if selected else other.pid
        for _ in range(rounds):
            if selected:
                without = _trip_ns(process, seconds)
            else:
                with recorder(path, *_OPTIONS, "--no-python", "--pid", recorded):
                    without = _trip_ns(process, seconds)
            with recorder(path, *_LOOKED_INTO, "--pid", recorded):
                with_it = _trip_ns(process, seconds)
            counters = Trace.open(path).meta["sources"]["python"]["counters"]
            switch = counters["python_ns"] / max(counters["python_switches"], 1)
            found.append(Round(depth, selected, without, with_it, switch))
    return found


def main() -> None:
    """Measures and writes bench/results/pythonswitch.*."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    runs: list[Round] = []
    with TemporaryDirectory() as name:
        path = Path(name) / "trace.slt"
        for depth, selected in [*((d, True) for d in DEPTHS), (DEPTHS[1], False)]:
            runs += measure(depth, selected, options.rounds, options.seconds, path)
    rows = [_row([r for r in runs if r.depth == d and r.selected]) for d in DEPTHS]
    rows.append(_row([r for r in runs if not r.selected]))
    header = ["frames", "probes per switch-out", "CPU per round trip, without",
              "with / without", "more per switch"]  # fmt: skip
    title = "What a switch of a Python thread costs: medians [least-most]"
    print(write("pythonswitch", title, header, rows, {"rounds": [asdict(r) for r in runs]}))


def _row(runs: list[Round]) -> list[str]:
    own = statistics.median(r.switch_ns for r in runs)
    more = statistics.median((r.with_ns - r.without_ns) / 2 for r in runs)
    return [
        str(runs[0].depth) if runs[0].selected else "not selected",
        f"{own:.0f} ns" if runs[0].selected else "",
        f"{statistics.median(r.without_ns for r in runs) / 1000:.1f} us",
        spread([r.with_ns / r.without_ns for r in runs], 3),
        f"{more:.0f} ns",
    ]


if __name__ == "__main__":
    main()
