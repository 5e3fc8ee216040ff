"""What `sltrace record` may do, gives up, and cannot do without: privileges and limits."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest

from tests.support.loads import in_pid_namespace, load
from tests.support.recorder import Record, one_line, recorder, sltrace

pytestmark = pytest.mark.bpf

_NOBODY = 65534
_DAC_READ_SEARCH, _SYS_PTRACE, _SYS_NICE = 1 << 2, 1 << 19, 1 << 23


def test_capabilities_are_given_up(record: Record) -> None:
    """But for that to read the memory of Go processes, which may begin at any time."""
    with record("--no-go") as bare, record() as usual:
        time.sleep(0.2)
        _has_no_more_than(bare.pid, _DAC_READ_SEARCH | _SYS_NICE)
        _has_no_more_than(usual.pid, _DAC_READ_SEARCH | _SYS_NICE | _SYS_PTRACE)
    # Priorities need one only where the limits of the process could not be raised.
    priorities = {"CAP_SYS_NICE"}
    assert set(bare.trace.meta["capabilities"]) - priorities == {"CAP_DAC_READ_SEARCH"}
    assert set(usual.trace.meta["capabilities"]) - priorities == {
        "CAP_DAC_READ_SEARCH",
        "CAP_SYS_PTRACE",
    }


def _has_no_more_than(pid: int, capabilities: int) -> None:
    tasks = list(Path(f"/proc/{pid}/task").iterdir())
    assert len(tasks) >= 2
    for task in tasks:
        status = dict(
            line.split(":", 1)
            for line in (task / "status").read_text(encoding="utf-8").splitlines()
        )
        for which in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
            left = int(status[which], 16)
            assert left & ~capabilities == 0, (status["Name"], which, hex(left))
        assert int(status["NoNewPrivs"]) == 1, status["Name"]


_COUNTS_LATER = """
import pathlib
from sltrace.capture.priority import Deferrable

count, asked = Deferrable._runnable, pathlib.Path({path!r})
Deferrable._runnable = lambda self: count(self) if asked.exists() else 1
"""
"""Others want no CPU until there is a file: whatever else runs here must not decide it."""


def _becomes_urgent(pid: int, threads: int) -> bool:
    """Whether so many of the process's threads are real-time ones within 30 s."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        tids = [int(t.name) for t in Path(f"/proc/{pid}/task").iterdir()]
        if [os.sched_getscheduler(tid) for tid in tids].count(os.SCHED_RR) == threads:
            return True
        time.sleep(0.02)
    return False


def test_making_rows_is_not_urgent_until_the_machine_is_crowded(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    before = _COUNTS_LATER.format(path=str(asked))
    # Reading the rings is, and what the disk is asked for.
    with recorder(tmp_path / "r.slt", "--pid", os.getpid(), before=before) as recording:
        assert _becomes_urgent(recording.pid, 2)
        # The writing thread gets no CPU among these, and would keep the reader from its lock.
        hogs = 5 * (os.cpu_count() or 1)
        with load("contend", "--duration", 60, "--hogs", hogs, "--groups", 0, "--churn-us", 0):
            asked.touch()
            assert _becomes_urgent(recording.pid, 3)
        asked.unlink()
        assert _becomes_urgent(recording.pid, 2)


@pytest.mark.parametrize(
    "prefix",
    [
        [f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"],
        ["--inh-caps=-all", "--bounding-set=-all"],
        ["--inh-caps=-bpf,-sys_admin", "--bounding-set=-bpf,-sys_admin"],
    ],
    ids=["nobody", "no capabilities", "no CAP_BPF"],
)
def test_without_the_right_to_record(prefix: list[str]) -> None:
    # Not tmp_path: only its owner may go through the folders above it.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        path = Path(folder) / "denied.slt"
        done = sltrace("record", "-q", "-o", path, "-d", "1", prefix=["setpriv", *prefix])
        one_line(done, 3, "sudo")
        assert not path.exists()


def test_where_process_ids_are_not_the_kernels(tmp_path: Path) -> None:
    """As in a container: a filter by them would select nothing, or another process."""
    path = tmp_path / "inside.slt"
    for options in (("-d", "1"), ("--", "sleep", "1"), ("--pid", "1")):
        done = sltrace("record", "-q", "-o", path, *options, prefix=in_pid_namespace())
        one_line(done, 3, "record on the host", "--pid=host")
    done = sltrace("doctor", prefix=in_pid_namespace())
    assert done.code == 3
    assert "MISSING  process ids: process ids are this container's own" in done.out
    assert not path.exists()


def test_few_open_files(tmp_path: Path) -> None:
    """The soft limit is no obstacle, and not the command's to lose; the hard one is told."""
    record = ("record", "-q", "-o", tmp_path / "files.slt")
    done = sltrace(*record, "--", "sh", "-c", "ulimit -Sn", prefix=["prlimit", "--nofile=48:4096"])
    assert (done.code, done.out) == (0, "48\n"), done.err
    done = sltrace(*record, "--force", "-d", "1", prefix=["prlimit", "--nofile=48:48"])
    one_line(done, 3, "ulimit -n")
