"""What recording costs a context-switch-bound program, beside other tracers.

    sudo python -m bench.overhead [--rounds 9] [--loops 200000] [--only TEXT] [--check]

The worst case there is: `perf bench sched pipe` pinned to one CPU, about 2 switches and a wakeup
in 5 us. Every round runs every tool once, in reversed order the next time, and is compared with
the same round's run without a tool, so that a slow phase of the machine hits both.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.machine import busy_seconds, process_seconds, run_measured
from bench.results import size_of, spread, write
from bench.tools import Tool, ToolError, peers, running, sltrace

NONE = "none"

STACKS = ("--stacks", "both")
WAKERS_TOO = (*STACKS, "--waker-stacks")
CAPPED = (*WAKERS_TOO, "--stack-min", "1ms", "--stack-rate", "100")


def ours() -> list[Tool]:
    """What is promised, with the bounds of the project's budget."""
    return [
        sltrace("sltrace: every wait", bound=1.25),
        sltrace("sltrace: histograms only", "--histogram-only", bound=1.17),
        sltrace("sltrace: all filtered out", "--comm", "matches-nothing", bound=1.12),
        sltrace("sltrace: stacks on every wait", *STACKS, bound=2.5),
        sltrace("sltrace: and the waker's", *WAKERS_TOO),
        sltrace("sltrace: stacks over 1 ms, 100/s", *CAPPED),
    ]


@dataclass(frozen=True)
class Sample:
    """One run of the load. All in seconds; `foreign_s` is CPU that neither load nor tool used."""

    tool: str
    round: int
    cpu_s: float
    wall_s: float
    tool_cpu_s: float
    foreign_s: float
    output_bytes: int


def measure(tool: Tool, number: int, load: list[str]) -> Sample:
    """Runs the load once under a tool.

    Raises:
        ToolError: The tool did not live through it.
    """
    if not tool.command:
        before = busy_seconds()
        spent = run_measured(load)
        foreign = busy_seconds() - before - spent.cpu_s
        return Sample(tool.name, number, spent.cpu_s, spent.wall_s, 0.0, foreign, 0)
    with TemporaryDirectory(prefix="sltrace-bench-") as folder:
        with running(tool, Path(folder)) as state:
            own, before = process_seconds(state.pid), busy_seconds()
            spent = run_measured(load)
            own = process_seconds(state.pid) - own
            foreign = busy_seconds() - before - spent.cpu_s - own
        written = size_of(Path(folder))
    return Sample(tool.name, number, spent.cpu_s, spent.wall_s, own, foreign, written)


def run(tools: list[Tool], rounds: int, load: list[str]) -> tuple[list[Sample], dict[str, str]]:
    """All rounds, interleaved; and the tools that had to be left out, each with the reason."""
    left_out = {t.name: t.skip for t in tools if t.skip}
    samples = []
    run_measured(load)  # brings the program and the CPU's clock to where the rounds find them
    for number in range(rounds):
        for tool in tools if number % 2 == 0 else reversed(tools):
            if tool.name in left_out:
                continue
            try:
                samples.append(measure(tool, number, load))
            except (ToolError, FileNotFoundError) as err:
                left_out[tool.name] = str(err)
        print(f"round {number + 1} of {rounds} done", file=sys.stderr, flush=True)
    return [s for s in samples if s.tool not in left_out], left_out


def ratios(samples: list[Sample], tool: str) -> list[float]:
    """CPU time under `tool` over that of the same round without any."""
    base = {s.round: s.cpu_s for s in samples if s.tool == NONE}
    return [s.cpu_s / base[s.round] for s in samples if s.tool == tool]


def table(tools: list[Tool], samples: list[Sample], left_out: dict[str, str]) -> list[list[str]]:
    """Cells, one row per tool."""
    rows = []
    for tool in tools:
        if tool.name in left_out:
            rows.append([tool.name, "-", "-", "-", "-", f"left out: {left_out[tool.name]}"])
            continue
        mine = [s for s in samples if s.tool == tool.name]
        rows.append(
            [
                tool.name,
                spread(ratios(samples, tool.name)),
                f"{statistics.median(s.cpu_s for s in mine):.3f}",
                f"{statistics.median(s.tool_cpu_s for s in mine):.2f}",
                f"{max(s.foreign_s for s in mine):.2f}",
                verdict(tool, samples),
            ]
        )
    return rows


def verdict(tool: Tool, samples: list[Sample]) -> str:
    """Whether the median is within the tool's bound."""
    if tool.bound is None:
        return ""
    good = statistics.median(ratios(samples, tool.name)) <= tool.bound
    return f"{'within' if good else 'OVER'} {tool.bound:g}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--loops", type=int, default=200_000)
    parser.add_argument("--only", default="", help="tools whose name contains this")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bound is exceeded")
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.exit(3, "overhead: needs root, like every tracer it starts; use sudo\n")
    if not shutil.which("perf"):
        parser.exit(3, "overhead: no perf for the load; apt-get install linux-perf\n")
    cpu = max(os.sched_getaffinity(0))
    load = ["taskset", "-c", str(cpu), "perf", "bench", "sched", "pipe", "-l", str(options.loops)]
    chosen = [t for t in (*ours(), *peers()) if options.only in t.name]
    tools = [Tool(NONE), *chosen]
    samples, left_out = run(tools, options.rounds, load)
    text = write(
        "overhead",
        f"CPU time of `{' '.join(load)}`, {options.rounds} interleaved rounds, median [min-max]",
        ["tool", "ratio to none", "load CPU s", "tool CPU s", "foreign CPU s, worst", ""],
        table(tools, samples, left_out),
        {"load": load, "samples": [asdict(s) for s in samples], "left_out": left_out},
    )
    print(text)
    bounded = [t for t in tools if t.bound is not None]
    broken = any(t.name in left_out or verdict(t, samples).startswith("OVER") for t in bounded)
    return int(options.check and broken)


if __name__ == "__main__":
    sys.exit(main())
