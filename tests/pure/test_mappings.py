"""What is known of the mappings of processes: for how long, and how much."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from sltrace.names.processes import EXEC, EXIT, EXIT_LAST
from sltrace.symbols.filebytes import open_regular
from sltrace.symbols.mappings import Mapping, MappingRecorder
from sltrace.symbols.recorder import SymbolRecorder
from sltrace.symbols.resolve import user_frames


def test_programs_of_one_process_are_kept_within_bounds() -> None:
    """Of each address all of them are asked, and a process may execute itself again and again."""
    recorder = MappingRecorder(Path("/nowhere"))
    for number in range(1000):
        recorder.observe(7, [number << 20])
        recorder.executed(7)
    recorder.observe(8, [1])
    recorder.executed(8)
    recorder.observe(7, [5])
    recorder.finish()
    found = list(user_frames(recorder))
    assert len([f for f in found if f["pid"] == 7]) == 64 + 1
    assert len([f for f in found if f["pid"] == 8]) == 1
    assert recorder.refused_processes == 1000 - 64


def test_a_process_ends_with_its_last_thread() -> None:
    """Not with its first, which may end before others, or because another execs."""
    events = [(10, 7, 7, EXIT), (11, 7, 7, EXEC), (10, 8, 8, EXEC), (11, 8, 8, EXIT_LAST)]
    events += [(12, 9, 9, EXIT), (12, 11, 10, EXIT), (13, 11, 11, EXIT), (14, 12, 11, EXIT_LAST)]
    # Another process has its number.
    events += [(15, 12, 12, EXIT_LAST), (16, 12, 12, EXEC)]
    recorder = SymbolRecorder(kernel=False)
    with mock.patch.object(MappingRecorder, "exited") as exited:
        recorder.exited(np.array(events, [(n, "u8") for n in ("ns", "tid", "pid", "kind")]))
    assert exited.mock_calls == [mock.call(8), mock.call(11)]


def test_what_is_mapped_nowhere_is_looked_for_ever_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = MappingRecorder().read_maps(os.getpid())[0]
    second, now, read = 1_000_000_000, 0, []

    class Recorder(MappingRecorder):
        def read_maps(self, pid: int) -> list[Mapping]:
            read.append(now // second)
            return found

    found = [here]
    monkeypatch.setattr("time.monotonic_ns", lambda: now + 1)
    recorder = Recorder()
    for now in range(0, 40 * second, second):
        if now == 30 * second:
            found = [here, replace(here, start=1 << 46, end=(1 << 46) + 4096)]
        assert len(recorder.observe(1, [here.start, 5])) == (now in (0, 31 * second))
    assert read == [0, 1, 3, 7, 15, 23, 31, 32, 34, 38]
    assert recorder.processes[1].find((1 << 46) + 5) == found[1]


def test_a_file_is_opened_in_the_next_process_where_the_first_has_just_ended() -> None:
    """Else libc had neither build id nor symbols for the rest of a recording."""
    ended, there = 7, os.getpid()
    mappings = MappingRecorder().read_maps(there)
    files = {m.file: m for m in mappings if m.path.startswith("/") or m.path == "[vdso]"}

    class Recorder(MappingRecorder):
        def read_maps(self, pid: int) -> list[Mapping]:
            return mappings

    recorder, gone = Recorder(), Path("/nowhere")
    with mock.patch.object(recorder, "_proc", gone):
        recorder.observe(ended, [1])
    assert not recorder.files
    recorder.observe(there, [1])
    assert recorder.files.keys() == files.keys()
    assert None not in recorder.files.values()


def test_files_are_told_apart_where_maps_do_not(tmp_path: Path) -> None:
    """Of two snapshots of a btrfs, say: device and inode are alike there, and the path is."""
    line = "400000-401000 r-xp 00000000 00:2a 257 /usr/bin/web\n"
    recorder = MappingRecorder(tmp_path)
    for pid in (7, 8, 9):
        (tmp_path / f"{pid}" / "map_files").mkdir(parents=True)
        (tmp_path / f"{pid}" / "maps").write_text(line)
        (tmp_path / f"web{min(pid, 8)}").write_text("not the same")
        (tmp_path / f"{pid}/map_files/400000-401000").symlink_to(tmp_path / f"web{min(pid, 8)}")
        recorder.observe(pid, [0x400500])
    first, second, again = (recorder.processes[pid].mappings[0].file for pid in (7, 8, 9))
    assert first != second == again
    assert recorder.files == {first: None, second: None}


def test_a_file_that_is_no_program_is_opened_once(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/code").write_text("made by a JIT")
    (tmp_path / "7").symlink_to(tmp_path)
    recorder, mapping = MappingRecorder(tmp_path), Mapping(0, 4096, 0, "/code", "8:1/5")
    with mock.patch.object(recorder, "read_maps", return_value=[mapping]):
        recorder.observe(7, [1 << 20])
    assert recorder.files == {"8:1/5": None}


def test_a_device_in_the_place_of_a_file_is_not_opened(tmp_path: Path) -> None:
    """To open one may have effects, of a watchdog for example."""
    link, pipe, file = tmp_path / "link", tmp_path / "pipe", tmp_path / "file"
    link.symlink_to("/dev/null")
    os.mkfifo(pipe)
    file.write_bytes(b"text")
    opened: list[tuple[object, int]] = []
    original = os.open

    def watched(path: Path, flags: int, *, dir_fd: int | None = None) -> int:
        opened.append((path, flags))
        return original(path, flags, dir_fd=dir_fd)

    with mock.patch("os.open", watched):
        for path in (link, pipe, tmp_path):
            with pytest.raises(OSError, match="not a regular file"):
                open_regular(path)
        with open_regular(file) as there:
            assert there.read() == b"text"
    assert len(opened) == 4
    assert all(flags & os.O_PATH for _, flags in opened)
