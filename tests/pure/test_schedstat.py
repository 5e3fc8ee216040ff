"""What the recording tests allow between a trace and the kernel's own statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sltrace.trace.reader import Trace
from tests.support.loads import ThreadReport
from tests.support.schedstat import Compared, compare
from tests.support.traces import SECOND, make_trace

_MS = 1_000_000


def _compared(tmp_path: Path, run_delay_ns: int, steal_ns: int, *waits: dict[str, Any]) -> Compared:
    """Thread 7, which waits for thread 8 and no other."""
    rows = [{"tid": 7, "culprit_tid": 8, "culprit_others": 0, **wait} for wait in waits]
    meta = {"cpu_times": {"0": {"steal": steal_ns}, "1": {"steal": 0}}}
    thread = ThreadReport(
        role="victim", pid=7, tid=7, ns_tid=7, policy=0, start_ns=0, end_ns=9 * SECOND,
        cpu_ns=SECOND, run_delay_ns=run_delay_ns, timeslices=len(rows), nvcsw=len(rows),
        nivcsw=0, run_delay_before_ns=0,
    )  # fmt: skip
    (found,) = compare(Trace.open(make_trace(tmp_path, rows, meta=meta)), [thread])
    return found


@pytest.mark.parametrize(
    ("wait_ns", "steal_ns", "explained"),
    [
        (290_000, 0, True),
        (4 * _MS, 0, False),
        (4 * _MS, 10 * _MS, True),
        (11 * _MS, 10 * _MS, False),
    ],
)
def test_a_wakeup_that_preempts_may_take_long_where_cpus_were_stolen(
    tmp_path: Path, wait_ns: int, steal_ns: int, explained: bool
) -> None:
    """The kernel has no delay for it. And never for all threads together."""
    found = _compared(tmp_path, 0, steal_ns, {"wait_ns": wait_ns})
    assert found.explained is explained
    assert found.explained_without_interruption is (wait_ns < 300_000)


@pytest.mark.parametrize("more", [{"culprit_others": 1}, {"kind": "runq_preempt"}])
def test_one_wait_that_is_no_such_wakeup_may_not(tmp_path: Path, more: dict[str, Any]) -> None:
    assert not _compared(tmp_path, 0, 10 * _MS, {"wait_ns": 4 * _MS, **more}).explained


def test_it_is_one_wait_of_them_all(tmp_path: Path) -> None:
    waits = [{"wait_ns": 4 * _MS, "end_ns": n * SECOND} for n in (1, 2)]
    assert _compared(tmp_path, 4 * _MS, 10 * _MS, *waits).explained
    assert not _compared(tmp_path, 0, 10 * _MS, *waits).explained


def test_who_preempts_is_charged_to_whom_it_preempts_from_its_wakeup_on(tmp_path: Path) -> None:
    waits = (
        {"kind": "runq_preempt", "wait_ns": 2 * _MS, "end_ns": SECOND},
        {"tid": 8, "culprit_tid": 7, "wait_ns": 4 * _MS, "end_ns": SECOND - 2 * _MS},
    )
    assert _compared(tmp_path, 6 * _MS, 10 * _MS, *waits).explained
    assert not _compared(tmp_path, 6 * _MS, 0, *waits).explained
    assert not _compared(tmp_path, 8 * _MS, 10 * _MS, *waits).explained
