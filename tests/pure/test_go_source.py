"""The source of Go processes, with rings that are none of the kernel's."""

from __future__ import annotations

import os
from unittest import mock

import numpy as np
import pytest

from sltrace.capture.golang import source as module
from sltrace.capture.golang.budget import Budget
from sltrace.capture.golang.finder import Finder
from sltrace.capture.golang.source import GoSource

_PIECE = np.zeros(1 << 20, [("byte", "u1")])


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> GoSource:
    """One whose ring always has a megabyte more."""
    finder = mock.Mock(spec=Finder)
    finder.left.return_value = []
    made = GoSource(finder, 1, (), share=None, expected=False)
    ring = mock.Mock(**{"drain.return_value": _PIECE})
    monkeypatch.setattr(made, "_told", lambda: [(ring, made._drained)])
    return made


def test_what_cannot_be_written_stays_in_the_rings(
    source: GoSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the disk stalls, memory is not what fills; what is left at the end is taken."""
    monkeypatch.setattr(module, "_MAX_BACKLOG", 4 << 20)
    source._thread.started = True
    for _ in range(20):
        source.drain()
    backlog = source._drained.backlog
    assert backlog <= 5 << 20
    source.close()
    assert source._drained.backlog == backlog + _PIECE.nbytes


@pytest.mark.parametrize("started", [False, True])
def test_rings_are_emptied_before_they_are_gone(
    source: GoSource, monkeypatch: pytest.MonkeyPatch, started: bool
) -> None:
    """Not where the recording failed to start: they were never mapped, and no thread is begun."""
    left: list[int] = []
    monkeypatch.setattr(source._probing, "close", lambda: left.append(source._drained.backlog))
    source._thread.started = started
    source.close()
    assert left == [started * _PIECE.nbytes]
    assert source._drained.backlog == left[0]


def test_a_thread_that_died_ends_the_source(
    source: GoSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was to sample would be missing without a word."""

    def look() -> None:
        raise KeyError("gone")

    monkeypatch.setattr(source._thread, "_look", look)
    source._thread.start([])
    source._thread._thread.join()
    with pytest.raises(KeyError, match="gone"):
        source.drain()


def test_a_process_that_cannot_be_sampled_is_refused(
    source: GoSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not end the recording of all others."""

    def overlapping(process: object) -> None:
        raise ValueError("field overlaps")

    monkeypatch.setattr(module, "Sampler", overlapping)
    monkeypatch.setattr(source._probing, "take", mock.Mock(side_effect=AssertionError))
    process = mock.Mock(number=1, **{"process.pid": 7})
    found = mock.Mock(processes=[process], refused=[])
    assert source._take(found) == []
    (refused,) = source._refused
    assert (refused[0], refused[1]) == (process.identity, "its structures overlap: field overlaps")
    process.let_go.assert_called_once_with()


def test_who_is_forgotten_while_the_budget_waits_is_no_end_of_it() -> None:
    """Probes are taken out of others meanwhile, which takes its time."""
    budget = Budget(0.02, mock.Mock(**{"cost_of.return_value": 1 << 40}))
    budget.keep(1, os.getpid(), 0, on=True)

    def change(off: list[int], on: list[int]) -> tuple[int, list[int]]:
        assert off == [1]
        budget.forget(1)
        return 5, [1]

    budget._switch.change = change  # type: ignore[method-assign, assignment]
    budget._turn()
    assert budget._kept == {}
