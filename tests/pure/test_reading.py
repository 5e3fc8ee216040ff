"""What is taken from the rings is handed on whole, and in order."""

from __future__ import annotations

import time
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from sltrace.capture.reading import TICK_S, Reading
from sltrace.names.processes import EXEC_RECORDED

_EVENT = np.dtype([("pid", "<u4"), ("kind", "<u4")])


def test_tasks_that_were_there_when_the_probes_were_attached_come_first() -> None:
    before = np.array([(7, EXEC_RECORDED)], _EVENT)
    then = np.array([(8, EXEC_RECORDED), (9, 1)], _EVENT)
    probes, feed, told = Mock(wait_rings=[]), Mock(backlog=0, task_backlog=0), Mock()
    probes.task_ring.drain.side_effect = [then, None]
    reading = Reading(probes, (), feed, [told])
    reading.tell_tasks(before)
    reading.run(lambda: True, Mock(failure=None))
    assert [call.args[0]["pid"].tolist() for call in feed.put_tasks.call_args_list] == [[7], [8, 9]]
    assert [call.args for call in told.call_args_list] == [([7],), ([8],)]


@pytest.mark.parametrize(
    ("task_backlog", "fill", "taken"),
    [
        (0, 0.0, ["tasks"]),
        (0, 0.1, ["waits", "tasks"]),
        (0, 0.5, ["waits", "tasks"]),
        (8 << 20, 0.0, []),
        (8 << 20, 0.1, []),
        (8 << 20, 0.5, ["waits"]),
    ],
)
def test_tasks_that_wait_to_be_named_are_bounded(
    task_backlog: int, fill: float, taken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever renames itself all the time would fill the recorder's memory.

    Waits stay where their names are, until they might be lost for it.
    """
    monkeypatch.setattr("time.sleep", lambda _: None)
    order: list[str] = []

    def drain(name: str) -> Any:
        return lambda: order.append(name)

    wait_ring = Mock(drain=drain("waits"), fill=lambda: fill)
    probes = Mock(wait_rings=[wait_ring], task_ring=Mock(drain=drain("tasks")))
    feed = Mock(backlog=0, task_backlog=0)
    ticks = iter((False, True))

    def done() -> bool:
        # Before the first tick all is taken in any case.
        assert order[:2] == ["waits", "tasks"]
        feed.task_backlog = task_backlog
        return next(ticks)

    writing = Mock(failure=None, next_segment_s=time.monotonic() + 1000 * TICK_S)
    Reading(probes, (), feed, ()).run(done, writing)
    assert order[2:] == taken


def test_in_the_end_all_tasks_are_handed_on() -> None:
    probes = Mock(wait_rings=[])
    feed = Mock(backlog=0, task_backlog=1 << 30)
    Reading(probes, (), feed, ()).hand_on([])
    feed.put_tasks.assert_called_once_with(probes.task_ring.drain.return_value)
