"""What recording a Go service costs it, by level, beside the runtime's own execution tracer.

    sudo python -m bench.golang [--rounds 7] [--seconds 4] [--load http] [--only "level 0" ...]

One process serves HTTP to itself (JSON, a goroutine and a channel per request), then passes a
value between two goroutines: the worst case. Each round measures nothing, each level within its
budget and without, and the execution tracer, in an order that turns around, and compares with the
same round's nothing. What counts is the process's own CPU time, which other processes of the
machine disturb least.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections import defaultdict
from contextlib import nullcontext
from pathlib import Path

from bench.results import spread, surely, write
from tests.support.golang import VERSIONS, go_program
from tests.support.programs import ROOT
from tests.support.recorder import recorder

NOTHING = "nothing"
WAYS: dict[str, tuple[str, ...] | None] = {
    NOTHING: None,
    "level 0": ("--go-level", "0"),
    "level 1": ("--go-level", "1"),
    "level 1, no budget": ("--go-level", "1", "--go-budget", "none"),
    "level 2": ("--go-level", "2"),
    "level 2, no budget": ("--go-level", "2", "--go-budget", "none"),
    "level 3": ("--go-level", "3"),
    "execution tracer": None,
}
"""Options of `sltrace record`; None for no recorder."""
BOUNDS = {"level 0": 1.03, "level 1": 1.03, "level 2": 1.10}
"""What a request may cost, in times of nothing."""
LOADS = {"http": "HTTP, us per request", "switch": "channels, ns per switch"}


def measured(process: subprocess.Popen[str], load: str, way: str, seconds: float) -> float:
    """CPU ns per request or switch."""
    assert process.stdin
    assert process.stdout
    options = WAYS[way]
    with tempfile.TemporaryDirectory() as folder:
        recording = (
            recorder(Path(folder) / "go.slt", "--pid", process.pid, *options)
            if options
            else nullcontext()
        )
        with recording:
            traced = "traced" if way == "execution tracer" else ""
            process.stdin.write(f"{load} {seconds * 1000:.0f} {traced}\n")
            process.stdin.flush()
            used, count = map(int, process.stdout.readline().split())
    return used / count


def main() -> None:
    """Measures, prints and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--load", action="append", choices=LOADS, help="of these; both if none")
    parser.add_argument("--only", action="append", choices=WAYS, help="of these, beside nothing")
    options = parser.parse_args()
    ways = [way for way in WAYS if way == NOTHING or way in (options.only or WAYS)]
    loads = options.load or list(LOADS)
    costs: dict[tuple[str, str], list[float]] = defaultdict(list)
    program = go_program(ROOT / "bench" / "go_cost", VERSIONS[2])
    for load in loads:
        with subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout
                process.stdout.readline()
                for number in range(options.rounds):
                    for way in ways if number % 2 else reversed(ways):
                        costs[load, way].append(measured(process, load, way, options.seconds))
            finally:
                process.kill()
    rows = []
    for load in loads:
        base, unit = costs[load, NOTHING], 1000 if load == "http" else 1
        for way in ways:
            ratios = [c / b for c, b in zip(costs[load, way], base, strict=True)]
            values = [c / unit for c in costs[load, way]]
            bound = BOUNDS.get(way) if load == "http" else None
            row = [LOADS[load], way, spread(values, 1), spread(ratios), surely(ratios)]
            rows.append([*row, f"{bound or ''}"])
    print(
        write(
            "golang",
            f"A Go service's own CPU time (Go {VERSIONS[2]}, {options.rounds} rounds)",
            (
                *("load", "recorded", "CPU: median [min-max]", "times nothing"),
                *("the median is, 19 times in 20", "at most"),
            ),
            rows,
            {"costs_ns": {f"{load}, {way}": v for (load, way), v in costs.items()}},
        )
    )


if __name__ == "__main__":
    main()
