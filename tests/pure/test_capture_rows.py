"""Records of the scheduler's probes as rows, against the same done one record at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sltrace.capture import parts
from sltrace.capture.asynciotasks import AsyncioTasks
from sltrace.capture.columns import Dictionaries, Nulls, named
from sltrace.capture.rows import RowMaker
from sltrace.capture.tags import Doubted
from sltrace.model import STATES, Flag, Kind, WakerContext

RECORD = np.dtype(
    [
        *((name, "u8") for name in ("end_ns", "blocked_ns", "runq_ns", "throttled_ns", "wake_ns")),
        *((name, "u8") for name in ("cgroup", "culprit_cgroup", "culprit_ns")),
        *((name, "u4") for name in ("tid", "pid", "waker_tid", "waker_pid")),
        *((name, "u4") for name in ("culprit_tid", "culprit_pid")),
        *(("cpu", "u2"), ("prev_cpu", "u2"), ("prio", "i2"), ("nice", "i1"), ("policy", "u1")),
        *(("state", "u2"), ("kind", "u1"), ("waker_context", "u1"), ("culprit_others", "u1")),
        *(("culprit_known", "u1"), ("flags", "u1"), ("reserved", "u1")),
    ]
)
"""`struct wait_record` of a recording without stacks."""
NODES = np.array([0, 0, 1, 1], np.uint16)
HOLE, UNSTAMPED = 16, 17
LETTERS = [value for value in STATES if value <= 0x7F]


class Numbered:
    """Names that tell what they were asked for."""

    def comms_for(
        self, tids: NDArray[np.int32], times_ns: NDArray[np.int64]
    ) -> tuple[NDArray[np.int32], list[str]]:
        names = [f"{tid}@{ns}" for tid, ns in zip(tids.tolist(), times_ns.tolist(), strict=True)]
        return np.arange(len(names), dtype=np.int32), names

    def paths_for(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int32], list[str]]:
        return np.arange(len(ids), dtype=np.int32), [f"/{number}" for number in ids.tolist()]


class Above:
    """The quota is that of the cgroup above, whose number is ten times as large."""

    def holding(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        return ids * 10


@st.composite
def records(draw: st.DrawFn) -> dict[str, int]:
    """One record as the probe may hand it over."""
    small = st.integers(0, 5)
    kind = draw(st.sampled_from([Kind.RUNQ_WAKEUP, Kind.RUNQ_PREEMPT, HOLE, UNSTAMPED]))
    throttled = draw(st.sampled_from([0, 0, 3, 40]))
    return {
        "end_ns": draw(st.integers(1_000, 2_000)),
        "blocked_ns": draw(st.sampled_from([0, 7, 50])),
        "runq_ns": throttled + draw(st.sampled_from([0, 2, 60])),
        "throttled_ns": throttled,
        "wake_ns": draw(st.sampled_from([0, 70])),
        "kind": kind,
        "cpu": draw(st.integers(0, 3)),
        "prev_cpu": draw(st.integers(0, 3)),
        "prio": draw(st.integers(-1, 139)),
        "nice": draw(st.integers(-20, 19)),
        "policy": draw(st.sampled_from([0, 1, 2])),
        "state": draw(st.sampled_from(LETTERS)),
        "waker_context": draw(st.integers(0, 3)),
        "culprit_known": draw(st.integers(0, 1)),
        "flags": draw(st.integers(0, 127)),
        **{n: draw(small) for n in ("culprit_tid", "culprit_pid", "culprit_others", "culprit_ns")},
        **{n: 1 + draw(small) for n in ("cgroup", "culprit_cgroup", "tid", "pid")},
        **{n: 1 + draw(small) for n in ("waker_tid", "waker_pid")},
    }


def rows_of(record: dict[str, int], least_ns: int) -> list[dict[str, Any]]:
    """What a record says, in the order of its parts; see docs/measured.md."""
    if record["kind"] >= HOLE:
        return []
    runq, throttled, blocked = (record[f"{n}_ns"] for n in ("runq", "throttled", "blocked"))
    queued = runq - throttled
    label = Kind(record["kind"]).label
    found = []
    if queued >= least_ns and (queued or not throttled):
        found.append((label, queued, record["end_ns"]))
    if throttled and throttled >= least_ns:
        found.append(("throttled", throttled, record["end_ns"] - queued))
    if blocked and blocked >= least_ns:
        found.append(("blocked", blocked, record["end_ns"] - runq))
    return [_row(record, kind, wait, end) for kind, wait, end in found]


def _row(record: dict[str, int], kind: str, wait: int, end: int) -> dict[str, Any]:
    in_queue = kind in ("runq_wakeup", "runq_preempt")
    by_task = in_queue and bool(record["culprit_known"])
    by_quota = kind == "throttled"
    woken = record["kind"] == Kind.RUNQ_WAKEUP and bool(record["waker_context"])
    culprit_cgroup = record["cgroup"] * 10 if by_quota else record["culprit_cgroup"]
    has_group = by_quota or (by_task and bool(record["culprit_tid"]))
    flags = record["flags"]
    if not in_queue:
        flags &= ~(Flag.CULPRIT_PARTIAL | Flag.MIGRATED_QUEUED)
    return {
        "end_ns": end,
        "wait_ns": wait,
        "kind": kind,
        **{name: record[name] for name in ("pid", "tid", "cpu", "prev_cpu", "prio", "nice")},
        "comm": f"{record['tid']}@{end}",
        "node": int(NODES[record["cpu"]]),
        "migrated": record["cpu"] != record["prev_cpu"],
        "wake_ns": (record["wake_ns"] or None) if in_queue else None,
        "cgroup_id": record["cgroup"],
        "cgroup": f"/{record['cgroup']}",
        "policy": ["OTHER", "FIFO", "RR"][record["policy"]],
        "state": STATES[record["state"]],
        "waker_pid": record["waker_pid"] if woken else None,
        "waker_tid": record["waker_tid"] if woken else None,
        "waker_comm": f"{record['waker_tid']}@{end}" if woken else None,
        "waker_context": WakerContext(record["waker_context"]).label if woken else None,
        "culprit_pid": record["culprit_pid"] if by_task else None,
        "culprit_tid": record["culprit_tid"] if by_task else None,
        "culprit_comm": f"{record['culprit_tid']}@{end}" if by_task else None,
        "culprit_cgroup_id": culprit_cgroup if has_group else None,
        "culprit_cgroup": f"/{culprit_cgroup}" if has_group else None,
        "culprit_ns": wait if by_quota else record["culprit_ns"] if by_task else None,
        "culprit_others": record["culprit_others"] if by_task else None,
        "flags": int(flags),
    }


def array_of(some: list[dict[str, int]]) -> NDArray[Any]:
    array = np.zeros(len(some), RECORD)
    for at, record in enumerate(some):
        for name, value in record.items():
            array[at][name] = value
    return array


@pytest.fixture(scope="module", autouse=True)
def small_pieces() -> Any:
    """So that a few records are several pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_PIECE", 3)
        yield


def row_maker(*, min_latency_ns: int) -> RowMaker:
    return RowMaker(
        tasks=Numbered(),
        groups=Numbered(),
        quotas=Above(),
        node_of_cpu=NODES,
        min_latency_ns=min_latency_ns,
        asyncio_tasks=AsyncioTasks(),
        doubted=Doubted(),
    )


@given(st.lists(st.lists(records(), max_size=8), min_size=1, max_size=4), st.sampled_from([0, 10]))
def test_rows_are_those_of_each_record(drained: list[list[dict[str, int]]], least: int) -> None:
    waits, missed = row_maker(min_latency_ns=least).tables([array_of(some) for some in drained])
    together = [record for some in drained for record in some]
    expected = [row for record in together for row in rows_of(record, least)]
    assert by_content(waits.to_pylist()) == by_content(expected)
    assert [row["cause"] for row in missed.to_pylist()] == [
        {HOLE: "hole", UNSTAMPED: "unstamped"}[r["kind"]] for r in together if r["kind"] >= HOLE
    ]
    for row, record in zip(
        missed.to_pylist(), (r for r in together if r["kind"] >= HOLE), strict=True
    ):
        bounds = record["runq_ns"], max(record["runq_ns"], record["wake_ns"])
        assert (row["low_ns"], row["high_ns"]) == bounds


@pytest.mark.parametrize(
    ("state", "letter"),
    [
        *((0x0, "R"), (0x1, "S"), (0x2, "D"), (0x4, "T"), (0x8, "t"), (0x40, "P"), (0x402, "I")),
        (0x102, "D"),  # TASK_KILLABLE
        (0x104, "T"),  # TASK_STOPPED
        (0x2001, "S"),  # TASK_FREEZABLE
        (0x2402, "I"),
        (0x1000, "D"),  # TASK_RTLOCK_WAIT
        (0x8000, "D"),  # TASK_FROZEN, as of a cgroup of the v1 freezer
    ],
)
def test_a_state_has_the_letter_that_the_kernel_gives_it(state: int, letter: str) -> None:
    """As perf and ps show it."""
    record = {"kind": Kind.RUNQ_WAKEUP, "end_ns": 100, "runq_ns": 10, "state": state}
    waits, _ = row_maker(min_latency_ns=0).tables([array_of([record])])
    assert waits["state"].to_pylist() == [letter]


def by_content(rows: list[dict[str, Any]]) -> list[str]:
    """Rows in an order that does not tell who made them."""
    return sorted(str(sorted(row.items())) for row in rows)


def test_of_many_names_a_column_has_those_it_uses() -> None:
    """Parquet writes a column's whole dictionary into each row group."""
    names = [f"w{number}" for number in range(10_000)]
    found = np.array([9_999, 7, 0, 7], np.int32)
    column = named(found, Dictionaries().of(names), Nulls(np.array([False, False, True, False])))
    assert column.to_pylist() == ["w9999", "w7", None, "w7"]
    assert len(column.dictionary) == 3
