"""Intervals with losses of a cube: fewer where they are many, and none of them left out."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sltrace.analysis.cubelosses import fewer
from sltrace.analysis.losses import LossInterval

SECOND = 1_000_000_000
_LOSSES = st.lists(
    st.builds(
        lambda at, length, cpu, name, value: LossInterval(at, at + length, cpu, name, value),
        st.integers(0, 10_000 * SECOND),
        st.integers(1, 2 * SECOND),
        st.integers(0, 3),
        st.sampled_from(["ring_full", "state_lost"]),
        st.integers(1, 1000),
    ),
    max_size=200,
)


@given(_LOSSES, st.integers(8, 300))
@settings(max_examples=200)
def test_every_loss_stays_on_its_cpu_and_within_its_time(
    losses: list[LossInterval], limit: int
) -> None:
    found, length = fewer(losses, limit)
    assert len(found) <= limit
    if len(losses) <= limit:
        assert (found, length) == (losses, 0)
    for cpu in range(4):
        assert sum(i.value for i in found if i.cpu == cpu) == sum(
            i.value for i in losses if i.cpu == cpu
        )
    for loss in losses:
        around = [i for i in found if (i.cpu, i.name) == (loss.cpu, loss.name)]
        assert any(i.start_ns <= loss.start_ns and loss.end_ns <= i.end_ns for i in around)


def test_ten_minutes_of_many_cpus_are_told_to_their_end() -> None:
    losses = [
        LossInterval(at * SECOND, (at + 1) * SECOND, cpu, "ring_full", 1)
        for at in range(600)
        for cpu in range(128)
    ]
    found, length = fewer(losses)
    assert (len(found), length) == (128 * 150, 4 * SECOND)
    assert max(i.end_ns for i in found) == 600 * SECOND
