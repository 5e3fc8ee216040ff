"""Each finding of Python at the threshold that docs/python.md gives, and just below it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sltrace.analysis.python.findings import findings
from sltrace.analysis.python.locks import Lock
from sltrace.analysis.python.tables import Collector, GilThread, Loop, Quota

WALL_NS = 10_000_000_000
MS = 1_000_000
HOG = GilThread(1, 11, "hog", 0, 0, 0, 0, 0, 600 * MS, "compute (app.py:1)")
WAITER = GilThread(1, 12, "web", 9, WALL_NS // 10, 0, 0, 0, 400 * MS, None)
LOOP = Loop(1, 1, "loop", True, 9, 0, 0, 0, 0, 0, 0, 0, None, None, 0, 0, None, 0, None)
LOCK = Lock(1, "take (app.py:2)", "", False, 3, 50, WALL_NS // 2, 0)


def named(
    *rows: GilThread | Loop | Lock | Collector | Quota,
) -> list[str]:
    kinds = (GilThread, Loop, Lock, Collector, Quota)
    by_kind: Any = ([row for row in rows if isinstance(row, kind)] for kind in kinds)
    return [str(f.name) for f in findings(lambda pid: WALL_NS, *by_kind)]


def test_a_hog_is_who_is_waited_for_most() -> None:
    assert named(HOG, WAITER) == ["gil_hog"]
    assert named(replace(HOG, held_ns=600 * MS - 1), WAITER) == []
    assert named(HOG, replace(WAITER, waited_ns=WALL_NS // 10 - 1)) == []
    # What it waits itself is not because of it.
    assert named(replace(HOG, waited_ns=WALL_NS // 10), replace(WAITER, waited_ns=1)) == []
    # Of most of the time nobody knows who held it.
    assert named(HOG, replace(WAITER, waited_ns=WALL_NS, held_ns=0)) == ["gil_crowd"]


def test_a_crowd_is_where_nobody_is_the_hog() -> None:
    nobody = replace(HOG, held_ns=0)
    assert named(nobody, replace(WAITER, held_ns=0, waited_ns=WALL_NS)) == ["gil_crowd"]
    assert named(nobody, replace(WAITER, held_ns=0, waited_ns=WALL_NS - 1)) == []
    hog = replace(HOG, held_ns=WALL_NS * 6 // 10)
    assert named(hog, replace(WAITER, waited_ns=WALL_NS)) == ["gil_hog"]


@pytest.mark.parametrize(
    ("all_ns", "longest_ns", "found"),
    [(100 * MS, 20 * MS, ["loop_blocked"]), (99 * MS, 20 * MS, []), (100 * MS, 19 * MS, [])],
)
def test_a_loop_is_blocked(all_ns: int, longest_ns: int, found: list[str]) -> None:
    assert named(replace(LOOP, blocked_ns=all_ns, blocked_longest_ns=longest_ns)) == found


def test_a_loop_is_busy_unless_it_is_blocked() -> None:
    busy = replace(LOOP, slow_ns=WALL_NS // 20)
    assert named(busy) == ["loop_busy"]
    assert named(replace(busy, slow_ns=WALL_NS // 20 - 1)) == []
    blocked = replace(busy, blocked_ns=WALL_NS, blocked_longest_ns=WALL_NS)
    assert named(blocked) == ["loop_blocked"]


def test_a_convoy_is_of_three_threads_and_fifty_waits_and_half_a_thread() -> None:
    assert named(LOCK) == ["lock_convoy"]
    fewer: tuple[dict[str, Any], ...]
    fewer = ({"threads": 2}, {"waits": 49}, {"waited_ns": WALL_NS // 2 - 1}, {"idle": True})
    for change in fewer:
        assert named(replace(LOCK, **change)) == []


def test_collections_and_quotas_count_from_a_twentieth_on() -> None:
    assert named(Collector(1, 1, 0, WALL_NS // 20, 0)) == ["python_gc"]
    assert named(Collector(1, 1, WALL_NS, WALL_NS // 20 - 1, 0)) == []
    quota = Quota(1, "/web", 2, WALL_NS // 20, None, None, 0)
    assert named(quota) == ["quota"]
    assert named(replace(quota, waited_ns=WALL_NS // 20 - 1)) == []
