"""Names of what JITs made: from perf maps, which are gone when their processes are."""

from __future__ import annotations

import random
import shutil
from collections.abc import Collection
from pathlib import Path

import pytest

from sltrace.symbols.filebytes import Data
from sltrace.symbols.mappings import MappingRecorder
from sltrace.symbols.perfmap import names_in
from sltrace.symbols.recorder import SymbolRecorder
from sltrace.symbols.resolve import user_frames

MADE = 0x10000
"""Where each of these processes has made code."""


def begin(
    proc: Path, pid: int, perf_map: bytes | None, inner: int | None = None, user: int = 0
) -> None:
    """Lets a process begin that writes a perf map, in a /tmp of its own."""
    tmp = proc / f"tmp{pid}"
    tmp.mkdir()
    if perf_map is not None:
        (tmp / f"perf-{inner or pid}.map").write_bytes(perf_map)
    (proc / f"{pid}" / "root").mkdir(parents=True)
    (proc / f"{pid}" / "root" / "tmp").symlink_to(tmp)
    groups = " ".join(map(str, range(2000)))
    (proc / f"{pid}" / "status").write_text(
        f"Uid:\t{user}\t0\nGroups:\t{groups} \nNSpid:\t{pid}\t{inner or pid}\n"
    )
    (proc / f"{pid}" / "maps").write_text(f"{MADE:x}-{2 * MADE:x} rwxp 00000000 00:00 0 \n")


def names(recorder: MappingRecorder) -> dict[int, str]:
    """Of the one address that each process has."""
    recorder.finish()
    return {frame["pid"]: frame["name"] for frame in user_frames(recorder)}


def test_what_a_process_made_has_names_after_it_has_ended(tmp_path: Path) -> None:
    """When its end is told of, its own folder in /proc leads nowhere."""
    begin(tmp_path, 7, b"10010 20 py::f:/a.py\n", inner=1)
    begin(tmp_path, 8, None)
    recorder = MappingRecorder(tmp_path)
    for pid in (7, 8):
        recorder.observe(pid, [MADE + 0x11])
        shutil.rmtree(tmp_path / f"{pid}")
        recorder.exited(pid)
    assert names(recorder) == {7: "py::f:/a.py", 8: "[unknown]"}
    assert recorder.perf_maps.missed == 0


def test_folders_that_are_too_many_to_be_held_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sltrace.symbols.perfmapfiles._MAX_FOLDERS", 3)
    recorder = MappingRecorder(tmp_path)
    for pid in range(10, 15):
        begin(tmp_path, pid, b"10010 20 made\n")
        recorder.observe(pid, [MADE + 0x11])
    # Those that have the same are not more.
    begin(tmp_path, 16, None)
    (tmp_path / "16" / "root" / "tmp").unlink()
    (tmp_path / "16" / "root" / "tmp").symlink_to(tmp_path / "tmp10")
    (tmp_path / "tmp10" / "perf-16.map").write_bytes(b"10010 20 also\n")
    recorder.observe(16, [MADE + 0x11])
    for pid in (12, 13, 16):
        shutil.rmtree(tmp_path / f"{pid}")
        recorder.exited(pid)
    begin(tmp_path, 17, b"10010 20 later\n")
    recorder.observe(17, [MADE + 0x11])
    shutil.rmtree(tmp_path / "17")
    expected = {10: "made", 11: "made", 12: "made", 13: "[unknown]", 14: "made"}
    assert names(recorder) == expected | {16: "also", 17: "later"}
    assert recorder.perf_maps.missed == 1


def test_perf_maps() -> None:
    text = b"1000 20 py::f:/a b.py\nzz\n2000 10 old\n2000 8 new\n-5 5 bad\nffff\n0x30 0X2 x y\n"
    text += b"\n 1\n10000000000000000 1 far\nffffffffffffffff 1 top\nfffffffffffffffe 1 last"
    found = {
        0x101F: "py::f:/a b.py", 0x2007: "new", 0x2009: "old", 0x31: "x y", (1 << 64) - 2: "last"
    }  # fmt: skip
    assert names_in(text, [*found, 0, -1, -5, 0x1020, 1, (1 << 64) - 1, 1 << 64]) == found
    assert names_in(b"", [5]) == {}
    assert names_in(text, []) == {}
    assert names_in(b"1000 20 a\n1100 20 b\n", [0x1001, 0x1101], 5) == {0x1101: "b"}
    assert names_in(b"1000 20 a\n1100 20 b\n", [0x1101], 15) == {}


def test_of_an_address_used_again_the_later_function_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert names_in(b"1060 100 old\n1000 200 new\n", [0x1080]) == {0x1080: "new"}
    assert names_in(b"1000 200 f\n1040 10 g\n1000 200 h\n", [0x1044]) == {0x1044: "h"}
    # Wherever the text is divided.
    monkeypatch.setattr("sltrace.symbols.perfmap._CHUNK", 100)
    pick = random.Random(5)
    lines: list[str] = []
    covered: dict[int, str] = {}
    for number in range(500):
        start, size = pick.randrange(3000), pick.randrange(1, 60)
        name = f"f{number} {'x' * pick.randrange(70)}"
        lines.append(f"{start:x} {size:x} {name}\n")
        covered |= dict.fromkeys(range(start, start + size), name)
    assert names_in("".join(lines).encode(), range(4000)) == covered


def test_a_stack_that_comes_to_address_0_of_a_process_with_a_perf_map(tmp_path: Path) -> None:
    """Where there are no frame pointers, any word is taken for one."""
    begin(tmp_path, 7, b"1000 20 py::f:/a.py\n")
    recorder = MappingRecorder(tmp_path)
    recorder.observe(7, [0, 0x1010])
    recorder.finish()
    found = {frame["address"]: frame["name"] for frame in user_frames(recorder)}
    assert found == {0: "[unknown]", 0x1010: "py::f:/a.py"}


def test_of_a_long_perf_map_the_end_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the functions are that ran at last; what is missing is told of."""
    monkeypatch.setattr("sltrace.symbols.perfmapfiles._MAX_BYTES", 1 << 16)
    filler = b"90000 10 another\n" * (1 << 13)
    recorder = SymbolRecorder(kernel=False)
    maps = recorder._recorder = MappingRecorder(tmp_path)
    begin(tmp_path, 7, filler + b"10010 20 newest\n")
    begin(tmp_path, 8, b"10010 20 oldest\n" + filler)
    begin(tmp_path, 9, b"10010 20 short\n")
    for pid in (7, 8, 9):
        maps.observe(pid, [MADE + 0x11])
    assert names(maps) == {7: "newest", 8: "[unknown]", 9: "short"}
    assert recorder.refused["perf_maps_cut"] == 1


def test_a_million_functions_are_found() -> None:
    text = "".join(f"{at:x} 10 f{at}\n" for at in range(0, 16 << 20, 16)).encode()
    asked = [5, (8 << 20) + 5, (16 << 20) - 1]
    assert names_in(text, asked) == {address: f"f{address // 16 * 16}" for address in asked}


def test_names_of_one_user_leave_room_for_those_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what cannot be kept costs its process no other names."""
    monkeypatch.setattr("sltrace.symbols.perfmapfiles._MAX_NAMES_OF_USER", 5000)
    recorder = SymbolRecorder(kernel=False)
    maps = recorder._recorder = MappingRecorder(tmp_path)
    for pid, user in ((7, 1000), (8, 1000), (9, 1000), (10, 0)):
        begin(tmp_path, pid, b"10010 20 " + b"x" * 2000 + b"\n", user=user)
        with open(tmp_path / f"{pid}" / "maps", "a") as file:
            file.write("40000-50000 r-xp 00000000 00:05 7 /a.so\n")
        maps.observe(pid, [MADE + 0x11, 0x40005])
        maps.exited(pid)
    recorder_frames = list(user_frames(maps))
    made = {f["pid"]: f["name"][0] for f in recorder_frames if f["address"] < 0x40000}
    assert made == {7: "x", 8: "x", 9: "[", 10: "x"}
    assert [f["name"] for f in recorder_frames if f["address"] > 0x40000] == ["a.so+0x5"] * 4
    assert recorder.refused["perf_maps_refused"] == 1
    assert recorder.refused["ended_processes_refused"] == 0


def test_the_time_for_one_user_leaves_some_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large files with nothing in them cost nothing but to whoever reads them."""
    second, wall, spent = 1_000_000_000, 0, 0
    monkeypatch.setattr("time.monotonic_ns", lambda: wall)
    monkeypatch.setattr("time.thread_time_ns", lambda: spent)

    def slowly(data: Data, addresses: Collection[int], since: int) -> dict[int, str]:
        nonlocal spent
        spent += second
        return names_in(data, addresses, since)

    monkeypatch.setattr("sltrace.symbols.perfmapfiles.names_in", slowly)
    recorder = MappingRecorder(tmp_path)
    for pid in range(10, 40):
        begin(tmp_path, pid, b"10010 20 made\n", user=0 if pid == 39 else 1000)
        recorder.observe(pid, [MADE + 0x11])
    for pid in range(10, 39):
        if pid == 30:
            wall += 20 * second
        recorder.exited(pid)
    # Six, and two for the 20 seconds.
    assert recorder.perf_maps.refused == 29 - 6 - 2
    found = names(recorder)
    assert [pid for pid in found if found[pid] == "made"] == [*range(10, 16), 30, 31, 39]


def test_users_that_are_too_many_have_one_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sltrace.symbols.perfmapfiles._MAX_USERS", 2)
    monkeypatch.setattr("sltrace.symbols.perfmapfiles._MAX_NAMES_OF_USER", 200)
    recorder = MappingRecorder(tmp_path)
    for pid in range(10, 15):
        begin(tmp_path, pid, b"10010 20 made\n", user=pid)
        recorder.observe(pid, [MADE + 0x11])
        recorder.exited(pid)
    assert [name for _, name in sorted(names(recorder).items())] == [
        "made", "made", "made", "[unknown]", "[unknown]",
    ]  # fmt: skip
