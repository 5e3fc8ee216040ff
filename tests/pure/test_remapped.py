"""Addresses at which first one file was mapped, and later another."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sltrace.symbols.mappings import Mapping, MappingRecorder
from sltrace.symbols.recorder import SymbolRecorder
from sltrace.symbols.resolve import user_frames

PAGE = 4096
SECOND = 1_000_000_000
Remap = Callable[..., None]


class Clock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.ns = 1000 * SECOND

    def __call__(self) -> int:
        return self.ns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic_ns", clock)
    return clock


@pytest.fixture
def remap(tmp_path: Path) -> Remap:
    """Says what is mapped in process 7: first page, pages, and file, if it is one."""
    (tmp_path / "7").mkdir()

    def mapped(*mappings: tuple[int, int, str]) -> None:
        lines = [
            f"{at * PAGE:x}-{(at + pages) * PAGE:x} r-xp 00000000 "
            + (f"fd:01 {ord(name[0])} /{name}\n" if name else "00:00 0 \n")
            for at, pages, name in mappings
        ]
        (tmp_path / "7" / "maps").write_text("".join(lines))

    return mapped


def names(recorder: MappingRecorder) -> dict[int, str]:
    """By page."""
    recorder.finish()
    return {frame["address"] // PAGE: frame["name"] for frame in user_frames(recorder)}


def test_what_another_file_had_before_is_not_named_by_either(
    tmp_path: Path, clock: Clock, remap: Remap
) -> None:
    recorder = MappingRecorder(tmp_path)
    first, both, second, last = (page * PAGE + 5 for page in (10, 12, 17, 30))
    remap((10, 4, "a.so"), (30, 1, "c.so"))
    recorder.observe(7, [first, both])
    remap((12, 8, "b.so"), (30, 1, "c.so"))
    clock.ns += SECOND
    assert recorder.observe(7, [both, last]) == []
    assert list(recorder.look_again()) == []
    clock.ns += SECOND
    ((_, fresh),) = recorder.look_again()
    assert [m.path for m in fresh] == ["/b.so"]
    assert list(recorder.look_again()) == []
    recorder.observe(7, [second])
    assert names(recorder) == {10: "a.so+0x5", 12: "[unknown]", 17: "b.so+0x5005", 30: "c.so+0x5"}


def test_what_is_not_mapped_any_more_is_known_no_longer(
    tmp_path: Path, clock: Clock, remap: Remap
) -> None:
    """So that what comes to its place is seen with its first stack."""
    recorder = MappingRecorder(tmp_path)
    remap((10, 1, "a.so"), (20, 1, "c.so"))
    recorder.observe(7, [10 * PAGE + 5])
    recorder.observe(7, [20 * PAGE + 5])
    remap((20, 1, "c.so"))
    clock.ns += 2 * SECOND
    assert [fresh for _, fresh in recorder.look_again()] == [[]]
    remap((10, 1, "b.so"), (20, 1, "c.so"))
    assert recorder.observe(7, [20 * PAGE + 7]) == []
    clock.ns += SECOND
    assert [m.path for m in recorder.observe(7, [10 * PAGE + 7])] == ["/b.so"]
    # What has come back is seen again.
    remap((10, 1, "a.so"))
    recorder.observe(7, [20 * PAGE + 9])
    clock.ns += 2 * SECOND
    assert [[m.path for m in fresh] for _, fresh in recorder.look_again()] == [["/a.so"]]
    assert names(recorder) == {10: "[unknown]", 20: "c.so+0x9"}


def test_the_end_of_a_process_is_no_change(tmp_path: Path, clock: Clock, remap: Remap) -> None:
    recorder = MappingRecorder(tmp_path)
    remap((10, 1, "a.so"))
    recorder.observe(7, [10 * PAGE + 5])
    recorder.observe(7, [10 * PAGE + 6])
    shutil.rmtree(tmp_path / "7")
    clock.ns += 2 * SECOND
    assert [fresh for _, fresh in recorder.look_again()] == [[]]
    recorder.exited(7)
    assert names(recorder) == {10: "a.so+0x6"}


def test_the_last_look_is_written(tmp_path: Path, clock: Clock, remap: Remap) -> None:
    recorder = SymbolRecorder(kernel=False)
    recorder._recorder = MappingRecorder(tmp_path)
    remap((10, 1, "a.so"))
    recorder._recorder.observe(7, [10 * PAGE + 5])
    recorder._recorder.observe(7, [10 * PAGE + 5])
    remap((10, 1, "b.so"))
    (_, mappings), (_, frames) = recorder.finish()
    assert mappings.select(["path", "seen_ns"]).to_pylist() == [
        {"path": "/b.so", "seen_ns": clock.ns}
    ]
    assert frames["name"].to_pylist() == ["[unknown]"]


def test_looking_again_is_little_of_a_cpu(clock: Clock) -> None:
    """However many processes there are, and each comes to its turn."""
    looked: list[int] = []

    class Recorder(MappingRecorder):
        def read_maps(self, pid: int) -> list[Mapping]:
            clock.ns += SECOND // 1000
            looked.append(pid)
            return [Mapping(PAGE, 2 * PAGE, 0, "/a.so", "1")]

    recorder = Recorder(Path("/nowhere"))
    for pid in range(1, 101):
        recorder.observe(pid, [PAGE])
    looked.clear()
    for _ in range(60):
        for pid in range(1, 101):
            recorder.observe(pid, [PAGE])
        for _ in range(20):
            clock.ns += SECOND // 20
            list(recorder.look_again())
    assert 400 < len(looked) < 600
    assert {looked.count(pid) for pid in range(1, 101)} <= {4, 5, 6}


def test_what_a_process_makes_may_grow_and_move(tmp_path: Path, clock: Clock, remap: Remap) -> None:
    """It is the same all the time; its perf map tells what is where."""
    (tmp_path / "7" / "root" / "tmp").mkdir(parents=True)
    (tmp_path / "7" / "root" / "tmp" / "perf-7.map").write_text(f"{10 * PAGE:x} ff0000 made\n")
    recorder = MappingRecorder(tmp_path)
    for pages in range(1, 100):
        remap((10, pages, ""), (10 + pages + 1, 3, ""), (1000, 1, "a.so"))
        recorder.observe(7, [(10 + pages) * PAGE, (11 + pages) * PAGE + 5])
        clock.ns += SECOND
    remap((20, 1, "b.so"))
    recorder.observe(7, [20 * PAGE + 5])
    clock.ns += SECOND
    list(recorder.last_look())
    found = names(recorder)
    assert found.pop(20) == "[unknown]"
    assert set(found.values()) == {"made"}
    assert len(recorder.processes[7].mappings) == 4


def test_who_maps_again_and_again_is_kept_within_bounds(
    tmp_path: Path, clock: Clock, remap: Remap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was where is not known of one that has had too many."""
    monkeypatch.setattr("sltrace.symbols.mappings._MAX_MAPPINGS", 10)
    recorder = MappingRecorder(tmp_path)
    for time_ in range(30):
        remap((10 + 2 * time_, 1, "a.so"))
        recorder.observe(7, [(10 + 2 * time_) * PAGE + 5])
        clock.ns += SECOND
    assert len(recorder.processes[7].mappings) == 1
    assert set(names(recorder).values()) == {"[unknown]"}
