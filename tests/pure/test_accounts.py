"""What a recording counts, and from when to when."""

from __future__ import annotations

import os
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from numpy.typing import NDArray

from sltrace.capture import accounts as module
from sltrace.capture import cputimes, libbpf, overhead
from sltrace.capture.accounts import Accounts
from sltrace.capture.overhead import Calibration
from sltrace.capture.probes import counter_names
from tests.support.machine import Machine, layouts

_NAMES = counter_names(layouts())
_UNKNOWN = Calibration()


def _paths_for(ids: NDArray[np.int64]) -> tuple[NDArray[np.int32], list[str]]:
    return np.zeros(len(ids), np.int32), ["/"]


def _accounts(values: NDArray[np.uint64], cost: Calibration = _UNKNOWN) -> Accounts:
    """Of a recording whose counters are these, on two CPUs, now and later."""
    probes = Mock(counter_names=_NAMES, slots=Machine().slots)
    probes.counters.side_effect = values.copy
    return Accounts(probes, Mock(paths_for=lambda ids: (ids, [])), cost)


def test_names_and_births_that_were_lost_before_it_begins_are_counted() -> None:
    values = np.ones((2, len(_NAMES)), np.uint64)
    accounts = _accounts(values)
    values[1, _NAMES.index("switches")] += np.uint64(5)
    counted = {
        (row["cpu"], row["name"]): row["value"]
        for row in accounts.close_interval()["counters"].to_pylist()
    }
    lost = ("task_ring_full", "cgroup_ring_full", "not_followed")
    assert counted == {(cpu, name): 1 for cpu in (0, 1) for name in lost} | {(1, "switches"): 5}
    assert accounts.close_interval()["counters"].num_rows == 0


def test_histograms_begin_when_the_recording_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read while nothing is added; and again, if it began before the probes knew when."""
    times = iter((1000, 2000, 500_000, 600_000, 699_999))
    machine, told = Machine(), []

    def count_since(ns: int) -> None:
        told.append(ns)
        # As if one ended just before.
        machine.slots.counts["kinds"]["count"][0, 0, 0] += 1

    probes = Mock(counter_names=_NAMES, slots=machine.slots, count_since=count_since)
    probes.counters.return_value = np.zeros((2, len(_NAMES)), np.uint64)
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic_ns", lambda: next(times))
        accounts = Accounts(probes, Mock(paths_for=_paths_for), _UNKNOWN)
    never = (1 << 64) - 1
    assert told == [never, 102_000, never, accounts.start_ns] == [never, 102_000, never, 700_000]
    assert accounts.close_interval()["histograms"]["count"].to_pylist() == [1]


def test_what_cpus_did_is_of_the_recording_only(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(100, 1000, 100))
    monkeypatch.setattr(cputimes, "read_cpu_times", lambda: {"0": {"idle": next(times)}})
    accounts = _accounts(np.zeros((2, len(_NAMES)), np.uint64))
    assert accounts.cpu_times() == {"0": {"idle": 100}}
    accounts.end()
    assert [accounts.cpu_times() for _ in range(2)] == [{"0": {"idle": 200}}] * 2


def test_what_is_kept_costs_more_than_what_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known from the first seconds in which enough was kept; before, only the least."""
    spent = iter((1000, 1_500_000, 10_001_000))
    monkeypatch.setattr(overhead, "_run_time", lambda _: next(spent))
    closed: list[int] = []
    monkeypatch.setattr(os, "close", closed.append)
    monkeypatch.setattr(libbpf, "library", lambda: Mock(bpf_enable_stats=lambda _: 77))
    values = np.zeros((2, len(_NAMES)), np.uint64)
    accounts = _accounts(values, Calibration(100, at_least=True))
    switches, records, below = (_NAMES.index(name) for name in ("switches", "records", "below_min"))
    values[0, switches], values[0, records] = 10_000, 10
    accounts.close_interval()
    told = accounts.overhead()
    assert (told["probe_ns"], told["probe_ns_at_least"]) == (1_000_000, True)
    assert not closed
    values[1, switches], values[1, records], values[1, below] = 50_000, 6000, 3990
    accounts.close_interval()
    told = accounts.overhead()
    assert closed == [77]
    # 50,000 were left out at 100 ns each: 5 of the 10 ms are of the 10,000 others.
    assert (told["probe_ns_per_kept"], told["probe_ns_at_least"]) == (500, False)
    assert told["probe_ns"] == 10_000_000
    accounts.close_interval()
    assert accounts.overhead()["probe_ns"] == 10_000_000


def test_how_it_goes_is_of_the_last_interval_and_losses_are_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two intervals, of one and of two seconds, and then half a second more."""
    second, clock = 10**9, Mock()
    clock.monotonic_ns.return_value = clock.process_time_ns.return_value = 0
    monkeypatch.setattr(module, "time", clock)
    values = np.zeros((2, len(_NAMES)), np.uint64)
    accounts = _accounts(values, Calibration(1000))

    def at(seconds: float, cpu_seconds: float) -> None:
        clock.monotonic_ns.return_value = accounts.start_ns + int(seconds * second)
        clock.process_time_ns.return_value = int(cpu_seconds * second)

    def counted(**counts: int) -> None:
        for name, count in counts.items():
            values[:, _NAMES.index(name)] += np.uint64(count)

    counted(switches=50_000, ring_full=1)
    at(1, 0.75)
    accounts.close_interval()
    counted(switches=200, ring_full=2, state_lost=40)
    at(3, 1.25)
    accounts.close_interval()
    at(3.5, 1.25)
    status = accounts.status(waits=7, missed=8)
    assert (status.seconds, status.switches_per_s) == (3.5, 200)
    # A switch costs 1 us.
    assert (status.recorder_share, status.probe_share) == (0.25, 0.0002)
    assert (status.waits, status.missed, status.lost) == (7, 8, 2 * (1 + 2 + 40))


def test_what_a_cpu_did_is_in_the_order_of_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As proc(5) has it; guest time is user time as well."""
    stat = tmp_path / "stat"
    stat.write_text("cpu  11 22 33 44 55 66 77 88 9 10\ncpu12 1 2 3 4 5 6 7 8 9 10\nintr 1 2\n")
    monkeypatch.setattr(cputimes, "Path", lambda _: stat)
    tick_ns = 10**9 // os.sysconf("SC_CLK_TCK")
    ticks = {"user": 1, "nice": 2, "system": 3, "idle": 4}
    ticks |= {"iowait": 5, "irq": 6, "softirq": 7, "steal": 8}
    assert cputimes.read_cpu_times() == {"12": {n: t * tick_ns for n, t in ticks.items()}}
