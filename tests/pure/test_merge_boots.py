"""Merged traces: which of them are of one boot of one machine, by the kernel's own number of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sltrace.errors import UsageError
from sltrace.trace.merge import merge
from sltrace.trace.reader import Trace
from tests.pure.test_merge import UNIX, clock, trace_of
from tests.support.traces import SECOND

BOOTS = ("2f1c7f36-9a35-4cf1-8b6f-1c0de0a3a001", "7d3b8a52-5c11-4a41-9d04-1c0de0a3a002")
STEP = 5 * SECOND
"""By which the wall clock was set between two recordings."""


def recorded(
    folder: Path, host: str, boot: str | None, start: int = 100, boot_unix_ns: int = UNIX
) -> Trace:
    """10 s with one wait of one thread, from a second of the monotonic clock on."""
    told: dict[str, Any] = {} if boot is None else {"boot_id": boot}
    return trace_of(
        folder,
        f"{host}{start}{boot}",
        [{"end_ns": (start + 5) * SECOND, "tid": 7, "pid": 7}],
        host,
        boot_unix_ns,
        meta={"clock": clock(boot_unix_ns, start * SECOND)} | told,
    )


@pytest.mark.parametrize("ahead", [0, STEP])
def test_one_boot_is_one_machine_whatever_it_is_called(tmp_path: Path, ahead: int) -> None:
    host = recorded(tmp_path, "web1", BOOTS[0])
    container = recorded(tmp_path, "5f3c", BOOTS[0], 200, UNIX + ahead)
    parts = merge([host, container], tmp_path / "m.slt")
    assert {(p.machine, p.label) for p in parts} == {(0, "web1")}
    merged = Trace.open(tmp_path / "m.slt")
    rows = merged.sql("SELECT end_ns, tid, cgroup FROM waits ORDER BY end_ns").to_pylist()
    wanted = [{"end_ns": s * SECOND, "tid": 7, "cgroup": "/"} for s in (105, 205)]
    assert rows == wanted
    assert merged.meta["boot_id"] == BOOTS[0]
    # So it is when there is more of it.
    more = recorded(tmp_path, "web1", BOOTS[0], 300, UNIX + 9 * STEP)
    assert {p.machine for p in merge([more, merged], tmp_path / "n.slt")} == {0}


@pytest.mark.parametrize("ahead", [0, STEP])
def test_what_was_recorded_twice_is_refused_under_two_names(tmp_path: Path, ahead: int) -> None:
    traces = [
        recorded(tmp_path, "web1", BOOTS[0]),
        recorded(tmp_path, "5f3c", BOOTS[0], 101, UNIX + ahead),
    ]
    with pytest.raises(UsageError, match="both have waits of thread 7"):
        merge(traces, tmp_path / "m.slt")


def test_two_boots_are_two_machines_whatever_they_are_called(tmp_path: Path) -> None:
    traces = [recorded(tmp_path, "localhost", boot) for boot in BOOTS]
    assert [p.label for p in merge(traces, tmp_path / "m.slt")] == ["localhost", "localhost#2"]
    merged = Trace.open(tmp_path / "m.slt")
    assert merged.meta["boot_id"] is None
    assert [m["boot_id"] for m in merged.meta["merged"]] == list(BOOTS)


@pytest.mark.parametrize("unknown", [None, "", 7])
def test_where_one_does_not_tell_its_name_and_clock_do(tmp_path: Path, unknown: Any) -> None:
    new = recorded(tmp_path, "web1", BOOTS[0])
    for number, (ahead, machines) in enumerate(((SECOND // 2, {0}), (STEP, {0, 1}))):
        old = recorded(tmp_path, "web1", unknown, 200 + number, UNIX + ahead)
        parts = merge([new, old], tmp_path / f"{number}.slt")
        assert {p.machine for p in parts} == machines


def test_recordings_of_one_machine_are_moved_by_the_same(tmp_path: Path) -> None:
    """Its wall clock was set between them; the time between them is that of its monotonic one."""
    other = recorded(tmp_path, "web1", BOOTS[0])
    own = [recorded(tmp_path, "web2", BOOTS[1], 100 + 100 * i, UNIX + i * STEP) for i in range(2)]
    merge([other, *own], tmp_path / "m.slt")
    merged = Trace.open(tmp_path / "m.slt")
    ends = merged.sql("SELECT end_ns FROM waits WHERE cgroup LIKE 'web2:%' ORDER BY end_ns")
    assert ends.column(0).to_pylist() == [105 * SECOND, 205 * SECOND]
    assert [m["start_ns"] for m in merged.meta["merged"]] == [s * SECOND for s in (100, 100, 200)]


def test_a_machine_that_is_in_both_under_two_names_is_refused(tmp_path: Path) -> None:
    traces = [recorded(tmp_path, host, boot) for host, boot in zip("ab", BOOTS, strict=True)]
    merge(traces, tmp_path / "m.slt")
    both, later = Trace.open(tmp_path / "m.slt"), recorded(tmp_path, "c", BOOTS[1], 300)
    for pair in ((both, later), (later, both)):
        with pytest.raises(UsageError, match=r"both have waits of [bc], .*all at once"):
            merge(pair, tmp_path / "n.slt")
