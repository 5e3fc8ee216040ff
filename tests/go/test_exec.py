"""Go processes that become another program by exec, or whose file is replaced."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from sltrace.analysis.golang.chain import chain
from sltrace.analysis.golang.health import windows
from sltrace.capture import tags
from sltrace.capture.golang.probes import TRACE_KEYS, GoProbes
from sltrace.capture.maps import map_keys
from sltrace.errors import CannotRecord
from sltrace.target.go.errors import RefusedError
from sltrace.target.go.process import identify, look_into
from sltrace.trace.reader import Trace
from tests.support.golang import VERSIONS, WITNESS, go_program, witness
from tests.support.gorecords import (
    COMPARED,
    assert_same_buckets,
    breakpoints,
    column,
    measured,
    targets,
)
from tests.support.recorder import recorder, sltrace
from tests.support.traces import SECOND

pytestmark = pytest.mark.bpf


def test_a_service_replaced_by_exec_is_let_go(tmp_path: Path) -> None:
    """While it is being attached to, and while it is recorded; what it became is left alone."""
    with witness() as running:
        identity = identify(running.pid)
        running.tell("exec")
        wait_for_program(running.pid, "cat")
        with pytest.raises(RefusedError, match=r"cannot be read|replaced"):
            look_into(identity)
    with (
        witness() as running,
        recorder(tmp_path / "x.slt", "--pid", running.pid, "--go-level", 2) as recording,
    ):
        running.ask("work 100")
        running.tell("exec")
        wait_for_program(running.pid, "cat")
        time.sleep(1.2)
        running.tell("still here")
        assert running.process.stdout
        assert running.process.stdout.readline() == "still here\n"
        assert recording.end().code == 0
    (target,) = targets(recording.trace)
    assert (target["level"], target["why"]) == (2, "")
    assert target["until_ns"]


def test_what_a_service_becomes_is_not_probed(tmp_path: Path) -> None:
    """Neither when it is attached to, nor when its probes are put in again.

    In another program their places may be within instructions: it would crash. Here that is a copy
    of the first, so that they are not.
    """
    one, other = tmp_path / "one", tmp_path / "other"
    tags_fd = tags.create_map()
    probes = GoProbes(tags_fd, level=2, cgroup_v1=False, trace_keys=TRACE_KEYS, measured=False)
    try:
        with witness(copy=one) as running:
            shutil.copy(one, other)
            process = look_into(identify(running.pid))
            assert probes.add(process, 2, switch_stacks=False) == (2, "")
            assert breakpoints(process) == 2
            probes.pause([process.number])
            assert running.ask(f"become {other}") == running.pid
            with pytest.raises(CannotRecord, match="it has ended"):
                probes.resume(process.number)
            with pytest.raises(CannotRecord, match="it has ended"):
                probes.add(process, 2, switch_stacks=False)
            # Nor are its threads taken for those of the first.
            assert map_keys(probes._object.maps["go_targets"].fd, 4) == []
            probes._attached[process.number].put_back()
            assert breakpoints(look_into(identify(running.pid))) == 0
    finally:
        probes.close()
        os.close(tags_fd)


@pytest.mark.parametrize("version", [VERSIONS[-1], VERSIONS[1]])
def test_what_a_service_becomes_by_exec_is_another(tmp_path: Path, version: str) -> None:
    """Itself anew, as for a restart without a gap, or a program of another Go: the same pid.

    Goroutines, functions and reasons are those of each, and all waits are as its runtime counts.
    """
    path, program = tmp_path / "x.slt", go_program(WITNESS, version)
    with witness() as running:
        options = ("--pid", running.pid, "--go-level", 2, "--go-budget", "none")
        with recorder(path, *options) as recording:
            time.sleep(0.2)
            first = measured(running, "work 500", COMPARED)
            handed = running.ask("handover 60")
            before_ns = time.monotonic_ns()
            assert running.ask(f"become {program}") == running.pid
            wait_for_targets(path, 2)
            second = measured(running, "work 500", COMPARED)
            again = running.ask("handover 60")
        trace = recording.trace
    one, other = sorted(targets(trace), key=lambda target: target["from_ns"])
    assert (one["level"], one["why"], other["level"], other["why"]) == (2, "", 2, "")
    assert (one["version"], other["version"]) == (f"go{VERSIONS[-1]}", f"go{version}")
    assert before_ns < one["until_ns"] < other["from_ns"]
    assert other["until_ns"] is None
    for work in (first, second):
        assert_same_buckets(trace, work)
    early, late = windows(trace, 600 * SECOND)
    waits = [
        column(trace, f"SELECT count(*) FROM waits WHERE kind = 'goroutine' AND {condition}")[0]
        for condition in (f"end_ns < {other['from_ns']}", f"end_ns >= {other['from_ns']}")
    ]
    assert [early.waits, late.waits] == waits
    assert min(waits) > 20
    origin = trace.meta["clock"]["start_ns"]
    assert (early.end_ns, late.start_ns) == (one["until_ns"] - origin, other["from_ns"] - origin)
    for nth, goids in ((1, handed), (2, again)):
        waker, woken = map(int, goids)
        steps = [
            (step.where, step.waker, step.waker_goid)
            for step in chain(trace, goid=woken).steps
            if step.nth == nth and step.why.words == "waits for a value from a channel"
        ]
        assert len(steps) >= 3
        assert set(steps) == {("main.handOver.func1", "main.handOver", waker)}
    said = sltrace("go", path)
    assert f"process {running.pid}" in said.out
    assert said.out.count("level 2, ") == 2


def test_a_thread_that_becomes_another_program_ends_nothing(tmp_path: Path) -> None:
    """Not the first one: the kernel ends that one, and gives its number to the one that stays."""
    with (
        witness() as running,
        recorder(tmp_path / "x.slt", "--pid", running.pid, "--go-level", 2) as recording,
    ):
        running.ask("work 100")
        running.tell("exec-elsewhere")
        wait_for_program(running.pid, "cat")
        time.sleep(1.2)
        became_ns = time.monotonic_ns()
        assert running.process.stdout
        for n in range(30):
            running.tell(f"still here {n}")
            assert running.process.stdout.readline() == f"still here {n}\n"
            time.sleep(0.01)
        assert recording.end().code == 0
    (target,) = targets(recording.trace)
    assert (target["level"], target["why"]) == (2, "")
    assert target["until_ns"]
    (found,) = recording.trace.sql(
        "SELECT count(*) AS n, count(goid) AS goids, count(held_p) AS ps, min(tid) AS tid, "
        "max(tid) AS last, list(DISTINCT comm) AS comms FROM waits "
        f"WHERE pid = {running.pid} AND kind = 'runq_wakeup' AND end_ns > {became_ns}"
    ).to_pylist()
    assert found["n"] >= 20
    assert (found["tid"], found["last"]) == (running.pid, running.pid)
    assert found["comms"] == ["cat"]
    # What it was is not taken for what it is.
    assert (found["goids"], found["ps"]) == (0, 0)


def test_a_service_whose_file_is_replaced_or_removed_is_recorded_on(tmp_path: Path) -> None:
    """As when a new version is put in its place while the old one runs."""
    replaced, removed = tmp_path / "replaced", tmp_path / "removed"
    with witness(copy=replaced) as one, witness(copy=removed) as other:
        options = ("--pid", one.pid, "--pid", other.pid, "--go-level", 0)
        with recorder(tmp_path / "r.slt", *options) as recording:
            wait_for_targets(tmp_path / "r.slt", 2)
            shutil.copyfile("/bin/cat", tmp_path / "new")
            (tmp_path / "new").replace(replaced)
            removed.unlink()
            gone_ns = time.monotonic_ns()
            # The memory of all goroutines is looked at once a second.
            time.sleep(3)
    found = {t["pid"]: t for t in targets(recording.trace)}
    assert set(found) == {one.pid, other.pid}
    for pid, target in found.items():
        assert (target["level"], target["why"], target["until_ns"]) == (0, "", None)
        read = column(recording.trace, f"SELECT max(ns) FROM gauges WHERE pid = {pid}")
        assert read[0] > gone_ns + SECOND


def wait_for_targets(path: Path, count: int) -> None:
    for _ in range(100):
        if len(targets(Trace.open(path))) == count:
            return
        time.sleep(0.1)
    raise AssertionError(f"there never were {count} targets")


def wait_for_program(pid: int, name: str) -> None:
    for _ in range(200):
        if Path(f"/proc/{pid}/comm").read_text().strip() == name:
            return
        time.sleep(0.01)
    raise AssertionError(f"{pid} never became {name}")
