"""Python stacks of sleeping threads against what the process itself and py-spy see."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sltrace.capture.python.frames import UNREADABLE
from sltrace.trace.reader import Trace
from tests.support.pythons import WANTED, interpreter, service, those_here
from tests.support.recorder import Record, of_pids

pytestmark = pytest.mark.bpf

Stack = tuple[tuple[str, int, str], ...]
"""Name, line and file of each frame, innermost first."""

_DEPTH = 128


def _stacks(trace: Trace) -> dict[int, dict[Stack, int]]:
    """By thread, how often it slept with each stack."""
    rows = trace.sql(
        "SELECT w.tid, w.end_ns, w.stack_runtime AS id, any_value(k.addresses) AS addresses, "
        "any_value(k.pid) AS pid FROM waits w JOIN stacks k ON k.stack_id = w.stack_runtime "
        "WHERE w.kind = 'blocked' AND w.reason = 'sleep' GROUP BY ALL"
    ).to_pylist()
    frames = {
        (r["pid"], r["address"]): (r["name"].rpartition(".")[2], r["line"], r["file"])
        for r in trace.sql("SELECT * FROM frames WHERE language = 'python'").to_pylist()
    }
    found: dict[int, dict[Stack, int]] = {}
    for row in rows:
        stack = tuple(frames[row["pid"], a] for a in row["addresses"])
        mine = found.setdefault(row["tid"], {})
        mine[stack] = mine.get(stack, 0) + 1
    return found


def _py_spy(pid: int) -> dict[int, Stack]:
    """By pthread_self(): the tid it does not know of 3.10."""
    path = shutil.which("py-spy") or str(Path(sys.executable).parent / "py-spy")
    done = subprocess.run(
        [path, "dump", "--json", "--nonblocking", "--pid", str(pid)],
        capture_output=True,
        text=True,
        check=True,
    )
    threads: list[dict[str, Any]] = json.loads(done.stdout)
    return {
        t["thread_id"]: tuple(
            (f["name"].rpartition(".")[2], f["line"], f["filename"]) for f in t["frames"]
        )
        for t in threads
    }


@dataclass(frozen=True)
class Sleepers:
    """The same program on each Python, recorded together: its threads sleep most of the time.

    Attributes:
        trace: The recording.
        found: By tid, how often each thread slept with each stack.
        logged: By version, what each thread saw of itself: its pthread_self() and stack, by tid.
        spied: By version, what py-spy saw.
    """

    trace: Trace
    found: dict[int, dict[Stack, int]]
    logged: dict[str, dict[int, tuple[int, Stack]]]
    spied: dict[str, dict[int, Stack]]


@pytest.fixture(scope="module")
def sleepers(record_once: Record, tmp_path_factory: pytest.TempPathFactory) -> Sleepers:
    logs = tmp_path_factory.mktemp("logs")
    with ExitStack() as stack:
        pids = {
            version: stack.enter_context(service(version, "sleepers", logs / version, 30)).pid
            for version in those_here(WANTED)
        }
        with record_once(*of_pids(pids.values()), "--python-rate", 0) as recording:
            time.sleep(1)
        # It does not find the version of a process that another loader than the system's began.
        spied = {version: _py_spy(pids[version]) for version in pids if version != "3.14"}
    logged = {
        version: {
            int(tid): (ident, tuple((name, line, file) for name, line, file in frames))
            for tid, (ident, frames) in json.loads((logs / version).read_text()).items()
        }
        for version in pids
    }
    return Sleepers(recording.trace, _stacks(recording.trace), logged, spied)


@pytest.mark.parametrize("version", WANTED)
def test_stacks_are_those_the_process_and_py_spy_see(version: str, sleepers: Sleepers) -> None:
    interpreter(version)
    found, spied = sleepers.found, sleepers.spied.get(version)
    checked = 0
    for tid, (ident, expected) in sleepers.logged[version].items():
        assert set(found[tid]) == {expected[:_DEPTH]}, f"thread {tid}"
        checked += sum(found[tid].values())
        # py-spy names a frame's line by its own decoder, and cuts no stack this deep.
        if spied and len(expected) < _DEPTH:
            assert set(found[tid]) == {spied[ident]}, f"thread {tid}"
    assert checked > 500
    print(f"\n{version}: {checked} stacks")


def test_stacks_that_are_cut_or_fail_are_counted(sleepers: Sleepers) -> None:
    counted = sleepers.trace.meta["sources"]["python"]["counters"]
    assert counted["python_stacks_cut"] > 0, "the deepest threads' stacks"
    assert counted["python_stacks_failed"] == 0
    print(f"\n{counted['python_ns'] / counted['python_switches']:.0f} ns")


def test_a_page_that_cannot_be_read_ends_a_stack(record: Record) -> None:
    with (
        service("3.11", "hidden", 30) as process,
        record("--pid", process.pid, "--python-rate", 0) as recording,
    ):
        tid, expected = json.loads(process.said)  # type: ignore[attr-defined]
        time.sleep(0.3)
    assert 5 < len(expected) < 90
    found = {tuple(name for name, _, _ in stack) for stack in _stacks(recording.trace)[tid]}
    assert found == {(*expected, UNREADABLE)}
    counted = recording.trace.meta["sources"]["python"]["counters"]
    assert counted["python_stacks_failed"] > 100


def test_the_cap_is_kept_and_said(record: Record, tmp_path: Path) -> None:
    with (
        service("3.11", "sleepers", tmp_path / "log.json", 30) as process,
        record("--pid", process.pid, "--python-rate", 200) as recording,
    ):
        time.sleep(1.5)
    described = recording.trace.meta["sources"]["python"]
    assert described["stack_rate_per_cpu"] == 200
    # CPU samples are not capped.
    taken = described["counters"]["python_stacks"]
    waits = recording.trace.sql(
        "SELECT count(*) AS n, count(stack_runtime) AS stacks FROM waits WHERE reason = 'sleep'"
    ).to_pylist()[0]
    seconds = recording.trace.meta["overhead"]["wall_ns"] / 1e9
    cpus = recording.trace.meta["cpus"]
    assert 0 < waits["stacks"] < waits["n"]
    assert taken <= (200 + 99) * cpus * (seconds + 1)
    assert described["counters"]["python_stacks_capped"] > 0
    rows = recording.trace.sql(
        "SELECT sum(value)::BIGINT AS n FROM counters WHERE name = 'python_stacks_capped' "
        "AND class = 'discard'"
    ).to_pylist()
    assert rows[0]["n"] == described["counters"]["python_stacks_capped"]


def test_bursts_below_the_cap_have_their_stacks(record: Record) -> None:
    with service("3.11", "bursts") as process, record("--pid", process.pid) as recording:
        time.sleep(1)
    counted = recording.trace.meta["sources"]["python"]["counters"]
    assert counted["python_switches"] > 500
    assert counted["python_stacks_capped"] == 0
