"""How large rings are: what was asked for, and never more than the machine can spare."""

from __future__ import annotations

import os

import pytest

from sltrace.capture import sizes
from sltrace.errors import UsageError

MIB = 1 << 20
RECORD = 192


@pytest.fixture(autouse=True)
def four_gibibytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "_memory", lambda: 4 << 30)


@pytest.mark.parametrize(
    ("cpus", "wanted", "records"),
    [
        (2, 0, 1 << 16),
        (8, 0, 1 << 16),
        (256, 0, 1 << 11),
        (2, 64 << 10, 256),
        (2, 1, 256),
        (2, 4 * MIB, 1 << 14),
        (2, 12 * MIB, 1 << 16),
        (2, 23 * MIB, 1 << 16),
        (2, 64 * MIB, 1 << 18),
    ],
)
def test_a_ring_has_the_records_that_fit_in_what_was_asked_for(
    cpus: int, wanted: int, records: int
) -> None:
    assert sizes.ring_records(cpus, RECORD, wanted) == records


@pytest.mark.parametrize(
    ("cpus", "wanted", "size"),
    [(2, 0, 8 * MIB), (256, 0, 256 << 10), (2, 10 * MIB, 8 * MIB), (2, 64 * MIB, 64 * MIB)],
)
def test_a_ring_of_the_kernels_is_a_power_of_two(cpus: int, wanted: int, size: int) -> None:
    assert sizes.ring_bytes(cpus, wanted) == size


@pytest.mark.parametrize(("cpus", "slots"), [(1, 256), (16, 256), (32, 128), (240, 32)])
def test_histogram_slots_take_a_small_part_of_the_memory(cpus: int, slots: int) -> None:
    assert sizes.histogram_slots(cpus) == slots


def test_rings_that_the_machine_cannot_spare_are_refused() -> None:
    message = "--buffer: 64 rings of 32 MiB are more than a quarter of the memory; give at most 16M"
    with pytest.raises(UsageError, match=message):
        sizes.ring_records(64, RECORD, 32 * MIB)
    with pytest.raises(UsageError, match=message):
        sizes.ring_bytes(64, 32 * MIB)
    assert sizes.ring_records(64, RECORD, 16 * MIB) == 1 << 16
    message = "8192 rings of 1024 KiB are more than a quarter of the memory; give at most 128K"
    with pytest.raises(UsageError, match=message):
        sizes.ring_bytes(8192, MIB)


def test_threads_that_end_meanwhile_are_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A glob of /proc fails where a process ends between its folder and its threads."""

    def ended(*_: object) -> None:
        raise FileNotFoundError("/proc/7/task")

    monkeypatch.setattr(os, "scandir", ended)
    monkeypatch.setattr(os, "listdir", ended)
    assert sizes.task_slots() >= 1 << 10
