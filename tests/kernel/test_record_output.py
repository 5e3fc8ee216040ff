"""Where `sltrace record` writes: what it replaces, whose it is, and a disk that is full."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sltrace.trace.reader import Trace
from tests.support.loads import load
from tests.support.recorder import Record, command, one_line, sltrace

pytestmark = pytest.mark.bpf

_NOBODY = 65534


def test_output_that_exists_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "twice.slt"
    assert sltrace("record", "-q", "-o", path, "-d", "200ms").code == 0
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*")}
    one_line(sltrace("record", "-q", "-o", path, "-d", "200ms"), 6, str(path), "--force")
    assert {p: p.stat().st_mtime_ns for p in path.rglob("*")} == before
    assert sltrace("record", "-q", "-f", "-o", path, "-d", "200ms").code == 0
    assert Trace.open(path).meta["finished"] is True


def test_a_recording_under_way_is_not_replaced(record: Record) -> None:
    with record() as recording:
        done = sltrace("record", "-q", "-f", "-o", recording.path, "-d", "200ms")
        one_line(done, 6, "being written by another sltrace")
    assert recording.trace.meta["finished"] is True
    assert recording.trace.notes == []


def test_force_does_not_remove_what_is_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "letters"
    path.mkdir()
    (path / "letter").write_text("dear", encoding="ascii")
    done = sltrace("record", "-q", "-f", "-o", path, "-d", "200ms")
    assert done.code == 6, done.err
    assert (path / "letter").read_text(encoding="ascii") == "dear"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    one_line(sltrace("record", "-q", "-o", tmp_path / "no" / "such" / "x.slt"), 6, "x.slt")
    (tmp_path / "file").touch()
    one_line(sltrace("record", "-q", "-o", tmp_path / "file" / "x.slt"), 6, "x.slt")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_fills_up(small_disk: Path) -> None:
    """The recording ends before, and the trace is whole: names and all that comes last, too."""
    path = small_disk / "full.slt"
    options = ("-d", "25", "--stacks", "kernel", "--comm", "pingpong")
    with load("pingpong", "--duration", 30, "--pairs", 4, "--rate", 5000):
        done = sltrace("record", "-q", "-o", path, *options)
    one_line(done, 6, "nearly full", str(path))
    trace = Trace.open(path)
    assert trace.notes == []
    assert trace.meta["ended"] == "the disk is nearly full"
    assert trace.sql("SELECT count(*) AS n FROM waits").to_pylist()[0]["n"] > 1000
    assert trace.table("frames").num_rows > 10
    disk = os.statvfs(small_disk)
    assert disk.f_bavail * disk.f_frsize > 0


def test_a_disk_that_another_fills(small_disk: Path) -> None:
    path = small_disk / "full.slt"
    filling = command("record", "-o", path, "-d", "25")
    with subprocess.Popen(filling, stderr=subprocess.PIPE, text=True) as recorder:
        assert recorder.stderr
        recorder.stderr.readline()
        assert Trace.open(path).notes == [
            "it is still being recorded: up to the last second is missing"
        ]
        with contextlib.suppress(OSError), open(small_disk / "other", "wb", buffering=0) as other:
            while other.write(bytes(4096)):
                pass
        said = recorder.communicate()[1]
    assert "No space left on device" in said.splitlines()[-1]
    assert recorder.returncode == 6
    trace = Trace.open(path)
    assert trace.notes == [
        "its recorder could not write any more (No space left on device): up to the last second is "
        "missing"
    ]


def test_nobody_has_to_listen(tmp_path: Path) -> None:
    """Neither a pipe whose reader is gone nor a full disk below standard error ends it."""
    path = tmp_path / "alone.slt"
    unheard = command("record", "-o", path, "--", "sh", "-c", "exit 3")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(unheard, stderr=full, stdout=subprocess.PIPE, check=False)
    assert done.returncode == 3
    assert b"sh ended" in done.stdout
    assert Trace.open(path).notes == []


_SLOW_TO_DETACH = """
import time
from sltrace.capture.probes import LibbpfProbes

detach = LibbpfProbes.detach
LibbpfProbes.detach = lambda self: (detach(self), time.sleep(2))
"""


def test_what_is_recorded_no_more_is_after_the_end(tmp_path: Path) -> None:
    """Of the time after the last wait, in which nothing was seen, nobody is said to have run."""
    path = tmp_path / "slow.slt"
    options = ("record", "-q", "-o", path, "-d", "1")
    subprocess.run(command(*options, before=_SLOW_TO_DETACH), check=True)
    trace = Trace.open(path)
    (found,) = trace.sql("SELECT max(end_ns) AS last FROM waits").to_pylist()
    assert 0 <= trace.meta["clock"]["end_ns"] - found["last"] < 1_000_000_000


def test_traces_are_private(record: Record) -> None:
    with record() as recording:
        time.sleep(0.6)
    for path in (recording.path, *recording.path.rglob("*")):
        found = path.stat()
        assert stat.S_IMODE(found.st_mode) == (0o700 if path.is_dir() else 0o600), path
        assert (found.st_uid, found.st_gid) == (os.geteuid(), os.getegid())


def test_traces_belong_to_the_user_behind_sudo(tmp_path: Path) -> None:
    path = tmp_path / "sudo.slt"
    env = {"SUDO_UID": str(_NOBODY), "SUDO_GID": str(_NOBODY - 1)}
    done = sltrace("record", "-q", "-o", path, "-d", "1200ms", env=env)
    assert done.code == 0, done.err
    paths = (path, *path.rglob("*"))
    assert len(paths) > 8
    for each in paths:
        found = each.stat()
        assert (found.st_uid, found.st_gid) == (_NOBODY, _NOBODY - 1), each
        assert stat.S_IMODE(found.st_mode) == (0o700 if each.is_dir() else 0o600), each
