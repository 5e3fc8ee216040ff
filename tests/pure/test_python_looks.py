"""What is looked at in a process, and when again."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from sltrace.capture.python import targets
from sltrace.capture.python.target import Target
from sltrace.capture.python.targets import Targets
from sltrace.symbols.mappings import Mapping, MappingRecorder
from sltrace.target.memory import Memory
from sltrace.target.python import datadog
from sltrace.target.python import interpreter as finding
from sltrace.target.python.interpreter import Interpreter, NotPython, NotReady
from sltrace.target.python.modules import Modules
from tests.support.pythons import service
from tests.support.pythontargets import PID, SECOND, events, interpreter, nothing


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
