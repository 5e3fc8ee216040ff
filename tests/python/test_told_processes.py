"""What the probes keep of processes that end, or become another program, while examined."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sltrace.capture import tags
from sltrace.capture.maps import lookup, map_keys
from sltrace.capture.python.probes import PythonProbes
from sltrace.capture.python.target import Target
from sltrace.capture.python.targets import MAX_TARGETS, Targets
from sltrace.capture.settings import Settings
from tests.support.processes import has_begun

pytestmark = pytest.mark.bpf

SLOW_TO_END = """
import ctypes, os, threading
def ends():
    # Files of its own: to close this one takes 30 ms, after sched_process_exit.
    assert not ctypes.CDLL(None).unshare(0x400)
    file = os.memfd_create("large")
    for _ in range(256):
        os.write(file, bytes(1 << 20))
    print(threading.get_native_id(), flush=True)
print(flush=True)
input()
for _ in range(3):
    thread = threading.Thread(target=ends)
    thread.start()
    thread.join()
input()
"""
NOBODY = 1 << 22
"""The first number that no process can have."""


@pytest.fixture
def probes() -> Iterator[PythonProbes]:
    fd = tags.create_map()
    loaded = PythonProbes(Settings(), fd, cgroup_v1=False)
    try:
        loaded.attach()
        yield loaded
    finally:
        loaded.close()
        os.close(fd)


def told(probes: PythonProbes, pid: int, from_ns: int, *, minor: int = 0) -> NDArray[Any]:
    process = Target(pid, named=True, from_ns=from_ns).described(probes.process_layout)
    process["minor"] = minor
    process["ready"] = minor > 0
    return process


def kept(probes: PythonProbes, pid: int) -> Any:
    table = probes._object.maps["python_processes"].fd
    key = pid.to_bytes(4, "little")
    if key not in map_keys(table, 4):
        return None
    return lookup(table, key, probes.process_layout.itemsize).view(probes.process_layout)[0]


def test_who_has_ended_is_not_put_back(probes: PythonProbes) -> None:
    began = time.monotonic_ns()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        has_begun(process)
        probes.add_process(process.pid, told(probes, process.pid, began))
        probes.set_process(process.pid, told(probes, process.pid, began, minor=12))
        assert kept(probes, process.pid)["minor"] == 12
    assert kept(probes, process.pid) is None
    probes.set_process(process.pid, told(probes, process.pid, began, minor=12))
    assert kept(probes, process.pid) is None


def test_what_it_was_before_an_exec_is_not_told_after_it(probes: PythonProbes) -> None:
    began = time.monotonic_ns()
    shell = "echo; read line; exec cat"
    with subprocess.Popen(
        ["sh", "-c", shell], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        probes.add_process(process.pid, told(probes, process.pid, began))
        probes.set_process(process.pid, told(probes, process.pid, began, minor=11))
        process.stdin.write("go\nagain\n")
        process.stdin.flush()
        assert process.stdout.readline() == "again\n"
        probes.set_process(process.pid, told(probes, process.pid, began, minor=11))
        assert not kept(probes, process.pid)["ready"]
        events = probes.events.drain()
        assert events is not None
        (exec_ns,) = events["ns"][(events["pid"] == process.pid) & (events["kind"] == 2)].tolist()
        probes.set_process(process.pid, told(probes, process.pid, exec_ns, minor=13))
        after = kept(probes, process.pid)
        assert (after["ready"], after["minor"]) == (1, 13)
        process.stdin.close()


def test_a_child_met_at_the_start_is_told_of_by_its_fork_as_well(probes: PythonProbes) -> None:
    """Its fork was before it was looked at, and is heard of after that."""
    began = time.monotonic_ns()
    probes.add_process(os.getpid(), told(probes, os.getpid(), began))
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        has_begun(process)
        now = time.monotonic_ns()
        probes.add_process(process.pid, told(probes, process.pid, now))
        probes.set_process(process.pid, told(probes, process.pid, now, minor=11))
        assert kept(probes, process.pid)["minor"] == 11
        events = probes.events.drain()
        assert events is not None
        heard = int(events["ns"][events["pid"] == process.pid].max())
        assert began < heard < now
        probes.set_process(process.pid, told(probes, process.pid, heard, minor=12))
        assert kept(probes, process.pid)["minor"] == 12


def test_a_sample_of_a_thread_that_ends_leaves_nothing(probes: PythonProbes) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_TO_END],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        probes.add_process(process.pid, told(probes, process.pid, 1, minor=12))
        process.stdin.write("go\n")
        process.stdin.flush()
        ended = {int(process.stdout.readline()) for _ in range(3)}
        while any(Path(f"/proc/{process.pid}/task/{tid}").exists() for tid in ended):
            time.sleep(0.01)
        samples = probes.samples.drain()
        assert samples is not None
        assert ended <= set(samples["tid"].tolist())
        table = probes._object.maps["python_threads"].fd
        left = {int.from_bytes(key, "little") for key in map_keys(table, 4)}
        assert process.pid in left
        assert not ended & left
        process.stdin.close()


def test_too_many_are_refused(probes: PythonProbes) -> None:
    layout = probes.process_layout
    watched = Targets(probes.add_process, probes.set_process, layout, lambda *_: None)
    for pid in range(NOBODY, NOBODY + MAX_TARGETS):
        probes.add_process(pid, told(probes, pid, 1))
    with pytest.raises(OSError, match="BPF map") as refused:
        probes.add_process(os.getpid(), told(probes, os.getpid(), 1))
    assert refused.value.errno == errno.E2BIG
    watched.start([os.getpid()])
    assert (watched.refused, watched.current) == (1, {})
    process = told(probes, NOBODY, 1, minor=12)
    probes.set_process(NOBODY, process)
    assert kept(probes, NOBODY)["minor"] == 12
    assert np.array_equal(kept(probes, NOBODY), process[0])
