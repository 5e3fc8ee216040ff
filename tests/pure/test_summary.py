"""What `sltrace record` says at its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from sltrace.buckets import bucket_of, lower_bounds
from sltrace.cli import output, summary
from sltrace.cli.summary import print_summary
from tests.support.traces import META, SECOND, make_trace


def test_of_many_go_processes_those_with_something_to_say_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    processes = [
        {"pid": pid, "version": "go1.27.3", "level": 0, "why": "stripped" if pid == 250 else ""}
        for pid in range(1, 301)
    ]
    costs = {"counters": {}, "probe_ns": 0, "hit_ns": 0, "sampler_cpu_ns": 0}
    meta = {
        "sources": {"go": {"processes": processes, **costs}},
        "overhead": META["overhead"] | {"probe_ns_per_switch": 0},
        "histogram_only": False,
    }
    print_summary(make_trace(tmp_path, [{}], meta=meta), "stopped")
    told = capsys.readouterr().out
    assert "a hit" not in told
    said = [line for line in told.splitlines() if line.startswith("  go  ")]
    assert said[0].endswith("process 250, go1.27.3, level 0: stripped")
    assert said[1].endswith("process 1, go1.27.3, level 0")
    assert said[8:] == ["  go                 292 more, which sltrace go lists"]


def test_it_fits_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = [{"wait_ns": 12_345_678, "end_ns": SECOND + i} for i in range(12_345)]
    overhead = META["overhead"] | {"probe_ns_per_switch": 150}
    path = make_trace(tmp_path, waits, meta={"overhead": overhead, "histogram_only": False})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(output, "terminal_width", lambda: 80)
    print_summary(path.relative_to(tmp_path), "sleep ended")
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "\n" + " " * 21 + "p99.9 12.3 ms  max 12.3 ms\n" in said


def test_of_very_many_waits_few_are_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour's waits have no room in a host's memory: histograms, and culprits of the end."""
    culprits = {"culprit_tid": 7, "culprit_pid": 7, "culprit_ns": 1000}
    waits = [
        {"wait_ns": 1000, "end_ns": i * SECOND // 100, "culprit_comm": comm, **culprits}
        for comm, span in (("early", range(1, 900)), ("late", range(900, 1000)))
        for i in span
    ]
    of = {"start_ns": 0, "end_ns": SECOND, "cgroup": "/a", "policy": "OTHER"}
    of |= {"kind": "runq_wakeup", "count": 999}
    bucket = int(bucket_of(1000))
    path = make_trace(
        tmp_path,
        waits,
        meta={
            "overhead": META["overhead"] | {"probe_ns_per_switch": 150},
            "histogram_only": False,
            "clock": META["clock"] | {"start_ns": 0, "end_ns": 10 * SECOND},
        },
        histograms=[of | {"bucket": bucket, "low_ns": int(lower_bounds()[bucket])}],
        histogram_sums=[of | {"sum_ns": 999_000}],
    )
    print_summary(path, "stopped")
    said = capsys.readouterr().out
    assert "999 waits: p50 1.00 us  p90 1.00 us" in said
    assert "top culprit        early: others waited 899 us while it ran\n" in said
    monkeypatch.setattr(summary, "_MANY", 50)
    print_summary(path, "stopped")
    said = capsys.readouterr().out
    assert "999 waits: p50 960 ns - 1.02 us" in said.replace("\N{NO-BREAK SPACE}", " ")
    assert (
        "top culprit        late: others waited 50.0 us while it ran (in the last 501 ms)" in said
    )
    assert "note: percentiles are from histograms" in said


@pytest.mark.parametrize(
    ("cost", "said"),
    [
        ({}, "10.00% of a CPU (estimate: 150 ns a switch)"),
        (
            {"probe_ns_at_least": True},
            "at least 10.00% of a CPU (estimate: 150 ns a switch that is left out)",
        ),
        (
            {"probe_ns_per_kept": 480.4},
            "10.00% of a CPU (estimate: 150 ns a switch that is left out, 480 ns one that is kept)",
        ),
    ],
)
def test_what_switches_cost_that_were_kept_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cost: dict[str, object], said: str
) -> None:
    overhead = META["overhead"] | {"probe_ns": SECOND, "probe_ns_per_switch": 150} | cost
    meta = {"overhead": overhead, "histogram_only": False}
    print_summary(make_trace(tmp_path, [{}], meta=meta), "stopped")
    assert f"probes {said}" in " ".join(capsys.readouterr().out.split())
