"""What a recording counts, and from when to when."""

from __future__ import annotations

from unittest.mock import Mock

import numpy as np
import pytest
from numpy.typing import NDArray

from sltrace.capture import cputimes
from sltrace.capture.accounts import Accounts
from sltrace.capture.overhead import Calibration
from sltrace.capture.probes import counter_names
from tests.support.machine import Machine, layouts

_NAMES = counter_names(layouts())


def _accounts(values: NDArray[np.uint64]) -> Accounts:
    """Of a recording whose counters are these, on two CPUs, now and later."""
    probes = Mock(counter_names=_NAMES, slots=Machine().slots)
    probes.counters.side_effect = values.copy
    return Accounts(probes, Mock(paths_for=lambda ids: (ids, [])), Calibration())


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


def test_what_cpus_did_is_of_the_recording_only(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(100, 1000, 100))
    monkeypatch.setattr(cputimes, "read_cpu_times", lambda: {"0": {"idle": next(times)}})
    accounts = _accounts(np.zeros((2, len(_NAMES)), np.uint64))
    assert accounts.cpu_times() == {"0": {"idle": 100}}
    accounts.end()
    assert [accounts.cpu_times() for _ in range(2)] == [{"0": {"idle": 200}}] * 2
