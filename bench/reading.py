"""How long it takes to read and bin a large trace: 10 million waits by default.

    python -m bench.reading [--waits 10000000] [--repeats 5] [--check]

Each figure includes opening the trace. The page cache is warm from writing it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from bench.results import size_of, spread, write
from sltrace.analysis.blame import blame
from sltrace.analysis.latency import stat
from sltrace.buckets import N_BUCKETS, bucket_of
from sltrace.trace.reader import Trace
from sltrace.trace.writer import TraceWriter
from tests.support.traces import META, WAIT

RATE = 100_000
SECOND = 1_000_000_000
COLUMNS = 600
MADE_UP = ("end_ns", "wait_ns", "kind", "tid", "cpu", "cgroup", "policy", "culprit_comm")


def make(folder: Path, waits: int) -> Path:
    """Writes a trace as the recorder does: a segment of RATE waits per second."""
    seconds = waits // RATE
    clock = META["clock"] | {"end_ns": seconds * SECOND}
    path = folder / "big.slt"
    writer = TraceWriter.create(path, META | {"clock": clock})
    random = np.random.default_rng(1)
    for second in range(seconds):
        writer.append("waits", _segment(random, second))
    writer.close()
    return path


def _segment(random: np.random.Generator, second: int) -> pa.Table:
    def text(values: list[str]) -> pa.Array:
        index = random.integers(0, len(values), RATE).astype(np.int32)
        return pa.DictionaryArray.from_arrays(index, pa.array(values))

    def constant(value: object) -> pa.Array:
        return pa.array([value]).take(pa.array(np.zeros(RATE, np.int32)))

    columns = {name: constant(value) for name, value in WAIT.items() if name not in MADE_UP}
    columns |= {
        "end_ns": pa.array(np.sort(random.integers(0, SECOND, RATE)) + second * SECOND),
        # A median of 8 us and a long tail, as under moderate contention.
        "wait_ns": pa.array(random.lognormal(9.0, 1.8, RATE).astype(np.int64)),
        "kind": text(["runq_wakeup", "runq_preempt", "blocked", "throttled"]),
        "tid": pa.array(random.integers(1, 2000, RATE).astype(np.int32)),
        "cpu": pa.array(random.integers(0, 64, RATE).astype(np.uint16)),
        "cgroup": text([f"/kubepods/pod{i}" for i in range(50)]),
        "policy": text(["OTHER", "BATCH", "FIFO"]),
        "culprit_comm": text([f"comm-{i}" for i in range(100)]),
    }
    return pa.table(columns)


def open_and_bin(path: Path) -> None:
    """Counts waits by time and latency bucket: the numbers behind a heatmap.

    Raises:
        RuntimeError: Not every wait was counted.
    """
    trace = Trace.open(path)
    width = trace.meta["clock"]["end_ns"] // COLUMNS + 1
    counts = np.zeros(COLUMNS * N_BUCKETS, np.int64)
    total = 0
    for batch in trace.connection.sql("SELECT end_ns, wait_ns FROM waits").to_arrow_reader(1 << 18):
        end_ns, wait_ns = (batch.column(i).to_numpy() for i in range(2))
        cell = end_ns // width * N_BUCKETS + bucket_of(wait_ns)
        counts += np.bincount(cell, minlength=len(counts))
        total += batch.num_rows
    if counts.sum() != total or total == 0:
        raise RuntimeError("waits fell outside the bins")


STEPS: tuple[tuple[str, Callable[[Path], object], float | None], ...] = (
    ("open", Trace.open, None),
    ("open and bin by time and latency", open_and_bin, 2.0),
    ("open and `stat --by cgroup`", lambda path: stat(Trace.open(path), ("cgroup",)), None),
    ("open and `blame --by comm`", lambda path: blame(Trace.open(path), "comm"), None),
)
"""Name, what to do, and the most seconds it may take."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--waits", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bound is exceeded")
    options = parser.parse_args()
    waits = max(1, options.waits // RATE) * RATE
    times: dict[str, list[float]] = {name: [] for name, _, _ in STEPS}
    with TemporaryDirectory(prefix="sltrace-bench-") as folder:
        path = make(Path(folder), waits)
        bytes_per_wait = size_of(path) / waits
        for _ in range(options.repeats):
            for name, step, _ in STEPS:
                start = time.monotonic()
                step(path)
                times[name].append(time.monotonic() - start)
    over = [n for n, _, most in STEPS if most is not None and np.median(times[n]) > most]
    rows = [
        [
            name,
            spread(times[name]),
            "" if most is None else f"{most:g}",
            "OVER" if name in over else "",
        ]
        for name, _, most in STEPS
    ]
    text = write(
        "reading",
        f"Reading {waits:,} waits ({bytes_per_wait:.1f} bytes each), seconds, "
        f"median [min-max] of {options.repeats}",
        ["", "s", "at most", ""],
        rows,
        {"waits": waits, "bytes_per_wait": bytes_per_wait, "times": times, "over": over},
    )
    print(text)
    return int(options.check and bool(over))


if __name__ == "__main__":
    sys.exit(main())
