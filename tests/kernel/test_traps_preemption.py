"""Lost CPUs: in the middle of a system call, and while the scheduler moves a queued task."""

from __future__ import annotations

import pytest

from sltrace.model import Flag
from tests.kernel.conftest import Traps
from tests.support.schedstat import compare, rows_of

pytestmark = [pytest.mark.bpf, pytest.mark.alone]


def test_preemption_inside_a_system_call_is_a_wait(traps: Traps) -> None:
    """prev_state is not 0 there in the classic tracepoint, and tools that test for 0 see none."""
    outcome = traps.outcomes["longcall"]
    reader, waker = outcome.one("reader"), outcome.one("waker")
    (c,) = compare(traps.trace, [reader])
    rows = rows_of(traps.trace, reader)
    preempted = [r for r in rows if r["kind"] == "runq_preempt"]
    assert reader.nivcsw > 500
    assert 0 <= reader.nivcsw - len(preempted) <= c.missed, str(c)
    assert [r for r in rows if r["kind"] == "blocked"] == []
    in_kernel = [r for r in preempted if not r["flags"] & Flag.YIELDED]
    assert len(in_kernel) > 0.5 * len(preempted)
    if not outcome.values["rt_error"]:
        blamed = sum(r["culprit_tid"] == waker.tid for r in preempted)
        # What else runs on this machine gets the CPU as well.
        ours = [t.tid for t in outcome.threads]
        others = sum(bool(r["culprit_tid"]) and r["culprit_tid"] not in ours for r in preempted)
        assert blamed > 0.95 * (len(preempted) - others)
        assert blamed > 0.5 * len(preempted)


def test_a_queued_thread_that_is_moved_keeps_waiting(traps: Traps) -> None:
    outcome = traps.outcomes["migrate"]
    moved = outcome.one("moved")
    rows = rows_of(traps.trace, moved)
    queued = [r for r in rows if r["flags"] & Flag.MIGRATED_QUEUED]
    assert outcome.values["moves"] > 200
    assert len(queued) > 20
    assert all(r["kind"] in ("runq_wakeup", "runq_preempt") for r in queued)
    # A thread that is moved there and back before it runs has not migrated.
    switched = sum(r["migrated"] for r in rows if r["kind"] != "blocked")
    assert switched > 0.2 * outcome.values["moves"]
    assert any(r["migrated"] for r in queued)


def test_the_culprit_ran_within_the_wait(traps: Traps) -> None:
    bad = traps.trace.sql(
        """SELECT * FROM waits WHERE kind IN ('runq_wakeup', 'runq_preempt')
           AND (culprit_ns > wait_ns + 1000 OR culprit_ns < 0 OR culprit_tid = tid) LIMIT 5"""
    ).to_pylist()
    assert bad == []
