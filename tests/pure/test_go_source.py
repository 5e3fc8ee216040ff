"""The source of Go processes, with rings that are none of the kernel's."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

from sltrace.capture.golang import source as module
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
