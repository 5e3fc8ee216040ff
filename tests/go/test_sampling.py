"""What is read of a program's goroutines and Ps against what it says of them itself."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from sltrace.capture.golang.sampler import P_IDLE, Sampler
from sltrace.target.go.process import identify, look_into
from tests.support.golang import witness
from tests.support.recorder import recorder

pytestmark = pytest.mark.bpf


def test_goroutines_are_those_of_pprof(tmp_path: Path) -> None:
    """By addresses of the whole stack: its debug=1 text has the same return addresses."""
    with witness() as running:
        running.ask("park 90")
        with recorder(tmp_path / "g.slt", "--pid", running.pid) as recording:
            time.sleep(1.5)
            profile = running.ask("goroutines")
        trace = recording.trace
    theirs = {
        tuple(int(a, 16) for a in m[2].split()): int(m[1])
        for m in re.finditer(r"^(\d+) @((?: 0x\w+)+)$", profile, re.M)
    }
    table = trace.sql(
        "WITH last AS (SELECT max(ns) AS ns FROM samples) SELECT addresses, reason, count "
        "FROM samples JOIN last USING (ns) JOIN stacks ON stack_runtime = stack_id "
        "WHERE state = 'waiting'"
    ).to_pylist()
    parked = [row for row in table if row["count"] == 30]
    assert sorted(row["reason"] for row in parked) == [
        "chan receive",
        "select",
        "sync.Mutex.Lock",
    ]
    for row in parked:
        # The profile adds an address of its own for each function that was inlined.
        addresses = set(row["addresses"])
        assert len(addresses) >= 4
        same = [count for stack, count in theirs.items() if addresses <= set(stack)]
        assert 30 in same
    named = trace.sql("SELECT DISTINCT name, file FROM frames WHERE name LIKE 'main.%'").to_pylist()
    files = {n["name"]: n["file"] for n in named}
    for name in ("main.receives", "main.selects"):
        assert files[name].endswith("witness/main.go")
    # What waits there is the library's Lock, inlined.
    assert files["main.locks"].endswith("sync/mutex.go")


def test_what_waits_when_the_recording_ends_is_seen(tmp_path: Path) -> None:
    """A scan a second is not enough: the last is of the end."""
    with witness() as running:
        with recorder(tmp_path / "e.slt", "--pid", running.pid, "--go-level", 0) as recording:
            time.sleep(0.3)
            running.ask("park 90")
            time.sleep(0.1)
        found = waiting(recording)
    assert found["select"] == 30
    clock = recording.trace.meta["clock"]
    scans = recording.trace.sql("SELECT DISTINCT ns FROM samples ORDER BY ns")["ns"].to_pylist()
    assert scans[-1] == clock["end_ns"]
    gauges = recording.trace.sql("SELECT max(ns) AS ns FROM gauges")
    assert gauges["ns"].to_pylist() == [clock["end_ns"]]


def test_every_p_is_read(tmp_path: Path) -> None:
    """Also on machines with more CPUs than this one; most of them have no thread at all."""
    with witness() as running:
        running.ask("procs 300")
        sampler = Sampler(look_into(identify(running.pid)))
        sampler.tick(time.monotonic_ns())
    gauges = sampler.samples.gauges
    assert [p for _, name, p, _ in gauges if name == "p_state"] == list(range(300))
    states = [value for _, name, _, value in gauges if name == "p_state"]
    assert states.count(P_IDLE) > 290
    assert ("gomaxprocs", None, 300.0) in [gauge[1:] for gauge in gauges]


def waiting(recording: Any) -> dict[str | None, int]:
    """How many goroutines waited at the end of a recording, by reason."""
    table = recording.trace.sql(
        "SELECT reason, sum(count)::BIGINT AS n FROM samples WHERE state = 'waiting' "
        "AND ns = (SELECT max(ns) FROM samples) GROUP BY ALL"
    ).to_pylist()
    return {row["reason"]: row["n"] for row in table}


def test_goroutines_kept_for_calls_from_c_are_none(tmp_path: Path) -> None:
    """The runtime keeps one for each thread of C that ever called: they wait for nothing."""
    with witness(mode="cgo") as running:
        with recorder(tmp_path / "c.slt", "--pid", running.pid, "--go-level", 0) as recording:
            running.ask("callbacks 40")
            time.sleep(1.5)
            profile = running.ask("goroutines")
        found = waiting(recording)
    assert profile.startswith("goroutine profile: total 1\n")
    assert None not in found
    assert sum(found.values()) < 10


def test_a_goroutine_found_leaked_waits_for_what_it_did(tmp_path: Path) -> None:
    """The runtime's own profile of leaks gives those it finds a state of their own."""
    with witness() as running:
        with recorder(tmp_path / "l.slt", "--pid", running.pid, "--go-level", 0) as recording:
            running.ask("leak 30")
            time.sleep(1.5)
        found = waiting(recording)
    assert found["chan receive"] == 30
    assert None not in found
