"""What may stall beside a recording, and must not hold it up: the disk, the terminal."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sltrace.trace.reader import Trace
from tests.support.loads import load, queued_ns
from tests.support.programs import ROOT
from tests.support.recorder import command, recorder
from tests.support.terminal import terminal

pytestmark = pytest.mark.bpf

_FIFREEZE, _FITHAW = 0xC0045877, 0xC0045878
"""include/uapi/linux/fs.h"""
_STALL_S = 6
_CTRL_S = "\x13"


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Path]:
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with open(image, "wb") as file:
        file.truncate(200 << 20)
    for step in (["mkfs.ext4", "-q", image], ["mount", "-o", "loop", image, disk]):
        done = subprocess.run([*map(str, step)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot make a file system to freeze: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_stalls_loses_nothing(ext4: Path) -> None:
    # Rings and records that are not yet rows have room for 3 s of this; 32 MB of rows for 15 s.
    pace = ("--pairs", 4, "--rate", 12_000, "--spread", "--via", "futex")
    folder = os.open(ext4, os.O_RDONLY)
    with (
        load("pingpong", "--duration", _STALL_S + 20, *pace) as running,
        recorder(ext4 / "stalled.slt") as recording,
    ):
        time.sleep(1.3)
        frozen = time.monotonic_ns()
        fcntl.ioctl(folder, _FIFREEZE, 0)
        try:
            time.sleep(_STALL_S)
        finally:
            fcntl.ioctl(folder, _FITHAW, 0)
            os.close(folder)
        thawed = time.monotonic_ns()
        recording.end()
        running.stop()
        running.outcome()
    trace = recording.trace
    query = "SELECT count(*) AS n FROM waits WHERE end_ns BETWEEN ? AND ?"
    assert trace.sql(query, (frozen, thawed)).to_pylist()[0]["n"] > 100_000
    query = "SELECT sum(value) AS n FROM counters WHERE name = 'ring_full'"
    assert trace.sql(query).to_pylist()[0]["n"] in (0, None)


def test_a_stopped_terminal_stops_only_the_status_line(tmp_path: Path) -> None:
    path = tmp_path / "stopped.slt"
    with (
        load("pingpong", "--duration", 60, "--rate", 1000) as running,
        terminal(command("record", "-o", path), cwd=ROOT) as window,
    ):
        window.wait_for(lambda w: "waits" in w.text, "no status line")
        window.press(_CTRL_S)
        queued = -queued_ns(window.process.pid)
        time.sleep(3)
        # The recorder cannot write while it waits for a CPU itself.
        queued += queued_ns(window.process.pid)
        killed = time.monotonic_ns()
        window.process.kill()
        running.stop()
        running.outcome()
    last = Trace.open(path).sql("SELECT max(end_ns) AS ns FROM waits").to_pylist()[0]["ns"]
    assert killed - last < 1_500_000_000 + queued
