"""Go processes that become another program by exec, or whose file is replaced."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from sltrace.capture import libbpf, tags
from sltrace.capture.golang.probes import TRACE_KEYS, GoProbes
from sltrace.errors import CannotRecord
from sltrace.target.go.errors import RefusedError
from sltrace.target.go.process import identify, look_into
from tests.support.golang import WITNESS, go_program, witness
from tests.support.gorecords import breakpoints, column, targets
from tests.support.recorder import recorder
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
            probes.pause([running.pid])
            assert running.ask(f"become {other}") == running.pid
            with pytest.raises(CannotRecord, match="it has ended"):
                probes.resume(running.pid)
            with pytest.raises(CannotRecord, match="it has ended"):
                probes.add(process, 2, switch_stacks=False)
            # Nor are its threads taken for those of the first.
            assert libbpf.keys(probes._object.maps["go_targets"].fd, 4) == []
            probes._attached[running.pid].put_back()
            assert breakpoints(look_into(identify(running.pid))) == 0
    finally:
        probes.close()
        os.close(tags_fd)


def test_a_service_that_starts_itself_anew_by_exec_has_ended(tmp_path: Path) -> None:
    """It has the same pid, file, and addresses, but its goroutines are numbered anew."""
    with (
        witness() as running,
        recorder(tmp_path / "x.slt", "--pid", running.pid) as recording,
    ):
        running.ask("work 100")
        before_ns = time.monotonic_ns()
        assert running.ask(f"become {go_program(WITNESS)}") == running.pid
        # The memory of all goroutines is looked at once a second.
        running.ask("work 1300")
        assert recording.end().code == 0
    first, second = sorted(targets(recording.trace), key=lambda target: target["from_ns"])
    assert (first["level"], first["why"]) == (1, "")
    assert before_ns < first["until_ns"] <= second["from_ns"]
    assert second["level"] is None
    assert "another Go program had its pid before" in second["why"]
    (until,) = column(recording.trace, "SELECT max(ns) FROM gauges WHERE name = 'gomaxprocs'")
    assert until <= first["until_ns"]


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
            time.sleep(0.5)
            shutil.copyfile("/bin/cat", tmp_path / "new")
            (tmp_path / "new").replace(replaced)
            removed.unlink()
            # The memory of all goroutines is looked at once a second.
            time.sleep(2.5)
            end_ns = time.monotonic_ns()
    found = {t["pid"]: t for t in targets(recording.trace)}
    assert set(found) == {one.pid, other.pid}
    for pid, target in found.items():
        assert (target["level"], target["why"], target["until_ns"]) == (0, "", None)
        read = column(recording.trace, f"SELECT max(ns) FROM gauges WHERE pid = {pid}")
        assert read[0] > end_ns - SECOND


def wait_for_program(pid: int, name: str) -> None:
    for _ in range(200):
        if Path(f"/proc/{pid}/comm").read_text().strip() == name:
            return
        time.sleep(0.01)
    raise AssertionError(f"{pid} never became {name}")
