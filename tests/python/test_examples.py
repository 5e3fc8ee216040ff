"""Services with a known disease: each is named, with the place; each cure is silent."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sltrace.trace.reader import Trace
from tests.support.cgroups import cgroup
from tests.support.cli import told
from tests.support.loads import put_first
from tests.support.programs import ROOT
from tests.support.pythons import service
from tests.support.recorder import Record, of_pids

pytestmark = pytest.mark.bpf

_SECONDS = {"python_fanout": 2.5}
"""What is told in pieces of a second needs some of them; all others 1.5."""
_FIRST = ["nice", "-n", "-20"]
"""Whatever else runs on this machine must not look like a disease."""
_ONCE_TOLD = (
    "import runpy, sys; sys.stdin.readline(); del sys.argv[0]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
"""Runs a program when a line has come: on a busy machine it may end before it is looked into."""

DISEASES = {
    "python_gil_hog": ("gil_hog", "compute (service.py"),
    "python_blocking_coroutine": ("loop_blocked", "fetch (service.py"),
    "python_lock_convoy": ("lock_convoy", "record_slowly (service.py"),
    "python_fanout": ("loop_busy", ""),
    "python_pool_convoy": ("lock_convoy", "a semaphore in ask (service.py"),
}


def _findings(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = told("python", path)["findings"]
    return found


def _command(name: str, mode: str) -> list[str]:
    program = ROOT / "examples" / name / "service.py"
    return [*_FIRST, sys.executable, str(program), mode, str(_SECONDS.get(name, 1.5))]


@pytest.mark.parametrize("name", DISEASES)
def test_the_disease_is_named(name: str, record: Record) -> None:
    disease, place = DISEASES[name]
    for _ in range(2):  # on a machine that others use it may not get the CPU to fall ill
        with record("--", *_command(name, "disease")) as recording:
            recording.wait()
        found = _findings(recording.path)
        print(f"\n{name}: {[f['sentence'] for f in found]}")
        # Others may follow from it: tasks without number are work for the collector.
        named = [f for f in found if f["name"] == disease]
        if named:
            break
    assert len(named) == 1
    assert place in named[0]["sentence"]
    assert named[0]["value"] >= named[0]["threshold"]


def test_the_cures_are_silent(record: Record) -> None:
    """One after the other, each over its own time: they must not be each other's disease."""
    for name in DISEASES:
        with record("--", *_command(name, "cure")) as recording:
            recording.wait()
        assert _findings(recording.path) == [], name
        trace = recording.trace
        assert trace.sql("SELECT 1 FROM waits WHERE stack_runtime IS NOT NULL").num_rows > 20, name


@pytest.mark.parametrize("version", ["3.11", "3.13"])
def test_workers_without_work_are_no_convoy(version: str, record: Record) -> None:
    with (
        service(version, "queued", 30) as process,
        record("--pid", process.pid) as recording,
    ):
        put_first(process.pid)
        time.sleep(2)
    (place,) = recording.trace.sql(
        "SELECT count(DISTINCT tid) AS threads, count(*) AS waits FROM waits "
        "WHERE kind = 'blocked' AND reason = 'lock' AND stack_runtime IS NOT NULL"
    ).to_pylist()
    assert place["threads"] == 8
    assert place["waits"] >= 50
    assert _findings(recording.path) == []


POOLS = {
    "semaphore": "a semaphore in ask_semaphore (pools.py",
    "queue": "a queue in taken (pools.py",
    "self_fed": "",
    "simple_self_fed": "",
    "barrier": "",
    "condition": "a condition in",
    "condition_self_fed": "",
}
"""What threads share, and the place of the convoy; those without one only wait for work."""


@dataclass(frozen=True)
class Pools:
    """A process for each of POOLS, recorded together: they sleep most of the time."""

    trace: Trace
    pids: dict[str, int]
    findings: list[dict[str, Any]]


@pytest.fixture(scope="module", params=["3.10", "3.13"])
def pools(request: pytest.FixtureRequest, record_once: Record) -> Pools:
    with ExitStack() as stack:
        pids = {
            shared: stack.enter_context(service(request.param, "pools", shared, 60)).pid
            for shared in POOLS
        }
        recording = stack.enter_context(record_once(*of_pids(pids.values())))
        for pid in pids.values():
            put_first(pid)
        time.sleep(1.5)
        recording.end()
    return Pools(recording.trace, pids, _findings(recording.path))


@pytest.mark.parametrize("shared", POOLS)
def test_pools_are_told_from_workers_without_work(shared: str, pools: Pools) -> None:
    """In both, whoever waits goes on because of another that waited there."""
    pid, place = pools.pids[shared], POOLS[shared]
    (waits,) = pools.trace.sql(
        "SELECT count(*) AS n, sum(wait_ns) / 1e9 AS seconds FROM waits "
        "WHERE pid = ? AND kind = 'blocked' AND reason = 'lock' AND stack_runtime IS NOT NULL",
        [pid],
    ).to_pylist()
    print(f"\n{shared}: {waits}")
    assert waits["n"] > 50
    assert waits["seconds"] > 1
    mine = [f for f in pools.findings if f["pid"] == pid]
    found = [f["sentence"] for f in mine if f["name"] == "lock_convoy"]
    assert len(found) == bool(place)
    assert all(place in what for what in found)


def test_too_many_threads_for_the_quota(record: Record) -> None:
    program = ROOT / "examples" / "python_quota_threads" / "service.py"
    # On a machine that others use, a batch may get too little CPU to use its quota up.
    names: set[str] = set()
    seen: list[set[str]] = []
    for mode in ("disease", "disease", "cure"):
        if mode == "disease" and "quota" in names:
            continue
        with cgroup("half", cpus=0.5) as limited:
            command = [sys.executable, "-c", _ONCE_TOLD, str(program), mode, "2.5"]
            joining = ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', limited.procs, *command]
            process = subprocess.Popen(joining, stdin=subprocess.PIPE)
            try:
                with record("--pid", process.pid) as recording:
                    process.communicate(b"\n", 20)
                    recording.wait()
            finally:
                process.kill()
                process.wait()
        found = _findings(recording.path)
        print(f"\n{mode}: {[f['sentence'] for f in found]}")
        names = {f["name"] for f in found}
        # Whoever is held back while it has the GIL holds back the others: that may be named too.
        seen.append(names)
    assert "quota" in seen[0] | seen[-2]
    assert not seen[-1]
