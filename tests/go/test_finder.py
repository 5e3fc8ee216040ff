"""Which processes are found to be Go's, and which are looked into."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sltrace.capture.golang import finder
from sltrace.capture.golang.probing import Probing
from sltrace.capture.golang.source import go_source
from sltrace.capture.settings import Filters, Settings
from sltrace.target.go import process
from sltrace.target.go.errors import RefusedError
from sltrace.target.go.process import GoProcess, Identity, identify, look_into
from sltrace.trace.reader import Trace
from tests.support.golang import VERSIONS, WITNESS, go_program, witness
from tests.support.gorecords import targets
from tests.support.processes import endless, has_begun
from tests.support.recorder import sltrace


def test_no_more_than_so_many_are_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine may run hundreds; none is looked at twice, and those left out are counted."""
    monkeypatch.setattr(finder, "MAX_PROCESSES", 1)
    monkeypatch.setattr(finder, "LOOK_S", 10.0)
    with witness() as one, witness() as other:
        looking = finder.Finder(Filters(), (os.getpid(),))
        first = looking.look()
        assert [p.pid for p in first.processes] in ([one.pid], [other.pid])
        assert looking.left_out == 1
        again = looking.look()
        assert (again.processes, again.refused, looking.left_out) == ([], [], 1)


def test_those_that_ended_leave_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Helpers that come and go must not keep a service from being looked into."""
    monkeypatch.setattr(finder, "MAX_PROCESSES", 2)
    monkeypatch.setattr(finder, "LOOK_S", 10.0)
    looking = finder.Finder(Filters(), (os.getpid(),))
    for _ in range(4):
        with witness() as helper:
            looking.began([helper.pid])
            assert [p.pid for p in looking.look().processes] == [helper.pid]
    with witness() as service:
        looking.began([service.pid])
        assert [p.pid for p in looking.look().processes] == [service.pid]
    assert looking.left_out == 0


def test_of_all_that_come_and_go_so_many_are_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of each is kept until the end, which an hour of builds would make much."""
    monkeypatch.setattr(finder, "MAX_IN_ALL", 1)
    monkeypatch.setattr(finder, "LOOK_S", 10.0)
    looking = finder.Finder(Filters(), (os.getpid(),))
    found = []
    for _ in range(2):
        with witness() as helper:
            looking.began([helper.pid])
            found += looking.look().processes
    assert (len(found), looking.left_out) == (1, 1)


def test_who_was_not_looked_at_in_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Go program by name; of others, that nobody knows what they are."""
    monkeypatch.setattr(finder, "LOOK_S", 10.0)
    with witness() as running:
        looking = finder.Finder(Filters(), (os.getpid(),))
        looking.look()
        looking.began([running.pid, os.getpid(), 1 << 22])
        assert [(i.pid, i.version, why) for i, why in looking.left()] == [
            (running.pid, f"go{VERSIONS[-1]}", "the recording ended before it could be looked into")
        ]
        assert looking.not_looked_at == 0
        monkeypatch.setattr(finder, "LOOK_S", -1.0)
        assert looking.left() == []
        assert looking.not_looked_at == 1


@pytest.mark.bpf
def test_a_command_that_ends_at_once_is_told(tmp_path: Path) -> None:
    """Nobody could look at it, but it was Go's."""
    program = go_program(WITNESS)
    command = ["record", "-o", tmp_path / "s.slt", "--", program]
    done = sltrace(*command)
    assert done.code == 0, done.err
    (target,) = targets(Trace.open(tmp_path / "s.slt"))
    assert (target["version"], target["level"]) == (f"go{VERSIONS[-1]}", None)
    assert target["why"] == "it ended before it could be looked into"


def test_a_file_with_the_number_of_another_is_looked_at(tmp_path: Path) -> None:
    """The inode of what was no Go program becomes that of one, as when a deploy removes a file."""
    path = tmp_path / "service"
    shutil.copyfile("/bin/cat", path)
    path.chmod(0o755)
    number = path.stat().st_ino
    looking = finder.Finder(Filters(), (os.getpid(),))
    with endless([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as helper:
        has_begun(helper)
        looking.began([helper.pid])
        found = looking.look()
        assert (found.processes, found.refused) == ([], [])
    with witness(copy=path) as service:
        assert path.stat().st_ino == number
        looking.began([service.pid])
        found = looking.look()
        while not found.processes and not looking.is_done:
            found = looking.look()
        assert [p.pid for p in found.processes] == [service.pid]


def test_who_becomes_a_go_program_is_looked_at_once() -> None:
    """It is known before as a program of another language, which may load what is Go's."""
    program = go_program(WITNESS)
    with subprocess.Popen(
        ["sh", "-c", f"read _; exec {program}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            looking = finder.Finder(Filters(), (process.pid,))
            assert looking.look().processes == []
            assert process.stdin
            assert process.stdout
            process.stdin.write(b"\n")
            process.stdin.flush()
            process.stdout.readline()
            assert looking.look().processes == []
            looking.began([process.pid])
            assert [p.pid for p in looking.look().processes] == [process.pid]
            assert looking.is_done
        finally:
            process.kill()


def test_who_is_too_young_to_be_refused_is_told_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row of `targets` and its part of meta.json say the same."""

    def look_in_vain(identity: Identity) -> GoProcess:
        raise RefusedError("it is just beginning")

    monkeypatch.setattr(finder, "_YOUNG_S", 1000.0)
    monkeypatch.setattr(finder, "look_into", look_in_vain)
    with witness() as running:
        going = go_source((running.pid,), Settings())
        assert going._look() == ([], True)
        (told,) = going.describe()["processes"]
        assert (told["pid"], told["why"]) == (running.pid, "it is just beginning")
        assert [t for table in going.targets() for t in table["pid"].to_pylist()] == [running.pid]


def test_who_is_just_being_taken_in_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attaching takes a while, on a thread of its own; who is recorded is told meanwhile."""
    with witness() as running:
        going = go_source((running.pid,), Settings())
        told: list[int] = []
        attach = Probing.take

        def attach_slowly(probing: Probing, process: GoProcess) -> None:
            told.extend(table.num_rows for table in going.targets())
            attach(probing, process)

        monkeypatch.setattr(Probing, "take", attach_slowly)
        samplers, _ = going._look()
        assert [s.process.pid for s in samplers] == [running.pid]
        assert len(told) == 1
        assert [table["pid"].to_pylist() for table in going.targets()] == [[running.pid]]


def test_what_processes_of_a_program_share_is_read_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """However many other programs were looked into since; it is 0.3 to 3 MB."""
    monkeypatch.setattr(process, "_MAX_LATEST", 1)
    with witness() as one, witness() as same, witness(copy=tmp_path / "other") as other:
        first, between, again = (look_into(identify(r.pid)) for r in (one, other, same))
        assert again.table is first.table
        assert between.table is not first.table
