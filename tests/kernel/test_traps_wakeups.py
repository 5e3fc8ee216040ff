"""Wakeups that other tools get wrong: across CPUs, from timers, of running tasks, by signals."""

from __future__ import annotations

from typing import Any

import pytest

from sltrace.model import Flag
from tests.kernel.conftest import Traps
from tests.support.loads import Outcome, ThreadReport
from tests.support.schedstat import compare, rows_of

pytestmark = [pytest.mark.bpf, pytest.mark.alone]


def _woken(traps: Traps, thread: ThreadReport) -> list[dict[str, Any]]:
    rows = [r for r in rows_of(traps.trace, thread) if r["kind"] == "runq_wakeup"]
    assert len(rows) > 100
    return rows


def _share(rows: list[dict[str, Any]], **wanted: object) -> float:
    return sum(all(r[k] == v for k, v in wanted.items()) for r in rows) / len(rows)


@pytest.mark.parametrize("name", ["across", "futex"])
def test_the_waker_is_the_partner(traps: Traps, name: str) -> None:
    """libbpf-tools takes who runs on the woken thread's CPU: 4 % right when a wake crosses CPUs."""
    outcome = traps.outcomes[name]
    ping, pong = outcome.one("ping 0"), outcome.one("pong 0")
    for sleeper, partner in ((ping, pong), (pong, ping)):
        rows = _woken(traps, sleeper)
        assert len(rows) > 0.9 * sleeper.nvcsw > 1000
        assert _share(rows, waker_tid=partner.tid, waker_context="task") >= 0.95
        assert _share(rows, waker_pid=partner.pid, waker_comm="pingpong") >= 0.95


def test_wake_latency_includes_queue_latency(traps: Traps) -> None:
    bad = traps.trace.sql("SELECT * FROM waits WHERE wake_ns < wait_ns AND kind = 'runq_wakeup'")
    assert bad.num_rows == 0
    rows = _woken(traps, traps.outcomes["across"].one("pong 0"))
    known = [r for r in rows if r["wake_ns"] is not None]
    assert len(known) > 0.99 * len(rows)
    # The wake crosses CPUs: the interrupt's way there is part of the wake latency.
    assert sum(r["wake_ns"] for r in known) > 1.1 * sum(r["wait_ns"] for r in known)


def test_a_timer_is_no_task(traps: Traps) -> None:
    rows = _woken(traps, traps.outcomes["timer"].one("victim"))
    assert sum(r["waker_context"] in ("hardirq", "softirq") for r in rows) >= 0.99 * len(rows)


def test_a_wake_of_a_running_thread_is_no_wait(traps: Traps) -> None:
    outcome = traps.outcomes["wakerun"]
    sleeper = outcome.one("sleeper")
    wakes = outcome.values["woken"] + outcome.values["timeouts"]
    assert wakes > sleeper.nvcsw > 1000
    _blocked_as_often_as_it_slept(traps, sleeper)
    rows = _woken(traps, sleeper)
    # A wait from a wake that met it running would overlap its time on the CPU.
    assert sum(r["wait_ns"] for r in rows) < sleeper.end_ns - sleeper.start_ns - sleeper.cpu_ns
    blocked = [r for r in rows_of(traps.trace, sleeper) if r["kind"] == "blocked"]
    assert all(r["wait_ns"] < 60_000_000 for r in blocked)


@pytest.mark.parametrize("name", ["interrupted", "signals"])
def test_a_sleep_cut_short_by_a_signal(traps: Traps, name: str) -> None:
    outcome = traps.outcomes[name]
    sleeper, sender = outcome.one("sleeper"), outcome.one("sender")
    assert outcome.values["cut"] >= 0.9 * outcome.values["sleeps"]
    (c,) = compare(traps.trace, [sleeper])
    assert c.switches_explained, str(c)
    # With a signal pending the kernel counts a voluntary switch, and leaves the task runnable
    # (try_to_block_task): no block, and no wakeup follows.
    yielded = [r for r in rows_of(traps.trace, sleeper) if r["flags"] & Flag.YIELDED]
    assert 0 <= sleeper.nvcsw - c.blocked <= len(yielded) + c.missed, str(c)
    if name == "interrupted":
        _blocked_as_often_as_it_slept(traps, sleeper)
        rows = _woken(traps, sleeper)
        assert _share(rows, waker_tid=sender.tid, waker_context="task") >= 0.95


def _blocked_as_often_as_it_slept(traps: Traps, thread: ThreadReport) -> None:
    (c,) = compare(traps.trace, [thread])
    assert 0 <= thread.nvcsw - c.blocked <= c.missed, str(c)
    assert c.switches_explained, str(c)


def test_state_and_previous_cpu_are_known(traps: Traps) -> None:
    outcome: Outcome = traps.outcomes["across"]
    rows = _woken(traps, outcome.one("pong 0"))
    assert _share(rows, state="S", migrated=False) >= 0.99
