"""What `sltrace record` is told to record: processes, cgroups and threads, by any name."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from sltrace.names.cgroups import CgroupNames
from sltrace.names.hierarchy import Hierarchy, choose_hierarchy, processes_below
from sltrace.trace.reader import Trace
from tests.support.cgroups import Cgroup, cgroup, remove
from tests.support.loads import load
from tests.support.recorder import Done, Record, command, one_line, sltrace

pytestmark = pytest.mark.bpf


def test_targets_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "nothing.slt"
    gone = subprocess.Popen(["true"])
    gone.wait()
    for options, code, word in (
        (("--pid", gone.pid), 4, f"no process {gone.pid}"),
        (("--pid", 1 << 30), 4, "no process"),
        (("--cgroup", "/no/such/group"), 4, "/no/such/group"),
        (("--cpu", "4095"), 4, "CPU 4095"),
        (("--cpu", "first"), 2, "'first'"),
        (("--cpu", "3-1"), 2, "'3-1'"),
        (("--policy", "FAST"), 2, "FAST"),
        (("--min-latency", "long"), 2, "long"),
        (("--pid", os.getpid(), "--", "true"), 2, "--pid"),
    ):
        one_line(sltrace("record", "-q", "-o", path, *options), code, word)
    assert not path.exists()


def test_a_cgroup_that_is_renamed_while_probes_are_loaded_is_recorded() -> None:
    if choose_hierarchy().kind == "v2":
        pytest.skip("cgroup v2 renames none")
    names = CgroupNames(choose_hierarchy())
    with cgroup("before") as group:
        wanted = names.subtree_ids(group.name)
        renamed = group.path.rename(f"{group.path}-after")
        try:
            (renamed / "born").mkdir()
            assert names.subtree_ids(group.name) == [*wanted, (renamed / "born").stat().st_ino]
            (renamed / "born").rmdir()
        finally:
            renamed.rename(group.path)


def test_processes_with_threads_in_a_threaded_cgroup_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine = Path("/proc/self/cgroup").read_text().split("\n0::")[-1].strip().strip("/")
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    tree = next((Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"), None)
    if tree is None:
        pytest.skip("no cgroup v2 tree is mounted")
    group = tree / mine / f"threaded-{os.getpid()}"
    hierarchy = Hierarchy("v2", tree, 0, "")
    monkeypatch.setattr("sltrace.names.hierarchy.choose_hierarchy", lambda: hierarchy)
    moved, done = threading.Event(), threading.Event()

    def move() -> None:
        (group / "cgroup.threads").write_text(str(threading.get_native_id()))
        moved.set()
        done.wait(10)

    group.mkdir()
    try:
        (group / "cgroup.type").write_text("threaded")
        thread = threading.Thread(target=move)
        thread.start()
        try:
            assert moved.wait(10)
            assert processes_below([f"{mine}/{group.name}"]) == (os.getpid(),)
        finally:
            done.set()
            thread.join()
    finally:
        remove(group)


def test_a_cgroup_that_is_removed_while_probes_are_loaded(tmp_path: Path) -> None:
    path = tmp_path / "nothing.slt"
    with cgroup("short") as group, cgroup("lasting") as lasting:
        _removed_meanwhile(path, group, 4, f"{group.name} was removed while")
        assert not path.exists()
        group.path.mkdir()
        _removed_meanwhile(path, group, 0, "--cgroup", lasting.name)
        group.path.mkdir()
    assert Trace.open(path).meta["finished"] is True


_LOADED_LATER = """
import pathlib, time
from sltrace.capture.libbpf import Object

loads, asked = Object.load, pathlib.Path({path!r})
def load(self):
    asked.mkdir(exist_ok=True)
    while asked.exists():
        time.sleep(0.01)
    loads(self)
    Object.load = loads
Object.load = load
"""
"""Probes are loaded once the folder that they make then is removed."""


def _removed_meanwhile(path: Path, group: Cgroup, code: int, *more: str) -> None:
    options = [] if code else more
    asked = path.with_suffix(".asked")
    arguments = ("record", "-q", "-d", "0.2s", "-o", path, "--cgroup", group.name, *options)
    recording = command(*arguments, before=_LOADED_LATER.format(path=str(asked)))
    with subprocess.Popen(recording, stderr=subprocess.PIPE, text=True) as process:
        while not asked.exists() and process.poll() is None:
            time.sleep(0.01)
        group.path.rmdir()
        asked.rmdir()
        _, err = process.communicate(timeout=60)
    if code:
        one_line(Done(process.returncode, "", err), code, *more)
    else:
        assert (process.returncode, err) == (0, "")


def test_a_target_that_dies_ends_the_recording(record: Record) -> None:
    with load("victim", "--duration", 20) as victim, record("--pid", victim.pid) as recording:
        time.sleep(0.2)
        victim.process.kill()
        done = recording.wait()
    assert done.code == 0, done.err
    assert recording.trace.meta["finished"] is True
    assert recording.trace.table("waits", ["tid"]).num_rows > 10


def test_killed_it_leaves_quotas_as_they_were_changed(record: Record) -> None:
    with cgroup("lowered", cpus=2) as group, record("--cgroup", group.name) as recording:
        number = group.id
        _until_quotas_are([200_000], recording.path, number)
        group.limit(0.5)
        _until_quotas_are([200_000, 50_000], recording.path, number)
        assert recording.end(signal.SIGKILL).code == -signal.SIGKILL
    assert _quotas(recording.path, number) == [200_000, 50_000]


def _until_quotas_are(wanted: list[int], path: Path, cgroup_id: int) -> None:
    """They are looked up each second."""
    until = time.monotonic() + 30
    while _quotas(path, cgroup_id) != wanted:
        assert time.monotonic() < until
        time.sleep(0.1)


def _quotas(path: Path, cgroup_id: int) -> list[int]:
    return (
        Trace.open(path)
        .sql("SELECT quota_us FROM cgroups WHERE cgroup_id = ? ORDER BY seen_ns", (cgroup_id,))
        .column("quota_us")
        .to_pylist()
    )


def test_a_cgroup_may_be_called_anything(tmp_path: Path) -> None:
    """Whoever may make one names it, in bytes that are no text."""
    folder = choose_hierarchy().mount / os.fsdecode(b"sltrace-\xff\x1b[2J")
    folder.mkdir()
    try:
        done = sltrace("record", "-q", "-o", tmp_path / "names.slt", "-d", "300ms")
    finally:
        folder.rmdir()
    assert (done.code, done.err) == (0, "")
    paths = Trace.open(tmp_path / "names.slt").table("cgroups", ["path"])["path"].to_pylist()
    assert "/sltrace-\ufffd\x1b[2J" in paths


def test_a_thread_may_be_called_anything(tmp_path: Path) -> None:
    """What it is asked for by is in the same bytes."""
    path, name = tmp_path / "named.slt", b"\xffname"
    program = f"open('/proc/self/comm', 'wb').write({name!r}); import time; time.sleep(0.5)"
    comm = os.fsdecode(name)
    options = ("-q", "-o", path, "--comm", comm, "--no-python")
    done = sltrace("record", *options, "--", "python3", "-c", program)
    assert (done.code, done.err) == (0, "")
    assert set(Trace.open(path).table("waits", ["comm"])["comm"].to_pylist()) == {"\ufffdname"}
