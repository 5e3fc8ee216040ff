"""The load by which the probes are measured."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sltrace.capture import overhead

OPEN = Path("/proc/self/fd")


def test_it_ends_after_a_while_however_slow_its_rounds_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU that hundreds want all of them took minutes."""
    monkeypatch.setattr(overhead, "_ROUNDS", 10**12)
    monkeypatch.setattr(overhead, "_ROUNDS_S", 0.05)
    allowed, files = os.sched_getaffinity(0), len([*OPEN.iterdir()])
    overhead._ping_pong()
    assert os.sched_getaffinity(0) == allowed
    assert len([*OPEN.iterdir()]) == files
