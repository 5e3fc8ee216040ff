"""What the recorder itself needs: CPU per event, memory, disk, losses, and time to start.

    sudo python -m bench.recorder [--rate 300000] [--seconds 10] [--check]

The load is pinned ping-pong pairs; how many waits there were is the kernel's own count (the time
slices in the threads' schedstat), not the recorder's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.machine import process_seconds
from bench.results import size_of, write
from bench.tools import ToolError, running, sltrace
from sltrace.model import RUNQ_KINDS
from sltrace.trace.reader import Trace
from tests.support.loads import ThreadReport, allowed_cpus, load

PAIRS_PER_CPU = 2
STARTS = 5
MOST_SECONDS = 60
"""Of one load; a longer recording has several, one after the other."""
BOUNDED_RATE = 100_000
"""Up to this rate memory has a bound."""


@dataclass(frozen=True)
class Busy:
    """One recording under load. `waits` are the load's switch-ins, as the kernel counted them."""

    waits: int
    waits_per_s: float
    recorded: int
    rows: int
    lost: int
    partial: int
    cpu_ns_per_wait: float
    steady_cpu_ns_per_wait: float
    waits_bytes_per_row: float
    trace_bytes_per_wait: float
    rss_early_mb: float
    rss_peak_mb: float


def record_busy(rate: int, seconds: int) -> Busy:
    """Records the load at about `rate` waits/s.

    Raises:
        ToolError: The recorder did not live through it.
    """
    pairs = PAIRS_PER_CPU * len(allowed_cpus())
    # A round is two switch-ins, one of each side.
    options = ("--pairs", pairs, "--rate", rate // (2 * pairs), "--spread", "--via", "futex")
    rounds = -(-seconds // MOST_SECONDS)
    each_s = seconds // rounds
    with TemporaryDirectory(prefix="sltrace-bench-") as folder:
        with running(sltrace("recorder"), Path(folder)) as state:
            at_ready = process_seconds(state.pid)
            early, outcomes = 0.0, []
            for number in range(rounds):
                with load("pingpong", "--duration", each_s, *options) as pairs_load:
                    if number == rounds // 4:
                        time.sleep(rounds * each_s / 4 - number * each_s)
                        early = _memory_mb(state.pid, "VmRSS")
                    outcomes.append(pairs_load.outcome())
            time.sleep(0.5)  # the last drain
            at_end = process_seconds(state.pid)
            peak = _memory_mb(state.pid, "VmHWM")
        path = Path(folder) / "t.slt"
        threads = [t for outcome in outcomes for t in outcome.threads]
        recorded, rows, lost, partial = _count(Trace.open(path), threads)
        waits_bytes, all_bytes = size_of(path / "waits"), size_of(path)
    waits = sum(t.timeslices for t in threads)
    return Busy(
        waits=waits,
        waits_per_s=waits / (sum(o.values["elapsed_ns"] for o in outcomes) / 1e9),
        recorded=recorded,
        rows=rows,
        lost=lost,
        partial=partial,
        cpu_ns_per_wait=state.cpu_s * 1e9 / waits,
        steady_cpu_ns_per_wait=(at_end - at_ready) * 1e9 / waits,
        waits_bytes_per_row=waits_bytes / max(rows, 1),
        trace_bytes_per_wait=all_bytes / waits,
        rss_early_mb=early,
        rss_peak_mb=peak,
    )


def _count(trace: Trace, threads: Sequence[ThreadReport]) -> tuple[int, int, int, int]:
    """Switch-ins of the load's threads in the trace; rows, lost and partly seen waits of all."""
    trace.connection.execute("CREATE TABLE load (tid INTEGER, start_ns BIGINT, stop_ns BIGINT)")
    trace.connection.executemany(
        "INSERT INTO load VALUES (?, ?, ?)",
        [(t.tid, t.start_ns, t.end_ns) for t in threads],
    )
    found = trace.sql(
        "SELECT (SELECT count(*) FROM waits JOIN load USING (tid)"
        f" WHERE kind IN {RUNQ_KINDS!r} AND end_ns BETWEEN start_ns AND stop_ns) AS recorded,"
        " (SELECT count(*) FROM waits) AS total,"
        " (SELECT coalesce(sum(value), 0) FROM counters WHERE name IN ('ring_full', 'state_lost'))"
        " AS lost, (SELECT count(*) FROM missed) AS partial"
    ).to_pylist()[0]
    recorded, total, lost, partial = map(int, found.values())
    return recorded, total, lost, partial


def first_event_s() -> tuple[float, float]:
    """Seconds from starting the recorder to its first wait, and to its saying it records."""
    with TemporaryDirectory(prefix="sltrace-bench-") as folder:
        with (
            load("pingpong", "--duration", 20, "--rate", 1000) as pairs_load,
            running(sltrace("recorder"), Path(folder)) as state,
        ):
            time.sleep(0.5)
            pairs_load.stop()
        rows = Trace.open(Path(folder) / "t.slt").sql("SELECT min(end_ns) AS ns FROM waits")
    first = rows.to_pylist()[0]["ns"]
    if first is None:
        raise ToolError("recorded nothing")
    return (first - state.started_ns) / 1e9, state.ready_s


def _memory_mb(pid: int, key: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    raise ToolError("ended during the load")


def table(
    rate: int, busy: Busy, starts: list[tuple[float, float]]
) -> list[tuple[str, float, float | None]]:
    """Measure, value, and the most it may be."""
    steady_per_row = busy.steady_cpu_ns_per_wait * busy.waits / max(busy.rows, 1)
    return [
        ("waits/s of the load (kernel's count)", busy.waits_per_s, None),
        ("of these not in the trace, %", 100 * (1 - busy.recorded / busy.waits), 0.1),
        ("lost", busy.lost, 0),
        ("of these and all others not seen whole, bounded", busy.partial, None),
        (
            "recorder CPU per wait, start and end too, us",
            busy.cpu_ns_per_wait / 1000,
            None,
        ),
        ("recorder CPU per wait, recording alone, us", busy.steady_cpu_ns_per_wait / 1000, None),
        # A wait that was woken is two rows: blocked, and in the queue.
        ("recorder CPU per row, recording alone, us", steady_per_row / 1000, 0.3),
        ("bytes on disk per row of waits", busy.waits_bytes_per_row, 24),
        ("bytes on disk per wait, the whole trace", busy.trace_bytes_per_wait, None),
        ("resident after a quarter, MB", busy.rss_early_mb, None),
        ("resident at most, MB", busy.rss_peak_mb, 150 if rate <= BOUNDED_RATE else None),
        ("start to first event, s", statistics.median(s[0] for s in starts), 0.5),
        ("start to 'recording', s", statistics.median(s[1] for s in starts), None),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--rate", type=int, default=300_000, help="waits per second")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bound is exceeded")
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.exit(3, "recorder: needs root; use sudo\n")
    try:
        busy = record_busy(options.rate, options.seconds)
        starts = [first_event_s() for _ in range(STARTS)]
    except ToolError as err:
        parser.exit(1, f"recorder: {err}\n")
    rows = table(options.rate, busy, starts)
    over = [name for name, value, bound in rows if bound is not None and value > bound]
    cells = [
        [
            name,
            f"{value:,.3f}",
            "" if bound is None else f"{bound:g}",
            "OVER" if name in over else "",
        ]
        for name, value, bound in rows
    ]
    text = write(
        f"recorder_{options.rate // 1000}k",
        f"The recorder at {options.rate:,} waits/s for {options.seconds} s, every wait recorded",
        ["", "measured", "at most", ""],
        cells,
        {"busy": asdict(busy), "starts": starts, "over": over},
    )
    print(text)
    return int(options.check and bool(over))


if __name__ == "__main__":
    sys.exit(main())
