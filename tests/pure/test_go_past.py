"""Of Go processes that have ended nothing large is kept, and nothing that they told is lost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from sltrace.capture.golang import past as module
from sltrace.capture.golang.finder import Finder
from sltrace.capture.golang.past import Past
from sltrace.capture.golang.sampler import Samples
from sltrace.capture.golang.source import GoSource
from sltrace.capture.golang.stacks import GoStacks
from sltrace.symbols.filebytes import FileBytes
from sltrace.target.go.pclntab import Location
from sltrace.target.go.process import Identity


class _Table:
    """Of a program whose functions are called as their addresses."""

    def locate(self, address: int, *, placed: bool = True) -> Location:
        return Location(f"f{address}", "a.go" if placed else "", address if placed else 0)


@dataclass(eq=False)
class _Process:
    pid: int
    number: int
    program: int = 5
    bias: int = 0
    offsets_from: str = "dwarf"

    def __post_init__(self) -> None:
        self.table = _Table()
        self.image = mock.Mock(data=b"")
        self.identity = Identity(self.pid, "/bin/app", "go1.26", "ab")
        self.offsets = mock.Mock(**{"histogram.bounds": (np.empty(0), np.empty(0))})


@dataclass
class _Sampler:
    process: _Process
    ended_ns: int | None = None
    failure: str = ""
    cpu_ns: int = 10
    ticks: int = 2
    noted: int = 0

    def __post_init__(self) -> None:
        self.samples = Samples()


def named(tables: Any) -> list[dict[str, Any]]:
    return [row for table in tables for row in table.to_pylist()]


def test_addresses_are_named_by_and_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once; with file and line unless very many wait."""
    monkeypatch.setattr(module, "_NAMING_NS", 100_000)
    monkeypatch.setattr(module, "_MANY", 300)
    past = Past()
    past.name(_Process(7, 1), range(1, 201))  # type: ignore[arg-type]
    past.name(_Process(8, 2), range(1, 201))  # type: ignore[arg-type]
    first = named(past.frames())
    assert 0 < len(first) < 100
    rest: list[dict[str, Any]] = []
    for _ in range(20):
        rest += named(past.frames())
    assert list(past.unnamed) == []
    frames = first + rest
    assert {(f["pid"], f["address"]) for f in frames} == {
        (pid, address) for pid in (7, 8) for address in range(1, 201)
    }
    assert len(frames) == 400
    assert all(f["name"] == f"f{f['address'] - 1}" for f in frames)
    assert 100 <= sum(f["file"] is None for f in frames) == past.unplaced < 200


def test_a_file_that_was_written_over_names_nothing(source: GoSource, tmp_path: Path) -> None:
    """Its functions are those of another program by then."""
    path = tmp_path / "service"
    path.write_bytes(b"first")
    process = _Process(7, 1)
    with path.open("rb") as file:
        process.image.data = FileBytes(file)
    take_in(source, process)
    take_in(source, _Process(8, 2))
    path.write_bytes(b"second")
    frames = named(rows for _, rows in source.finish())
    assert {(f["pid"], f["name"], f["file"]) for f in frames} == {
        (7, "[its file was overwritten]", None),
        (8, "f10", "a.go"),
        (8, "f11", "a.go"),
    }
    assert source.describe()["addresses_overwritten"] == 2


def test_what_is_not_named_is_there_for_the_end() -> None:
    past = Past()
    process = _Process(7, 1)
    past.name(process, {3, 1, 2})  # type: ignore[arg-type]
    assert [(p.pid, list(addresses)) for p, addresses in past.unnamed] == [(7, [1, 2, 3])]
    past.name(process, ())  # type: ignore[arg-type]
    assert len(list(past.unnamed)) == 1


@pytest.fixture
def source() -> GoSource:
    finder = mock.Mock(spec=Finder, left_out=0, not_looked_at=0)
    finder.left.return_value = finder.unsettled.return_value = []
    return GoSource(finder, 1, (), share=None, expected=False)


def take_in(source: GoSource, process: _Process) -> _Sampler:
    sampler: Any = _Sampler(process)
    number = process.number
    source._samplers[number] = source._there[number] = sampler
    source._reasons[number] = mock.Mock()
    source._probing._reached[number] = 1, ""
    source._probing._from_ns[number] = 100
    source._stacks.addresses[number] = {11, 12}
    return sampler  # type: ignore[no-any-return]


def rounds(source: GoSource, count: int) -> list[tuple[str, Any]]:
    """The rings are emptied, and rows made of what was in them, so many times."""
    found = []
    for _ in range(count):
        source._empty(1 << 20)
        found += list(source.rows())
    return found


def test_who_has_ended_is_kept_until_the_rings_were_emptied(source: GoSource) -> None:
    sampler = take_in(source, _Process(7, 1))
    # By exec the same process is another program since.
    take_in(source, _Process(7, 2))
    assert rounds(source, 5) == []
    sampler.ended_ns = 900
    assert rounds(source, 5) == [], "the probes are in it still"
    del source._there[1]
    # As long as they cannot be emptied it may have told more.
    assert list(source.rows()) == list(source.rows()) == []
    assert rounds(source, 1) == []
    assert set(source._samplers) == set(source._reasons) == {1, 2}
    frames = rounds(source, 3)
    assert [(t, [r["address"] for r in rows.to_pylist()]) for t, rows in frames] == [
        ("frames", [11, 12])
    ]
    assert set(source._samplers) == set(source._reasons) == {2}
    assert set(source._probing._reached) == set(source._stacks.addresses) == {2}

    (targets,) = source.targets()
    told = [(r["pid"], r["level"], r["from_ns"], r["until_ns"]) for r in targets.to_pylist()]
    assert told == [(7, 1, 100, 900), (7, 1, 100, None)]
    described = source.describe()
    assert [(p["pid"], p["nth"]) for p in described["processes"]] == [(7, 1), (7, 2)]
    assert (described["sampler_cpu_ns"], described["sampler_ticks"]) == (20, 4)
    assert described["sampled"] == 8
    rest = [rows.to_pylist() for table, rows in source.finish() if table == "frames"]
    assert [[r["address"] for r in rows] for rows in rest] == [[11, 12]]


def test_no_reading_is_of_a_time_after_the_recording(source: GoSource) -> None:
    """One that had begun when the end came."""
    sampler = take_in(source, _Process(7, 1))
    source.detach(500)
    sampler.samples.gauges += [(ns, "idle_ps", None, 1.0) for ns in (400, 600, 500)]
    ((table, rows),) = source.rows()
    assert (table, rows["ns"].to_pylist()) == ("gauges", [400, 500])


def test_addresses_that_were_taken_make_room() -> None:
    stacks = GoStacks()
    process: Any = _Process(7, 1)
    list(stacks.sampled(process, {1: [10, 20], 2: [20, 30]}))
    assert stacks._known == 3
    assert stacks.take(1) == {10, 20, 30}
    assert stacks.take(1) == set()
    assert stacks._known == 0
