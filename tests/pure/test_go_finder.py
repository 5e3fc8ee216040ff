"""Which processes are found to be Go's, of processes that are none: each by itself."""

from __future__ import annotations

import os
from itertools import count

import pytest

from sltrace.capture.golang import finder
from sltrace.capture.golang.finder import Finder
from sltrace.capture.settings import Filters
from sltrace.symbols.mappings import MappingRecorder
from sltrace.target.go.buildinfo import BuildInfo
from sltrace.target.go.errors import NotGoError, RefusedError, UnknownError
from sltrace.target.go.libraries import Libraries, Library
from sltrace.target.go.process import GoProcess, Identity, identify


def _identity(pid: int) -> Identity:
    return Identity(pid, "/svc", "go1.99.3", "")


def _refuse(_identity: Identity) -> GoProcess:
    raise RefusedError("its version is not known")


def _no_go(_pid: int) -> Identity:
    raise NotGoError("no Go build info")


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> Finder:
    """It has room for one, and every process is of an unknown Go."""
    monkeypatch.setattr(finder, "MAX_IN_ALL", 1)
    monkeypatch.setattr(finder, "LOOK_S", 100.0)
    monkeypatch.setattr(finder, "identify", _identity)
    monkeypatch.setattr(finder, "look_into", _refuse)
    monkeypatch.setattr(finder, "with_children", list)
    return Finder(Filters(), (os.getpid(),))


def test_one_that_is_looked_at_again_takes_no_more_room(looking: Finder) -> None:
    """As every process that is young and refused, 60 times in all."""
    looking.began([os.getpid()])
    for _ in range(3):
        assert looking.look().refused == []
        assert len(looking.unsettled()) == 1
    looking.began([os.getppid()])
    looking.look()
    assert (looking.left_out, len(looking.unsettled())) == (1, 1)


def test_who_was_refused_and_ends_while_it_is_young_is_told(
    looking: Finder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is who becomes another program; not who is the same, of which the kernel told late."""
    monkeypatch.setattr(finder, "MAX_IN_ALL", 9)
    monkeypatch.setattr(finder, "_YOUNG_S", 1000.0)
    looking.began([os.getpid()])
    looking.look()
    looking.began([os.getpid()])
    assert len(looking.unsettled()) == 1
    assert looking.look().refused == []
    assert len(looking.unsettled()) == 1
    refused = (_identity(os.getpid()), "its version is not known")
    monkeypatch.setattr(finder, "_file_of", lambda _pid: (1,))
    looking.began([os.getpid()])
    looking.began([os.getpid()])
    assert looking.unsettled() == [refused]
    assert looking.look().refused == [refused]
    assert looking.unsettled() == [refused]
    monkeypatch.setattr(finder, "_file_of", lambda _pid: None)
    assert looking.look().refused == [refused]
    assert looking.unsettled() == []
    assert looking.is_done


def test_libraries_are_told_up_to_a_limit(looking: Finder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is in the trace from then on, written anew every second; Go programs have their room."""
    loaded = [Library(f"/lib{n}.so", "", BuildInfo("go1.26.6")) for n in range(3)]
    monkeypatch.setattr(Libraries, "of", lambda _self, _pid: loaded)
    monkeypatch.setattr(finder, "_LOADED_S", 0.0)
    monkeypatch.setattr(finder, "identify", _no_go)
    looking.began([os.getpid()])
    assert looking.look().refused == []
    assert [who.exe for who, _ in looking.look().refused] == ["/lib0.so"]
    assert looking.left_out == 1
    monkeypatch.setattr(finder, "identify", _identity)
    looking._not_go.clear()
    looking.began([os.getpid()])
    looking.look()
    assert len(looking.unsettled()) == 1


def test_a_process_that_ends_meanwhile_says_nothing_of_its_file(
    looking: Finder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does one for which too many files were open."""
    monkeypatch.setattr(finder, "identify", lambda _pid: identify(1 << 22))
    with pytest.raises(UnknownError):
        identify(1 << 22)
    looking.began([os.getpid()])
    assert looking.look().refused == []
    monkeypatch.setattr(finder, "identify", _identity)
    looking.look()
    assert len(looking.unsettled()) == 1


def test_what_is_no_go_is_known_by_the_file_that_was_read(
    looking: Finder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process may have become another program since it was asked for its file."""
    files = ((number,) for number in count())
    monkeypatch.setattr(finder, "_file_of", lambda _pid: next(files))
    monkeypatch.setattr(finder, "identify", _no_go)
    looking.look()
    assert not looking._not_go


def test_libraries_that_could_not_be_read_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries = Libraries()
    with monkeypatch.context() as patched:
        patched.setattr(MappingRecorder, "open_file", lambda *_: None)
        assert libraries.of(os.getpid()) == []
    assert not libraries._known
    libraries.of(os.getpid())
    assert libraries._known
