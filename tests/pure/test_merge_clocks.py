"""The clock of a merged trace: it reaches back to every recording, and keeps what it knows."""

from __future__ import annotations

import json
from pathlib import Path

from sltrace.analysis.check import check
from sltrace.analysis.meta import clock_notes, gaps, recorded_ns
from sltrace.analysis.rules import parse_rule
from sltrace.model import PID_SPACE
from sltrace.trace.merge import merge
from sltrace.trace.reader import Trace
from tests.pure.test_merge import UNIX, clock, trace_of
from tests.support.traces import SECOND

HOUR = 3600 * SECOND


def test_a_machine_that_booted_after_another_was_recorded(tmp_path: Path) -> None:
    """The first one's clock would be negative at the times of the others."""
    young = trace_of(tmp_path, "young", [{"end_ns": 105 * SECOND, "tid": 7}], "young", UNIX + HOUR)
    old_clock = {"clock": clock(UNIX, 3000 * SECOND)}
    rows = [{"end_ns": 3005 * SECOND, "tid": 8}, {"end_ns": 3006 * SECOND, "tid": 8}]
    old = trace_of(tmp_path, "old", rows, "old", UNIX, meta=old_clock)
    later = {"clock": clock(UNIX, 4000 * SECOND)}
    again = trace_of(tmp_path, "again", [{"end_ns": 4005 * SECOND}], "old", UNIX, meta=later)
    merge([young, old, again], tmp_path / "m.slt")
    merged = Trace.open(tmp_path / "m.slt")
    at, wall = merged.meta["clock"]["start_ns"], merged.meta["clock"]["start_unix_ns"]
    assert (at, wall) == (3000 * SECOND, UNIX + 3000 * SECOND)
    assert recorded_ns(merged) == 30 * SECOND
    assert gaps(merged) == [
        (3010 * SECOND, 3700 * SECOND),
        (3710 * SECOND, 4000 * SECOND),
    ]
    rule = parse_rule("rate(runq) >= 0.13/s")
    assert check(merged, [rule]).verdict == "pass"
    rule = parse_rule("rate(runq) < 0.14/s")
    assert check(merged, [rule]).verdict == "pass"
    # Machines are numbered as before: the first trace's ids are those that stay.
    found = merged.sql("SELECT tid, end_ns FROM waits ORDER BY end_ns").to_pylist()
    assert [(r["tid"] % PID_SPACE, r["tid"] // PID_SPACE, r["end_ns"]) for r in found] == [
        (8, 1, 3005 * SECOND),
        (8, 1, 3006 * SECOND),
        (7, 0, 3705 * SECOND),
        (100, 1, 4005 * SECOND),
    ]
    told = {m["trace"] + m["host"]: m for m in merged.meta["merged"]}
    assert [m["moved_ns"] for m in told.values()] == [HOUR, 0, 0]
    merge([old, young], tmp_path / "n.slt")
    other = Trace.open(tmp_path / "n.slt")
    assert other.meta["clock"]["start_ns"] == 3000 * SECOND


def noted(merged: Trace) -> list[str]:
    return clock_notes(merged, "spans")


def test_a_wall_clock_that_was_set_is_still_known(tmp_path: Path) -> None:
    """Of one trace with a profile, and of what becomes of that."""
    ahead, back = clock(UNIX), clock(UNIX)
    ahead["end_unix_ns"] += HOUR
    back["furthest_ns"] = -480 * SECOND
    profile = {"app": "shop", "measure": "cpu", "size": 1, "profile": b"x", "ns": UNIX}
    for name, own in (("ahead", ahead), ("back", back)):
        trace = trace_of(
            tmp_path, name, [{"end_ns": 105 * SECOND}], "one", UNIX, meta={"clock": own}
        )
        merge([trace], tmp_path / f"{name}.slt", profiles=[profile])
        merged = Trace.open(tmp_path / f"{name}.slt")
        assert noted(merged) == noted(trace) != []
        assert merged.meta["clock"] == {"furthest_ns": 0} | own
        assert merged.notes == ["made.slt: its wall clock was set during the recording"]
        # Once more it is said once.
        merge([merged], tmp_path / f"{name}2.slt", profiles=[profile])
        again = Trace.open(tmp_path / f"{name}2.slt")
        assert noted(again) == noted(trace)
        assert again.notes == [f"{name}.slt: {merged.notes[0]}"]


def test_a_small_step_in_a_long_recording_is_no_rate(tmp_path: Path) -> None:
    """3 s in an hour: the kernel slews both clocks, so that neither runs faster for long."""
    own = clock(UNIX, length=HOUR)
    own["end_unix_ns"] += 3 * SECOND
    rows = [{"end_ns": 100 * SECOND + HOUR * part // 4} for part in (1, 2, 3)]
    trace = trace_of(tmp_path, "a", rows, "one", UNIX, meta={"clock": own})
    other = trace_of(tmp_path, "b", [{"end_ns": 105 * SECOND}], "two", UNIX)
    (note,) = noted(trace)
    assert note.endswith("spans of the time after that are placed 3.00 s too late")
    merge([other, trace], tmp_path / "m.slt")
    merged = Trace.open(tmp_path / "m.slt")
    assert merged.notes == ["made.slt#2: its wall clock was set during the recording"]
    ends = merged.sql("SELECT end_ns FROM waits WHERE cgroup LIKE 'one:%' ORDER BY ALL")
    assert ends["end_ns"].to_pylist() == [row["end_ns"] for row in rows]


def test_two_of_one_boot_have_the_wall_clocks_of_both(tmp_path: Path) -> None:
    """The second's is half a second ahead from its start on, and was eight minutes behind."""
    first = trace_of(tmp_path, "a", [{"end_ns": 105 * SECOND}], "one", UNIX)
    corrected = clock(UNIX + SECOND // 2, 200 * SECOND)
    corrected["furthest_ns"] = -480 * SECOND
    second = trace_of(
        tmp_path, "b", [{"end_ns": 205 * SECOND}], "one", UNIX, meta={"clock": corrected}
    )
    for i, traces in enumerate(([first, second], [second, first])):
        merge(traces, tmp_path / f"{i}.slt")
        assert Trace.open(tmp_path / f"{i}.slt").meta["clock"] == {
            "start_ns": 100 * SECOND,
            "end_ns": 210 * SECOND,
            "start_unix_ns": UNIX + 100 * SECOND,
            "end_unix_ns": UNIX + 210 * SECOND + SECOND // 2,
            "furthest_ns": -480 * SECOND + SECOND // 2,
        }


def test_an_end_that_is_missing_is_said_of_the_merged_trace(tmp_path: Path) -> None:
    killed = trace_of(tmp_path, "a", [{"end_ns": 105 * SECOND}], "one", UNIX)
    meta_file = killed.path / "meta.json"
    meta_file.write_text(json.dumps({**killed.meta, "finished": False}))
    killed = Trace.open(killed.path)
    whole = trace_of(tmp_path, "b", [{"end_ns": 105 * SECOND}], "two", UNIX)
    merge([killed, whole], tmp_path / "m.slt")
    merged = Trace.open(tmp_path / "m.slt")
    assert merged.notes == [f"made.slt: {killed.notes[0]}"]
    assert check(merged, [parse_rule("count(runq) > 0")]).notes == tuple(merged.notes)
    other = trace_of(tmp_path, "c", [{"end_ns": 105 * SECOND}], "three", UNIX)
    merge([merged, other], tmp_path / "n.slt")
    assert Trace.open(tmp_path / "n.slt").notes == [f"m.slt: {merged.notes[0]}"]
    # Whatever the file says.
    for said, found in (
        (7, []),
        ([["x"]], ["['x']"]),
        (["n" * 9000], ["n" * 600]),
        (list("abcdefg"), [*"abcde", "2 more notes on the recordings in it are in its meta.json"]),
    ):
        assert Trace(whole.path, whole.meta | {"notes": said}).notes == found
