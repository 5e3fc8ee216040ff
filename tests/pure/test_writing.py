"""When the two clocks of a trace are read."""

from __future__ import annotations

import pytest

from sltrace.capture.writing import moment

SECOND = 10**9


@pytest.mark.parametrize("lost", range(9))
def test_who_loses_the_cpu_does_not_set_the_clock(
    monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    """A second passes before any one of the readings; 100 ns before each other."""
    now = read = 0

    def monotonic_ns() -> int:
        nonlocal now, read
        now += SECOND if read == lost else 100
        read += 1
        return now

    monkeypatch.setattr("time.monotonic_ns", monotonic_ns)
    monkeypatch.setattr("time.time_ns", lambda: monotonic_ns() + 50 * SECOND)
    found = moment()
    assert found["end_unix_ns"] - found["end_ns"] - 50 * SECOND == 100
