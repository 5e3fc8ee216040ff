"""What is taken from the rings is handed on whole, and in order."""

from __future__ import annotations

from unittest.mock import Mock

import numpy as np

from sltrace.capture.reading import Reading
from sltrace.names.processes import EXEC_RECORDED

_EVENT = np.dtype([("pid", "<u4"), ("kind", "<u4")])


def test_tasks_that_were_there_when_the_probes_were_attached_come_first() -> None:
    before = np.array([(7, EXEC_RECORDED)], _EVENT)
    then = np.array([(8, EXEC_RECORDED), (9, 1)], _EVENT)
    probes, feed, told = Mock(wait_rings=[]), Mock(backlog=0), Mock()
    probes.task_ring.drain.side_effect = [then, None]
    reading = Reading(probes, (), feed, [told])
    reading.tell_tasks(before)
    reading.run(lambda: True, Mock(failure=None))
    assert [call.args[0]["pid"].tolist() for call in feed.put_tasks.call_args_list] == [[7], [8, 9]]
    assert [call.args for call in told.call_args_list] == [([7],), ([8],)]
