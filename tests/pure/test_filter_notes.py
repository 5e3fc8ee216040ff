"""That a recording was limited to a part of what there was is said beside its numbers."""

from __future__ import annotations

from pathlib import Path

from sltrace.analysis.blame import blame
from sltrace.analysis.check import check
from sltrace.analysis.diagnosis import diagnose
from sltrace.analysis.latency import stat
from sltrace.analysis.meta import filter_notes
from sltrace.analysis.rules import parse_rule
from sltrace.trace.merge import merge
from sltrace.trace.reader import Trace
from tests.support.traces import make_trace

ROW = {"wait_ns": 1000, "kind": "runq_wakeup"}


def test_what_a_recording_was_limited_to_is_said(tmp_path: Path) -> None:
    for folder in ("limited", "whole", "strange"):
        (tmp_path / folder).mkdir()
    asked = {"cgroups": ["/a", "/b"], "cpus": [0, 1, 2, 3, 10], "policies": [1, 77], "pids": []}
    limited = Trace.open(make_trace(tmp_path / "limited", [ROW], meta={"filters": asked}))
    said = (
        "only waits of a part of the machine were recorded: cgroup (and those below) /a, /b; "
        "CPU 0, 1, 2 and 2 more; policy FIFO, 77"
    )
    for notes in (
        stat(limited).notes,
        stat(limited, coarse=True).notes,
        blame(limited).notes,
        diagnose(limited).notes,
        check(limited, [parse_rule("max(runq) < 9s")]).notes,
    ):
        assert notes[0] == said
    whole = Trace.open(make_trace(tmp_path / "whole", [ROW | {"tid": 7}]))
    assert not filter_notes(whole)
    for value in (7, "x", [], None, ["a"], {"cpus": {"a": 1}}, {"comms": "\n" * 5000}):
        strange = Trace.open(make_trace(tmp_path / "strange", [ROW], meta={"filters": value}))
        assert all(len(note) < 1000 for note in filter_notes(strange))
    merge([limited, whole], tmp_path / "both.slt")
    both = Trace.open(tmp_path / "both.slt")
    assert filter_notes(both) == [f"in some of the recordings in it {said}"]
