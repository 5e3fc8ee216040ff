"""The BCC loader against the libbpf loader, and both against the textbook's runqlat."""

from __future__ import annotations

import ctypes
import os
import struct
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sltrace.capture import bcc_compiler, libbpf, maps
from sltrace.capture.kernel_offsets import kernel_offsets
from sltrace.capture.maps import update_map
from tests.support.loaders import (
    MISSED,
    NEEDS_BCC,
    WAKEUP,
    bcc_probes,
    libbpf_probes,
    records_of,
    unseen,
)
from tests.support.loads import load

pytestmark = [*NEEDS_BCC, pytest.mark.alone]

_MS = 1_000_000
_SECOND = 1_000_000_000


@dataclass
class Witness:
    """The textbook's runqlat for one process, in a window of time."""

    window: int
    buckets: int

    def watch(self, pid: int, start_ns: int, end_ns: int) -> None:
        update_map(self.window, bytes(4), struct.pack("<QQQ", start_ns, end_ns, pid))

    def counts(self) -> NDArray[np.int64]:
        value = ctypes.c_uint64()
        found = np.zeros(64, np.int64)
        for bucket in range(64):
            key = ctypes.c_uint32(bucket)
            assert not libbpf.library().bpf_map_lookup_elem(
                self.buckets, ctypes.byref(key), ctypes.byref(value)
            )
            found[bucket] = value.value
        return found


@contextmanager
def runqlat() -> Iterator[Witness]:
    fds = {
        "FD_START": maps.create_map("start", maps.HASH, 4, 8, 16384),
        "FD_WINDOW": maps.create_map("window", maps.ARRAY, 4, 24, 1),
        "FD_BUCKETS": maps.create_map("buckets", maps.ARRAY, 4, 8, 64),
    }
    defines = fds | {f"OFFSET_{k}": v for k, v in (kernel_offsets() or {}).items()}
    source = Path(__file__).with_name("runqlat.bcc.c")
    cflags = [f"-D{name}={value}" for name, value in defines.items()]
    names = ("sched_wakeup", "sched_wakeup_new", "sched_switch")
    programs, failed = bcc_compiler.compile_programs(source, cflags, names, tuple(fds.values()))
    assert not failed
    open_fds = [*fds.values(), *programs.values()]
    try:
        open_fds += [maps.open_raw_tracepoint(name, programs[name]) for name in names]
        yield Witness(fds["FD_WINDOW"], fds["FD_BUCKETS"])
    finally:
        for fd in open_fds:
            os.close(fd)


@dataclass(frozen=True)
class Both:
    """One load, recorded by both loaders and the witness over the same window."""

    pid: int
    bcc: NDArray[Any]
    libbpf: NDArray[Any]
    missed: dict[str, int]
    runqlat: NDArray[np.int64]

    def waits(self, records: NDArray[Any]) -> NDArray[Any]:
        chosen: NDArray[Any] = records[(records["pid"] == self.pid) & (records["kind"] < MISSED)]
        return chosen


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    arguments = ("--duration", 3, "--hogs", 2, "--sleepers", 12, "--groups", 1, "--group-size", 2)
    # The load comes last: it would starve the compiler.
    with (
        runqlat() as witness,
        closing(bcc_probes()) as ours,
        closing(libbpf_probes()) as theirs,
        load("contend", *arguments) as running,
    ):
        start = time.monotonic_ns() + 300 * _MS
        end = start + 2 * _SECOND
        witness.watch(running.pid, start, end)
        parts: dict[str, list[NDArray[Any]]] = {"bcc": [], "libbpf": []}
        over = False
        while not over:
            time.sleep(0.1)
            # Before draining: the load may keep this thread off the CPU in between.
            over = time.monotonic_ns() >= end + 50 * _MS
            parts["bcc"].append(records_of(ours))
            parts["libbpf"].append(records_of(theirs))
        in_window = {
            name: (a := np.concatenate(p))[(a["end_ns"] >= start) & (a["end_ns"] < end)]
            for name, p in parts.items()
        }
        missed = {"bcc": unseen(ours), "libbpf": unseen(theirs)}
        yield Both(running.pid, in_window["bcc"], in_window["libbpf"], missed, witness.counts())


def test_same_number_of_waits_for_each_thread(both: Both) -> None:
    counts = {}
    for name, records in (("bcc", both.bcc), ("libbpf", both.libbpf)):
        tids, number = np.unique(both.waits(records)["tid"], return_counts=True)
        counts[name] = dict(zip(tids.tolist(), number.tolist(), strict=True))
    assert len(counts["libbpf"]) >= 16
    assert counts["bcc"].keys() == counts["libbpf"].keys()
    off = {tid: counts["bcc"][tid] - n for tid, n in counts["libbpf"].items()}
    # A wait at an edge of the window may fall on either side for each of them.
    unexplained = sum(abs(d) for d in off.values()) - sum(both.missed.values())
    assert unexplained <= len(off), off
    assert sum(counts["libbpf"].values()) > 5000


def _matched(both: Both) -> tuple[NDArray[Any], NDArray[Any]]:
    """Records of the same switch-in: same thread, ends within a millisecond, one for one."""
    left, right = both.waits(both.bcc), both.waits(both.libbpf)
    pairs = []
    for tid in np.unique(right["tid"]):
        a = np.sort(left[left["tid"] == tid], order="end_ns")
        b = np.sort(right[right["tid"] == tid], order="end_ns")
        at = np.searchsorted(b["end_ns"], a["end_ns"])
        # The programs run one after the other in the same event: nearest is the same.
        before, after = np.clip(at - 1, 0, len(b) - 1), np.clip(at, 0, len(b) - 1)
        distance = [
            np.abs(b["end_ns"][i].astype(np.int64) - a["end_ns"].astype(np.int64))
            for i in (before, after)
        ]
        nearest = np.where(distance[0] < distance[1], before, after)
        close = np.minimum(*distance) < _MS
        _, once = np.unique(nearest[close], return_index=True)
        pairs.append((a[close][once], b[nearest[close][once]]))
    return tuple(np.concatenate(side) for side in zip(*pairs, strict=True))  # type: ignore[return-value]


def test_each_wait_means_the_same(both: Both) -> None:
    ours, theirs = _matched(both)
    assert len(theirs) > 0.99 * len(both.waits(both.libbpf))

    def agree(name: str) -> float:
        return float((ours[name] == theirs[name]).mean())

    for name in ("pid", "cpu", "prev_cpu", "kind", "policy", "prio", "nice", "state", "cgroup"):
        assert agree(name) > 0.99, name
    woken = ours["kind"] == WAKEUP
    assert (ours["waker_tid"] == theirs["waker_tid"])[woken].mean() > 0.99
    assert (ours["waker_context"] == theirs["waker_context"])[woken].mean() > 0.99
    known = (ours["culprit_known"] == 1) & (theirs["culprit_known"] == 1)
    assert known.mean() > 0.9
    assert (ours["culprit_tid"] == theirs["culprit_tid"])[known].mean() > 0.97
    assert len(np.unique(ours["culprit_tid"])) > 5
    for name in ("runq_ns", "blocked_ns"):
        difference = ours[name].astype(np.int64) - theirs[name].astype(np.int64)
        assert np.median(np.abs(difference)) < 20_000, name
        total = float(theirs[name].sum())
        assert abs(float(difference.sum())) < 0.02 * total, name


def _log2(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    log = np.floor(np.log2(np.maximum(values, 1).astype(np.float64))).astype(np.int64)
    return np.bincount(log, minlength=64)[:64]


def _distance(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """Kolmogorov-Smirnov: the largest difference between the cumulative shares."""
    shares = [np.cumsum(x) / x.sum() for x in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())


def test_distributions_agree_with_each_other_and_with_runqlat(both: Both) -> None:
    ours, theirs = (_log2(both.waits(r)["runq_ns"]) for r in (both.bcc, both.libbpf))
    assert both.runqlat.sum() > 5000
    # A microsecond or two between the programs moves short waits over a power of two.
    assert _distance(ours, theirs) < 0.08
    assert _distance(ours, both.runqlat) < 0.08
    assert _distance(theirs, both.runqlat) < 0.08
    slack = 0.01 * both.runqlat.sum() + sum(both.missed.values())
    assert abs(int(ours.sum() - both.runqlat.sum())) < slack
    assert abs(int(theirs.sum() - both.runqlat.sum())) < slack
