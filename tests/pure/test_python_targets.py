"""Which processes are looked at again, and when."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from sltrace.capture.python import targets, told
from sltrace.capture.python.source import PythonSource
from sltrace.capture.python.target import Target
from sltrace.capture.python.targets import Targets
from sltrace.capture.python.told import Told
from sltrace.names.proc import with_children
from sltrace.symbols.mappings import Mapping, MappingRecorder
from sltrace.target.memory import Memory
from sltrace.target.python import datadog
from sltrace.target.python import interpreter as finding
from sltrace.target.python.interpreter import Interpreter, NotPython, NotReady
from sltrace.target.python.layout import layout_for
from sltrace.target.python.modules import Modules
from tests.support.pythons import service

SECOND = 1_000_000_000
PID = 7


def nothing(pid: int, told: Any) -> None:
    """For what Targets tells of."""


def interpreter() -> Interpreter:
    layout = layout_for(12, b"")
    return Interpreter("3.12.1", "/bin/python", "", "/bin/python", 0, layout, 1, 2, 3, 1, 4)


def events(*told: tuple[int, int, int, int]) -> Any:
    """As the probes hand them over: of each pid, kind, time and parent."""
    return np.array(list(told), [(name, "u8") for name in ("pid", "kind", "ns", "parent")])


def test_no_more_than_there_is_room_for_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--pid 1` is every process of the machine."""
    monkeypatch.setattr(targets, "_is_command", lambda pid: True)
    monkeypatch.setattr(targets, "with_children", tuple)
    added: list[int] = []

    def add(pid: int, told: Any) -> None:
        added.append(pid)

    watched = Targets(add, nothing, np.dtype([("since_ns", "u8")]), nothing)
    watched.start(range(PID, PID + targets.MAX_TARGETS + 3))
    assert watched.refused == 3
    assert added == list(watched.current) == list(range(PID, PID + targets.MAX_TARGETS))


def test_all_are_followed_before_one_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look takes 8 ms, and children of those that the probes do not know are not seen."""
    used, order = 0, list[tuple[str, int]]()
    # One is born while the others are taken in.
    families = iter([(1, 2, 3), (1, 2, 3, 4), (1, 2, 3, 4)])

    def find(pid: int, *_: Any) -> Interpreter:
        nonlocal used
        used += targets._START_NS // 3 + 1
        order.append(("find", pid))
        return interpreter()

    def look(watched: Targets, target: Target, now: int) -> None:
        nonlocal used
        used += targets._START_NS // 2 + 1
        order.append(("ids", target.pid))
        target.looks, target.next_look_ns = 1, now + SECOND

    def add(pid: int, told: Any) -> None:
        order.append(("add", pid))

    monkeypatch.setattr(time, "monotonic_ns", lambda: 0)
    monkeypatch.setattr(time, "thread_time_ns", lambda: used)
    monkeypatch.setattr(targets, "with_children", lambda pids: next(families))
    monkeypatch.setattr(targets, "parent_of", lambda pid: 0)
    monkeypatch.setattr(targets, "Memory", lambda pid: mock.Mock())
    monkeypatch.setattr(targets, "_is_command", lambda pid: False)
    monkeypatch.setattr(finding, "find", find)
    monkeypatch.setattr(Targets, "_look_for_traces", look)
    monkeypatch.setattr(Target, "described", lambda self, layout: np.zeros(1, layout))
    watched = Targets(add, nothing, np.dtype([("since_ns", "u8")]), nothing)
    watched.start([1])
    followed = [("add", pid) for pid in (1, 2, 3, 4)]
    found = [("find", pid) for pid in (1, 2, 3)]
    assert order == [*followed, *found, ("ids", 1), ("ids", 2)]
    watched.look()
    assert order[9:] == [("find", 4), ("ids", 3)]


def test_what_there_was_at_the_start_is_looked_at_for_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used, looked = 0, list[int]()

    def find(pid: int, *_: Any) -> Interpreter:
        nonlocal used
        used += targets.MAX_LOOK_NS
        looked.append(pid)
        raise NotReady

    monkeypatch.setattr(time, "thread_time_ns", lambda: used)
    monkeypatch.setattr(targets, "Memory", lambda pid: mock.Mock())
    monkeypatch.setattr(finding, "find", find)
    watched = Targets(nothing, nothing, np.dtype([("since_ns", "u8")]), nothing)
    for pid in range(20):
        watched.current[pid] = Target(pid, named=pid >= 10, from_ns=time.monotonic_ns())
    watched.look()
    assert looked == [0, 1, 10, 11, 12, 13]


def test_what_was_born_just_before_it_was_taken_in_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The probes knew its parent by then, and tell of its fork and exec after it was looked at."""
    monkeypatch.setattr(Target, "described", lambda self, layout: np.zeros(1, layout))
    watched = Targets(nothing, nothing, np.dtype([("since_ns", "u8")]), nothing)
    parent, child = (Target(pid, named=True, from_ns=SECOND) for pid in (PID, PID + 1))
    child.python = interpreter()
    watched.current = {PID: parent, PID + 1: child}
    watched.feed(events((PID + 1, targets.FORK, SECOND - 9, PID)))
    watched.feed(events((PID + 1, targets.EXEC, SECOND - 5, 0)))
    assert watched.current[PID + 1] is child
    assert child.parent is parent
    watched.feed(events((PID + 1, targets.EXEC, SECOND + 5, 0)))
    assert watched.current[PID + 1] is not child


def test_a_child_of_one_that_is_still_looked_at_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the workers that a server forks in its first tenth of a second."""
    monkeypatch.setattr(Target, "described", lambda self, layout: np.zeros(1, layout))
    told: list[int] = []

    def publish(pid: int, process: Any) -> None:
        told.append(pid)

    watched = Targets(nothing, publish, np.dtype([("since_ns", "u8")]), nothing)
    known, unknown = (Target(pid, named=True, from_ns=0) for pid in (PID, PID + 1))
    known.python = interpreter()
    watched.current = {PID: known, PID + 1: unknown}
    for parent, child in ((PID, 21), (PID + 1, 22)):
        row = {"pid": child, "kind": targets.FORK, "ns": SECOND, "parent": parent}
        watched.feed(np.array([tuple(row.values())], [(name, "u8") for name in row]))
    assert told == [21]


def test_what_a_worker_ran_can_be_read_in_its_parent_once_it_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also if it was there before the recording; but not if it is another program since, or the
    same one again, which may have its places for good."""
    found = {pid: interpreter() for pid in (PID, 8, 10)}
    found[9] = replace(interpreter(), mapped="8-9")
    stacks = {PID: 1, 8: 1, 9: 1, 10: 2}
    monkeypatch.setattr(targets, "_stack_of", stacks.__getitem__)
    monkeypatch.setattr(targets, "Memory", lambda pid: mock.Mock(pid=pid))
    monkeypatch.setattr(targets, "_is_command", lambda pid: False)
    monkeypatch.setattr(targets, "with_children", tuple)
    monkeypatch.setattr(targets, "parent_of", lambda pid: PID if pid != PID else 1)
    monkeypatch.setattr(finding, "find", lambda pid, *_: found[pid])
    monkeypatch.setattr(Targets, "_look_for_traces", lambda *_: None)
    monkeypatch.setattr(Target, "described", lambda self, layout: np.zeros(1, layout))
    watched = Targets(nothing, nothing, np.dtype([("since_ns", "u8")]), nothing)
    watched.start([PID, 8, 9, 10])
    assert [m.pid for m, _ in watched.memories(8)] == [8, PID]
    row = [(pid, targets.EXIT, SECOND, 0) for pid in (8, 9, 10)]
    watched.feed(np.array(row, [(name, "u8") for name in ("pid", "kind", "ns", "parent")]))
    assert [m.pid for m, _ in watched.memories(8)] == [PID]
    assert watched.memories(9) == watched.memories(10) == []


def test_the_stack_of_a_fork_is_where_its_parents_is() -> None:
    code = "import os, time\nif os.fork(): os.write(1, b'0')\ntime.sleep(60)"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as running:
        try:
            assert running.stdout
            running.stdout.read(1)
            (child,) = with_children([running.pid])[1:]
            assert targets._stack_of(child) == targets._stack_of(running.pid) > 0
            assert targets._stack_of(os.getpid()) != targets._stack_of(running.pid)
        finally:
            os.killpg(running.pid, signal.SIGKILL)


def test_ids_of_who_has_ended_are_doubted_until_its_last_rows_are_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And not those of the next process of its number."""
    now = SECOND
    monkeypatch.setattr(time, "monotonic_ns", lambda: now)
    watched = Targets(nothing, nothing, np.dtype([("since_ns", "u8")]), nothing)

    def event(kind: int, pid: int, parent: int = 0) -> None:
        row = {"pid": pid, "kind": kind, "ns": now, "parent": parent}
        watched.feed(np.array([tuple(row.values())], [(name, "u8") for name in row]))

    watched.current[PID] = Target(PID, named=True, from_ns=0, greenlets_behind=True)
    watched.current[PID + 1] = Target(PID + 1, named=True, from_ns=0)
    for child in (PID + 2, PID + 3, PID + 4):
        event(targets.FORK, child, parent=PID)
    event(targets.EXIT, PID + 2)
    event(targets.EXIT, PID + 3)
    event(targets.EXEC, PID + 4)
    assert watched.doubted() == {PID, PID + 2, PID + 3, PID + 4}
    event(targets.FORK, PID + 2, parent=PID + 1)
    assert watched.doubted() == {PID, PID + 3, PID + 4}
    now += 11 * SECOND
    assert watched.doubted() == {PID}


def test_ids_are_doubted_where_asyncio_is_imported_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a service of which all is known, too; and only until the probes' last rows of it."""
    now = SECOND
    imported = {"ddtrace": 1}
    published: list[bool] = []
    patched = False
    layout = np.dtype([("loops_behind", "u1")])
    monkeypatch.setattr(time, "monotonic_ns", lambda: now)
    monkeypatch.setattr(Target, "described", lambda t, _: np.array([(t.loops_behind,)], layout))
    monkeypatch.setattr(Modules, "imported", lambda *_: dict(imported))
    monkeypatch.setattr(datadog, "_is_true", lambda *_: patched)
    known: dict[str, Any] = {"otel": mock.Mock(), "nodes": mock.Mock(), "record": mock.Mock()}
    known |= {"python": interpreter(), "memory": mock.Mock(), "tls": mock.Mock(), "settled": True}
    target = Target(PID, named=True, from_ns=0, **known)

    def publish(pid: int, process: Any) -> None:
        published.append(bool(process["loops_behind"][0]))

    watched = Targets(nothing, publish, layout, nothing)
    watched.current[PID] = target
    for _ in range(20):
        watched.look()
        assert watched.doubted() == set()
        now += SECOND
    imported["asyncio"] = 2
    assert watched.doubted() == {PID}
    assert published == [True]
    # What ddtrace patches a moment after is noticed soon, also where looks are rare by now.
    patched = True
    now += SECOND
    watched.look()
    assert published == [True, False]
    assert watched.doubted() == {PID}
    now += 10 * SECOND
    assert watched.doubted() == set()


def test_a_look_may_notice_first_that_asyncio_was_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Target, "described", lambda t, _: np.zeros(1))
    monkeypatch.setattr(datadog, "_is_true", lambda *_: False)
    monkeypatch.setattr(targets, "find_thread_record", lambda *_: mock.Mock())
    monkeypatch.setattr(Modules, "imported", lambda *_: {"ddtrace": 1, "asyncio": 2})
    known: dict[str, Any] = {"python": interpreter(), "memory": mock.Mock(), "settled": True}
    known |= {"otel": mock.Mock(), "nodes": mock.Mock(), "record": mock.Mock()}
    watched = Targets(nothing, nothing, np.dtype(float), nothing)
    watched.current = {
        PID: Target(PID, named=True, from_ns=0, **known, tls=mock.Mock()),
        # Of this one none was taken before it was known.
        PID + 1: Target(PID + 1, named=True, from_ns=0, **known),
    }
    watched.look()
    assert watched.doubted() == {PID}
    watched.feed(events((PID, targets.EXIT, 5, 0), (PID, targets.FORK, 6, PID + 1)))
    assert watched.doubted() == set()


def test_a_process_is_asked_for_trace_ids_as_long_as_it_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its first span may come after hours; but then it need not be asked each second."""
    now = 0
    looks: list[int] = []
    monkeypatch.setattr(time, "monotonic_ns", lambda: now)
    monkeypatch.setattr(targets, "Memory", lambda pid: object())
    monkeypatch.setattr(targets, "find_thread_record", lambda *_: None)

    def imported(*_: Any) -> dict[str, int]:
        looks.append(now)
        return {}

    monkeypatch.setattr(Modules, "imported", imported)
    target = Target(PID, named=True, from_ns=0, python=interpreter(), settled=True)
    monkeypatch.setattr(Target, "described", lambda *_: np.zeros(1))
    watched = Targets(nothing, nothing, np.dtype(float), nothing)
    watched.current[PID] = target
    for half_second in range(2 * 3600 * 4):
        now = half_second * SECOND // 2
        watched.look()
    gaps = np.diff(looks) / SECOND
    assert gaps[:9].max() == 1
    assert max(gaps[np.array(looks[1:]) < 300 * SECOND]) <= 8
    assert 50 <= gaps.max() <= 60
    assert now - looks[-1] <= 60 * SECOND
    assert len(looks) < 1000


def test_a_process_is_told_of_from_when_it_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what it waited would be a share of time in which nothing was seen of it."""
    now, found = 0, interpreter()
    monkeypatch.setattr(time, "monotonic_ns", lambda: now)
    monkeypatch.setattr(targets, "Memory", lambda pid: mock.Mock())
    monkeypatch.setattr(targets, "parent_of", lambda pid: 1)
    monkeypatch.setattr(finding, "find", lambda *_: found)
    monkeypatch.setattr(Targets, "_look_for_traces", lambda *_: None)
    monkeypatch.setattr(Target, "described", lambda self, layout: np.zeros(1, layout))
    watched = Targets(nothing, nothing, np.dtype([("since_ns", "u8")]), nothing)
    watched.current[PID] = Target(PID, named=True, from_ns=1)
    watched.feed(events((PID, targets.EXEC, 2 * SECOND, 0)))
    service = watched.current[PID]
    assert service.told_from_ns == 2 * SECOND
    now = 20 * SECOND
    watched.look()
    assert service.told_from_ns == now
    assert service.from_ns == 2 * SECOND
    now = 21 * SECOND
    # One before its parent was known, one after that, told of half a second later.
    early, late = 19 * SECOND, 20 * SECOND + 7
    watched.feed(events((8, targets.FORK, early, PID), (9, targets.FORK, late, PID)))
    assert [watched.current[pid].told_from_ns for pid in (8, 9)] == [now, late]
    watched.feed(events((8, targets.EXIT, 20 * SECOND, 0)))
    assert [t.told_from_ns for t in watched.newly_ended()] == [20 * SECOND]


def test_who_was_not_looked_at_in_time_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nobody would know why a hundred services of a supervisor have no stacks."""
    monkeypatch.setattr(time, "monotonic_ns", lambda: 10 * SECOND)
    monkeypatch.setattr(Target, "described", lambda self, layout: np.zeros(1, layout))
    watched = Targets(nothing, nothing, np.dtype([("since_ns", "u8")]), nothing)
    watched.current[PID] = Target(PID, named=True, from_ns=0, settled=True)
    for pid in range(20, 26):
        watched.feed(events((pid, targets.FORK, 7, PID), (pid, targets.EXEC, SECOND, 0)))
    watched.current[20].foreign = watched.current[21].settled = True
    # A program that lasts a moment, one that is there for a while, and one that executes another.
    watched.feed(events((22, targets.EXIT, SECOND + 9, 0), (23, targets.EXIT, 2 * SECOND, 0)))
    watched.feed(events((24, targets.EXEC, 3 * SECOND, 0)))
    assert watched.unknown == 2
    watched.current[26] = Target(26, named=True, from_ns=0)
    watched.current[27] = Target(27, named=False, from_ns=10 * SECOND - 9)
    watched.close()
    # Of 24's second program and of 25, too.
    assert watched.unknown == 4
    whys = {target.pid: target.why for target in watched.told()}
    assert whys == {PID: "", 26: "the recording ended before it could be looked into"}


def test_nothing_is_told_of_a_process_from_after_the_end() -> None:
    target = Target(PID, named=True, from_ns=1, python=interpreter(), read_ns=50)
    for end, since in ((40, 40), (60, 50)):
        (there,) = Told().rows([], [target], end)
        assert there["from_ns"].to_pylist() == [since]


def test_each_process_that_ended_has_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a master that forks one for each job."""
    monkeypatch.setattr(Target, "described", lambda self, layout: np.zeros(1, layout))
    watched = Targets(nothing, nothing, np.dtype([("since_ns", "u8")]), nothing)
    master = Target(PID, named=True, from_ns=0, python=interpreter(), settled=True, read_ns=0)
    watched.current[PID] = master
    recorded = PythonSource([])
    recorded._targets = watched
    jobs = range(100, 100 + 3 * targets.MAX_TARGETS)
    for pid in jobs:
        watched.feed(events((pid, targets.FORK, pid, PID), (pid, targets.EXIT, pid + 1, 0)))
        if pid % 1000 == 0:
            recorded.targets()
    ended, there = recorded.targets()
    assert ended["pid"].to_pylist() == ended["from_ns"].to_pylist() == list(jobs)
    assert there["pid"].to_pylist() == [PID]
    assert watched.newly_ended() == []
    monkeypatch.setattr(told, "MAX_ENDED", 5)
    few, limited = [Target(n, named=True, from_ns=n, until_ns=n) for n in range(4)], Told()
    limited.rows(few, [], SECOND)
    ended, _ = limited.rows(few, [], SECOND)
    assert ended["pid"].to_pylist() == [0, 1, 2, 3, 0]
    assert limited.refused == 3


def test_what_a_process_ran_is_read_in_the_parent_of_the_last_of_its_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(targets, "Memory", lambda pid: mock.Mock(pid=pid))
    monkeypatch.setattr(Target, "described", lambda self, layout: np.zeros(1, layout))
    watched = Targets(nothing, nothing, np.dtype([("since_ns", "u8")]), nothing)
    for pid in (PID, PID + 1):
        watched.current[pid] = Target(pid, named=True, from_ns=0, python=interpreter())
    for parent in (PID, PID + 1):
        watched.feed(events((20, targets.FORK, parent, parent), (20, targets.EXIT, SECOND, 0)))
    assert [memory.pid for memory, _ in watched.memories(20)] == [PID + 1]


def test_nobody_is_looked_at_after_the_end() -> None:
    watched = mock.Mock(running=set(), **{"newly_mapped.return_value": []})
    recorded = PythonSource([])
    recorded._probes, recorded._targets, recorded._frames = mock.Mock(), watched, mock.MagicMock()
    recorded._drained = mock.MagicMock()
    recorded._drained["waits"].take.return_value = None
    recorded._context, recorded._counters, recorded._since_ns = mock.Mock(), mock.Mock(), 0
    list(recorded.rows())
    assert watched.look.call_count == 1
    recorded.detach(SECOND)
    list(recorded.rows())
    assert watched.look.call_count == 1


def test_a_library_is_searched_once_for_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor execs hundreds of services of the same libraries, of 0.4 ms each."""
    searched: list[str] = []

    def relocations(name: str) -> list[Any]:
        searched.append(name)
        return []

    elf = mock.Mock(relocations=relocations)
    libraries = [Mapping(n, n + 1, 0, f"/lib{n}.so", f"8:1/{n}") for n in range(40)]
    monkeypatch.setattr(MappingRecorder, "read_maps", lambda *_: libraries)
    monkeypatch.setattr(MappingRecorder, "open_elf", lambda *_: elf)
    monkeypatch.setattr(targets, "Memory", lambda pid: object())
    monkeypatch.setattr(Modules, "imported", lambda *_: {})
    monkeypatch.setattr(Target, "described", lambda *_: np.zeros(1))
    watched = Targets(nothing, nothing, np.dtype(float), nothing)
    for pid in range(5):
        target = Target(pid, named=False, from_ns=0, python=interpreter(), settled=True)
        watched.current[pid] = target
        watched._look_for_traces(target, 0)
    assert len(searched) == len(libraries)


def test_a_program_that_could_not_be_read_may_have_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who ends while it is looked at says nothing of others that run the same file."""
    foreign: set[str] = set()
    pipe = subprocess.PIPE
    with subprocess.Popen(["sh", "-c", "echo; read _"], stdin=pipe, stdout=pipe) as running:
        assert running.stdout
        assert running.stdout.readline()
        memory = Memory(running.pid)
        try:
            with monkeypatch.context() as patched:
                patched.setattr(MappingRecorder, "open_elf", lambda *_: None)
                with pytest.raises(NotPython):
                    finding.find(running.pid, memory, foreign)
            assert not foreign
            with pytest.raises(NotPython):
                finding.find(running.pid, memory, foreign)
            assert len(foreign) == 1
        finally:
            memory.close()
            running.kill()


def test_a_program_in_the_middle_of_its_exec_is_asked_again(tmp_path: Path) -> None:
    """Its files are not mapped yet; what Linux shows in any address space is."""
    (tmp_path / str(PID)).mkdir()
    vsyscall = "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]\n"
    (tmp_path / str(PID) / "maps").write_text(vsyscall)
    memory = Memory(os.getpid())
    try:
        with pytest.raises(NotReady):
            finding.find(PID, memory, set(), tmp_path)
    finally:
        memory.close()


def test_looking_for_trace_ids_takes_no_more_than_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of many workers takes 5 ms; all get their turn."""
    now = used = 0
    looks: list[int] = []
    monkeypatch.setattr(time, "monotonic_ns", lambda: now)
    monkeypatch.setattr(time, "thread_time_ns", lambda: used)

    def look(_targets: Targets, target: Target, now: int) -> None:
        nonlocal used
        used += 5_000_000
        looks.append(target.pid)
        target.next_look_ns = now + SECOND

    monkeypatch.setattr(Targets, "_look_for_traces", look)
    watched = Targets(nothing, nothing, np.dtype(float), nothing)
    for pid in range(100):
        target = Target(pid, named=False, from_ns=0, python=interpreter(), settled=True)
        watched.current[pid] = target
    for half_second in range(1, 41):
        now = half_second * SECOND // 2
        watched.look()
    assert len(looks) == 40 * 5
    assert sorted(looks[:100]) == sorted(looks[100:]) == list(range(100))


@pytest.mark.parametrize("version", ["3.10", "3.11"])
def test_the_gil_may_be_held_by_a_thread_of_another_interpreter(version: str) -> None:
    """As in mod_wsgi and uWSGI: before 3.12 all interpreters share it."""
    with service(version, "subinterpreter", 30) as process:
        memory = Memory(process.pid)
        try:
            found = finding.find(process.pid, memory, set())
            assert found.interpreters == 2
            states = list(finding.threads(memory, found.layout, found.main))
            # The main thread holds it until it sleeps.
            deadline = time.monotonic() + 20
            while memory.u64(found.gil + 8) in states:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert finding.find(process.pid, memory, set()).interpreters == 2
        finally:
            memory.close()


def test_what_is_not_recognised_is_told_at_once_and_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process that is busy may not hold still while it is looked at; others never do."""
    now = 0
    tries: list[int] = []
    monkeypatch.setattr(time, "monotonic_ns", lambda: now)
    monkeypatch.setattr(targets, "Memory", lambda pid: mock.Mock())
    monkeypatch.setattr(targets, "_is_command", lambda pid: False)
    monkeypatch.setattr(targets, "with_children", tuple)
    monkeypatch.setattr(Targets, "_look_for_traces", lambda *_: None)
    monkeypatch.setattr(Target, "described", lambda self, layout: np.zeros(1, layout))

    def find(pid: int, *_: Any) -> Interpreter:
        tries.append(pid)
        if pid == PID and len(tries) > 3:
            return interpreter()
        raise finding.Unrecognised("it does not hold still")

    monkeypatch.setattr(finding, "find", find)
    watched = Targets(nothing, nothing, np.dtype([("since_ns", "u8")]), nothing)
    watched.start([PID, PID + 1, PID + 2])
    whys = [target.why for target in watched.told()]
    assert whys == ["it does not hold still"] * 3
    end = (PID + 2, targets.EXIT, SECOND, 0)
    watched.feed(np.array([end], [(name, "u8") for name in ("pid", "kind", "ns", "parent")]))
    for half_second in range(200):
        now = half_second * SECOND // 2
        watched.look()
    told = {target.pid: target for target in (*watched.newly_ended(), *watched.told())}
    assert [told[pid].why for pid in sorted(told)] == ["", *whys[1:]]
    assert told[PID].python
    assert told[PID + 1].settled
    assert tries.count(PID + 1) < 10


def test_who_forks_who_forks_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "_is_command", lambda pid: False)
    monkeypatch.setattr(targets, "with_children", tuple)
    monkeypatch.setattr(Target, "described", lambda self, layout: np.zeros(1, layout))
    watched = Targets(nothing, nothing, np.dtype([("since_ns", "u8")]), nothing)
    first = Target(PID, named=True, from_ns=0)
    first.python = interpreter()
    watched.current = {PID: first}
    names = ("pid", "kind", "ns", "parent")
    for pid in range(PID, PID + 100):
        fork, end = (pid + 1, targets.FORK, SECOND, pid), (pid, targets.EXIT, SECOND, 0)
        watched.feed(np.array([fork, end], [(name, "u8") for name in names]))
    (last,) = watched.current.values()
    depth = 0
    while last := last.parent:  # type: ignore[assignment]
        depth += 1
    assert 1 <= depth <= 3


def test_numbers_that_no_interpreter_has_end_the_look_at_one_process() -> None:
    target = Target(PID, named=True, from_ns=3)
    target.python = replace(interpreter(), gil=-1)
    told = target.described(np.dtype([("since_ns", "u8"), *((n, "u8") for n in target._values())]))
    assert told["since_ns"] == 3
    assert told["gil"] == 0
    assert target.python is None
    assert target.refused
    assert target.settled
    assert "not understood" in target.why
