"""Which Go processes are attached to, and that all are left as they were."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sltrace.capture import tags
from sltrace.capture.golang.attached import Attached
from sltrace.capture.golang.probes import TRACE_KEYS, GoProbes
from sltrace.capture.maps import map_info, map_keys, update_map
from sltrace.errors import CannotRecord
from sltrace.target.go.process import identify, look_into
from sltrace.trace.reader import Trace
from tests.support.cgroups import cgroup
from tests.support.golang import VERSIONS, WITNESS, go_program, witness
from tests.support.gorecords import breakpoints, column, counters_of, targets
from tests.support.loads import read_schedstat, stolen_ns
from tests.support.processes import endless
from tests.support.programs import ROOT
from tests.support.recorder import recorder, sltrace
from tests.support.traces import SECOND

pytestmark = pytest.mark.bpf


def _away_ns() -> int:
    """For how long this thread has had no CPU when it wanted one, or none that was real."""
    return read_schedstat(os.getpid(), threading.get_native_id())[1] + stolen_ns()


@pytest.mark.alone
def test_a_killed_recorder_leaves_the_service_as_it_was(tmp_path: Path) -> None:
    """And it is left at once, killed or not."""
    with witness() as running:
        process = look_into(identify(running.pid))
        for number in (signal.SIGKILL, signal.SIGINT):
            path = tmp_path / f"{number}.slt"
            options = ("--pid", running.pid, "--go-level", 2, "--go-budget", "none")
            with recorder(path, *options) as recording:
                running.tell("work 900")
                time.sleep(0.3)
                assert breakpoints(process) == 2
                os.kill(recording.pid, number)
                told, away = time.monotonic(), -_away_ns()
                while breakpoints(process):
                    time.sleep(0.002)
                # 0.06 to 0.08 s on an idle machine, most of it the kernel's own wait.
                took, away = time.monotonic() - told, away + _away_ns()
                assert took < 0.3 + away / 1e9
                recording.wait()
                assert running.answer() == "done"
            assert running.ask("work 100") == "done"
            assert running.process.poll() is None
            assert breakpoints(process) == 0


def test_the_trace_of_a_killed_recorder_says_who_was_looked_into(tmp_path: Path) -> None:
    """Also while the recorder still runs; and every view takes it for what it is."""
    with witness() as running, recorder(tmp_path / "k.slt", "--pid", running.pid) as recording:
        until = time.monotonic() + 20
        while not targets(recording.trace):
            running.ask("work 200")
            assert time.monotonic() < until
        (target,) = targets(recording.trace)
        assert (target["pid"], target["level"], target["until_ns"]) == (running.pid, 1, None)
        recording.end(signal.SIGKILL)
    trace = recording.trace
    assert not trace.meta["finished"]
    assert targets(trace) == [target]
    said = sltrace("go", recording.path)
    assert said.code == 0, said.err
    assert f"process {running.pid} " in said.out
    assert "level 1" in said.out


def test_a_service_that_ends_is_no_error(tmp_path: Path) -> None:
    with witness() as running, recorder(tmp_path / "e.slt", "--pid", running.pid) as recording:
        running.ask("work 300")
        running.process.kill()
        running.process.wait()
        time.sleep(1.2)
        assert recording.end().code == 0
        target = recording.trace.sql(
            "SELECT level, why, until_ns FROM targets WHERE runtime = 'go'"
        ).to_pylist()[0]
    assert target["level"] == 1
    assert target["until_ns"]


def test_a_version_from_the_future_is_refused(tmp_path: Path) -> None:
    """The rest of the recording is whole, and the reason is told."""
    whole = go_program(WITNESS, mode="stripped").read_bytes()
    future = tmp_path / "future"
    future.write_bytes(whole.replace(VERSIONS[-1].encode(), b"1.99.3"))
    future.chmod(0o755)
    with endless([future], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        with recorder(tmp_path / "f.slt", "--pid", process.pid) as recording:
            time.sleep(0.5)
        assert process.poll() is None
    target = recording.trace.sql(
        "SELECT version, level, why FROM targets WHERE runtime = 'go'"
    ).to_pylist()[0]
    assert target["version"] == "go1.99.3"
    assert target["level"] is None
    assert "Go 1.19 and 1.21 to 1.27 are known" in target["why"]
    assert "no DWARF" in target["why"]
    assert recording.trace.meta["finished"]


TRACER = """
import ctypes, os, sys
libc, pid = ctypes.CDLL(None), int(sys.argv[1])
assert libc.ptrace(0x4206, pid, None, None) == 0  # PTRACE_SEIZE
print("seized", flush=True)
while True:
    _, status = os.waitpid(pid, 0x40000000)  # __WALL
    if not os.WIFSTOPPED(status):
        break
    libc.ptrace(7, pid, None, ctypes.c_void_p(os.WSTOPSIG(status)))  # PTRACE_CONT
"""


def test_a_service_that_a_debugger_traces_is_recorded_all_the_same(tmp_path: Path) -> None:
    """Neither reading its memory nor probing it is tracing: nobody stands in the other's way."""
    with witness() as running:
        debugger = [sys.executable, "-c", TRACER, str(running.pid)]
        with endless(debugger, stdout=subprocess.PIPE) as tracer:
            assert tracer.stdout
            assert tracer.stdout.readline() == b"seized\n"
            options = ("--pid", running.pid, "--go-level", 2, "--go-budget", "none")
            with recorder(tmp_path / "d.slt", *options) as recording:
                assert running.ask("work 300") == "done"
            status = Path(f"/proc/{running.pid}/status").read_text()
            assert f"TracerPid:\t{tracer.pid}\n" in status
            running.process.kill()
            tracer.wait(60)
    (target,) = targets(recording.trace)
    assert (target["level"], target["why"]) == (2, "")
    assert column(recording.trace, "SELECT count(*) FROM waits WHERE kind = 'goroutine'")[0] > 10


@pytest.mark.alone
@pytest.mark.parametrize("through", ["", "sh -c"])
def test_a_command_is_found_once_it_runs(tmp_path: Path, through: str) -> None:
    """By way of a shell it is another process, which begins later and whose parent has ended."""
    program = f"{go_program(ROOT / 'examples' / 'go_fanout')} -cured -d 1200ms"
    script = f"( (sleep 0.2; {program}) & ); sleep 1.6"
    command = ["sh", "-c", script] if through else program.split()
    stolen = -stolen_ns()
    done = sltrace("record", "-o", tmp_path / "c.slt", "--", *command)
    stolen += stolen_ns()
    assert done.code == 0, done.err
    trace = Trace.open(tmp_path / "c.slt")
    (target,) = targets(trace)
    assert (target["level"], target["why"]) == (1, "")
    assert 0 < attached_after_ns(trace, target["pid"]) < SECOND + stolen
    assert column(trace, "SELECT count(*) FROM waits WHERE kind = 'goroutine'")[0] > 20
    assert column(trace, "SELECT count(*) FROM samples WHERE source = 'wall'")[0]
    assert trace.meta["sources"]["go"]["level_asked_for"] == 1


def attached_after_ns(trace: Trace, pid: int) -> int:
    """How long after a process became its program it was attached to, in ns."""
    (found,) = trace.sql(
        "SELECT max(t.from_ns) - max(n.from_ns) AS ns FROM targets AS t JOIN tasks AS n "
        f"USING (pid) WHERE pid = {pid} AND tid = {pid} AND runtime = 'go' "
        "AND n.from_ns < t.from_ns"
    ).to_pylist()
    return int(found["ns"])


def levels(path: Path) -> dict[int, int | None]:
    """The levels that Go processes are at so far, as a running recorder says once a second."""
    meta = json.loads((path / "meta.json").read_text())
    processes = meta.get("sources", {}).get("go", {}).get("processes", [])
    return {process["pid"]: process["level"] for process in processes}


def test_what_begins_meanwhile_is_found(tmp_path: Path) -> None:
    """Where no Go process was: by cgroup and name with a probe, and anywhere without."""
    name = go_program(WITNESS).name
    with (
        cgroup("sltrace-go-late") as group,
        recorder(tmp_path / "all.slt") as whole,
        recorder(tmp_path / "some.slt", "--cgroup", group.name, "--comm", name) as some,
        witness(join=group.procs) as inside,
        witness() as outside,
    ):
        wanted = ((some, {inside.pid: 1}), (whole, {inside.pid: 0, outside.pid: 0}))
        until = time.monotonic() + 20
        while any(not found.items() <= levels(each.path).items() for each, found in wanted):
            assert time.monotonic() < until, [levels(each.path) for each, _ in wanted]
            outside.tell("work 300")
            inside.ask("work 300")
            outside.answer()
        outside.tell("work 300")
        inside.ask("work 300")
        assert some.end().code == whole.end().code == 0
    assert {t["pid"] for t in targets(some.trace)} == {inside.pid}
    for trace, one, level in (
        (some.trace, inside, 1),
        (whole.trace, inside, 0),
        (whole.trace, outside, 0),
    ):
        (target,) = (t for t in targets(trace) if t["pid"] == one.pid)
        assert (target["level"], target["why"]) == (level, "")
        # 0.1 s each on an idle machine; two recorders look for two busy ones here.
        assert 0 < attached_after_ns(trace, one.pid) < 5 * SECOND
        (found,) = trace.sql(
            "SELECT count(*) FILTER (kind = 'goroutine') AS waits, count(goid) AS goids FROM waits "
            f"WHERE pid = {one.pid}"
        ).to_pylist()
        assert (found["waits"] > 20) == (level > 0)
        # The kernel's waits have the goroutine as well, from then on.
        assert found["goids"] > found["waits"] + 20


def test_what_nobody_named_is_found_and_read_but_not_probed(tmp_path: Path) -> None:
    """Of the machine, or a cgroup. Probes are for the asking."""
    with cgroup("sltrace-go-found") as group, witness() as inside, witness() as outside:
        group.procs.write_text(str(inside.pid))
        with recorder(tmp_path / "all.slt") as whole:
            inside.ask("work 300")
        found = {t["pid"]: (t["level"], t["why"]) for t in targets(whole.trace)}
        for one in (inside, outside):
            assert found[one.pid] == (0, "")
        assert counters_of(whole.trace)["go_hits"] == 0
        # The kernel join needs no probe in the process.
        joined = f"pid = {inside.pid} AND goid IS NOT NULL"
        assert column(whole.trace, f"SELECT count(*) FROM waits WHERE {joined}")[0]
        options = ("--cgroup", group.name, "--go-level", 2)
        with recorder(tmp_path / "some.slt", *options) as some:
            inside.ask("work 200")
    assert [(t["pid"], t["level"]) for t in targets(some.trace)] == [(inside.pid, 2)]


def test_the_places_of_processes_that_ended_are_free_again() -> None:
    """And what their probes ran stays counted."""
    tags_fd = tags.create_map()
    probes = GoProbes(tags_fd, level=0, cgroup_v1=False, trace_keys=TRACE_KEYS, measured=False)
    probes._slots = 2  # of 256
    try:
        probes.attach()
        seen: list[tuple[int, int]] = []
        with witness() as stays:
            assert probes.add(look_into(identify(stays.pid)), 0, switch_stacks=False)[1] == ""
            for _ in range(3):
                with witness() as ends:
                    process = look_into(identify(ends.pid))
                    assert probes.add(process, 0, switch_stacks=False) == (0, "")
                    refused = probes.add(look_into(identify(stays.pid)), 0, switch_stacks=False)
                    assert "no room" in refused[1]
                    ends.ask("work 100")
                    slots = {one.slot for one in probes._attached.values() if one.runs is None}
                    assert slots == {0, 1}
                    seen.append((process.number, probes.counters()["go_switches"]))
    finally:
        probes.close()
        os.close(tags_fd)
    counts = [count for _, count in seen]
    assert 0 < counts[0] < counts[1] < counts[2]
    ran = [probes._attached[number].runs for number, _ in seen[:2]]
    assert all(runs and runs["go_switch"] > 0 for runs in ran)


def test_one_that_ends_while_it_is_attached_to_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else its place would be taken, and the next with its number taken for it."""
    tags_fd = tags.create_map()
    probes = GoProbes(tags_fd, level=2, cgroup_v1=False, trace_keys=TRACE_KEYS, measured=False)
    try:
        probes.attach()
        with witness() as ends:

            def end(_attached: Attached, _program: int, _offset: int) -> None:
                ends.process.kill()
                ends.process.wait()
                raise CannotRecord("cannot probe it: No such process")

            monkeypatch.setattr(Attached, "put", end)
            process = look_into(identify(ends.pid))
            assert probes.add(process, 2, switch_stacks=False)[0] == 0
        assert map_keys(probes._object.maps["go_targets"].fd, 4) == []
    finally:
        probes.close()
        os.close(tags_fd)


def test_spans_of_one_that_ended_take_no_room() -> None:
    """No probe will see their ends; others' may yet come."""
    tags_fd = tags.create_map()
    probes = GoProbes(tags_fd, level=1, cgroup_v1=False, trace_keys=TRACE_KEYS, measured=False)
    try:
        with witness() as ends, witness() as stays:
            of_one, of_other = (look_into(identify(r.pid)) for r in (ends, stays))
            for process in (of_one, of_other):
                assert probes.add(process, 1, switch_stacks=False) == (1, "")
                probes._attached[process.number].follows_spans = True
            maps = [probes._object.maps[name].fd for name in ("go_spans", "go_within")]
            for fd in maps:
                value = bytes(map_info(fd)[3])
                for process in (of_one, of_other):
                    update_map(fd, struct.pack("<QQ", 7, process.number), value)
            probes.end(of_one)
            for fd in maps:
                assert map_keys(fd, 16) == [struct.pack("<QQ", 7, of_other.number)]
    finally:
        probes.close()
        os.close(tags_fd)
