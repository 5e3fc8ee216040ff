"""`sltrace record` as a user meets it: commands, signals, kills, disks and privileges."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sltrace.trace.reader import Trace
from tests.kernel.conftest import Record
from tests.support.loads import Outcome, ThreadReport, in_pid_namespace, load, read_schedstat
from tests.support.programs import program
from tests.support.recorder import one_line, recorder, sltrace
from tests.support.schedstat import compare
from tests.support.traces import make_trace

pytestmark = pytest.mark.bpf

_NOBODY = 65534
_DAC_READ_SEARCH, _SYS_PTRACE, _SYS_NICE = 1 << 2, 1 << 19, 1 << 23


# ---- the command ---------------------------------------------------------------------------


def test_a_command_is_recorded_for_its_life(tmp_path: Path) -> None:
    path = tmp_path / "command.slt"
    victim = (program("victim"), "--duration", 1, "--period-us", 1000)
    done = sltrace("record", "-q", "-o", path, "--", *victim)
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)["threads"]
    thread = ThreadReport(**row)
    trace = Trace.open(path)
    (c,) = compare(trace, [thread])
    assert thread.timeslices > 200
    assert thread.timeslices - c.missed <= c.rows <= thread.timeslices, str(c)
    assert c.explained, str(c)
    pids = {r["pid"] for r in trace.sql("SELECT DISTINCT pid FROM waits").to_pylist()}
    assert pids == {thread.pid}
    last = trace.sql("SELECT max(end_ns) AS ns FROM waits").to_pylist()[0]["ns"]
    # Nothing is left to record once it has ended.
    assert trace.meta["clock"]["end_ns"] - last < 2_000_000_000
    assert trace.meta["finished"] is True


def test_children_of_a_command_are_recorded(tmp_path: Path) -> None:
    path = tmp_path / "children.slt"
    storm = (program("exitstorm"), "--duration", 9, "--most", 200, "--report")
    done = sltrace("record", "-q", "-o", path, "--", "sh", "-c", '"$@"; exit 5', "sh", *storm)
    assert done.code == 5, done.err
    outcome = Outcome("exitstorm", (), json.loads(done.out))
    rows = Trace.open(path).sql("SELECT DISTINCT tid FROM waits UNION SELECT tid FROM missed")
    tids = {r["tid"] for r in rows.to_pylist()}
    threads = {row["tid"] for row in outcome.values["threads"]}
    assert len(threads) >= 190
    assert threads <= tids


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -9 $$", 137)]
)
def test_the_exit_code_is_the_commands(tmp_path: Path, script: str, code: int) -> None:
    done = sltrace("record", "-q", "-o", tmp_path / "code.slt", "--", "sh", "-c", script)
    assert (done.code, done.out, done.err) == (code, "", "")
    assert Trace.open(tmp_path / "code.slt").meta["finished"] is True


def test_a_command_that_is_not_there_replaces_nothing(tmp_path: Path) -> None:
    path = make_trace(tmp_path, [{"tid": 7}])
    plain = tmp_path / "plain"
    plain.write_text("not a program", encoding="ascii")
    for name, why in (("no-such-program-here", "there is no"), (plain, "not executable")):
        one_line(sltrace("record", "-q", "-f", "-o", path, "--", name), 4, why)
    assert Trace.open(path).table("waits", ["tid"]).to_pylist() == [{"tid": 7}]


# ---- the end -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_cleanly(record: Record, number: signal.Signals) -> None:
    with record() as recording:
        time.sleep(0.3)
        done = recording.end(number)
    assert done.code == 0, done.err
    assert "stopped" in done.out
    assert f"next: sltrace report {recording.path}" in done.out
    assert recording.trace.meta["finished"] is True
    assert recording.trace.notes == []
    assert recording.trace.table("waits", ["tid"]).num_rows > 0


def test_below_nohup_a_hangup_ends_nothing(tmp_path: Path) -> None:
    path, command = tmp_path / "nohup.slt", ["grep", "SigIgn", "/proc/self/status"]
    ignoring = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh"]
    done = sltrace("record", "-q", "-o", path, "--", *command, prefix=ignoring)
    assert int(done.out.split()[1], 16) >> signal.SIGHUP - 1 & 1 == 1
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with recorder(path, "-f", "-d", "2s") as recording:
            os.kill(recording.pid, signal.SIGHUP)
            done = recording.wait()
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    assert "time is up" in done.out


def test_a_signal_is_passed_on_to_the_command(tmp_path: Path) -> None:
    path = tmp_path / "signal.slt"
    with recorder(path, "--", "sleep", "50") as recording:
        done = recording.end(signal.SIGTERM)
    assert done.code == 143, done.err
    assert Trace.open(path).meta["finished"] is True


def test_a_command_that_takes_its_time_to_end_is_not_recorded_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "slow.slt"
    slow = "trap 'sleep 2; exit 9' TERM; while :; do sleep 0.01; done"
    done = sltrace("record", "-o", path, "-d", "300ms", "--", "sh", "-c", slow)
    assert done.code == 9
    assert "until sh ends, for 0.3 s at most" in done.err
    assert "time is up" in done.out
    clock = Trace.open(path).meta["clock"]
    assert 300_000_000 <= clock["end_ns"] - clock["start_ns"] < 2_000_000_000


def test_a_duration(tmp_path: Path) -> None:
    done = sltrace("record", "-o", tmp_path / "timed.slt", "-d", "300ms")
    assert done.code == 0, done.err
    assert "time is up" in done.out
    clock = Trace.open(tmp_path / "timed.slt").meta["clock"]
    assert clock["end_ns"] - clock["start_ns"] >= 300_000_000


def test_a_size(tmp_path: Path) -> None:
    """A command that would go on is told to end, as when its time is up."""
    path = tmp_path / "large.slt"
    with load("pingpong", "--duration", 60, "--ping-cpu", min(os.sched_getaffinity(0))):
        done = sltrace("record", "-o", path, "--max-size", "1M")
    assert done.code == 0, done.err
    assert "until Ctrl-C, 1 MiB at most" in done.err
    assert "the trace has grown to 1 MiB" in done.out
    assert Trace.open(path).meta["ended"] == "the trace has grown to 1 MiB"
    size = sum(p.stat().st_size for p in path.rglob("*.parquet"))
    assert 1 << 20 <= size < 6 << 20
    ping = (program("pingpong"), "--duration", 60, "--ping-cpu", min(os.sched_getaffinity(0)))
    done = sltrace("record", "-q", "-f", "-o", path, "--max-size", "1M", "--", *ping)
    assert done.code in (0, 128 + signal.SIGTERM), done.err
    clock = Trace.open(path).meta["clock"]
    assert clock["end_ns"] - clock["start_ns"] < 40_000_000_000


def test_killed_it_leaves_all_but_the_last_second(record: Record) -> None:
    pace = ("--duration", 20, "--rate", 1000, "--ping-cpu", min(os.sched_getaffinity(0)))
    with load("pingpong", *pace) as running:
        with record() as recording:
            pong = max(int(p.name) for p in Path(f"/proc/{running.pid}/task").iterdir())
            _, _, before = read_schedstat(running.pid, pong)
            begun = time.monotonic_ns()
            time.sleep(2.6)
            _, _, after = read_schedstat(running.pid, pong)
            killed = time.monotonic_ns()
            assert recording.end(signal.SIGKILL).code == -signal.SIGKILL
        running.stop()
        running.outcome()
    trace = recording.trace
    assert "killed" in " ".join(trace.notes)
    assert len(trace.notes) == 1
    rows = trace.sql(
        """SELECT count(*) AS n, max(end_ns) AS last FROM waits
           WHERE tid = ? AND end_ns > ? AND kind <> 'blocked'""",
        (pong, begun),
    ).to_pylist()[0]
    assert killed - rows["last"] < 1_000_000_000
    lost = trace.sql("SELECT count(*) AS n FROM missed WHERE tid = ?", (pong,)).to_pylist()[0]["n"]
    share_kept = (rows["last"] - begun) / (killed - begun)
    assert rows["n"] + lost >= 0.9 * (after - before) * share_kept > 300
    last = trace.sql("SELECT max(end_ns) AS ns FROM histograms").to_pylist()[0]["ns"]
    assert killed - last < 2_500_000_000
    assert sltrace("stat", recording.path).code == 0


# ---- the output ----------------------------------------------------------------------------


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
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    path = small_disk / "full.slt"
    with load("pingpong", "--duration", 30, "--pairs", 4, "--rate", 2000):
        done = sltrace("record", "-q", "-o", path, "-d", "25")
    one_line(done, 6, str(small_disk))
    trace = Trace.open(path)
    assert [n for n in trace.notes if "damaged" in n] == []
    # What was written before is whole.
    count = trace.sql("SELECT count(*) AS n, sum(wait_ns) AS ns, max(comm) FROM waits").to_pylist()
    assert count[0]["n"] > 1000


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


# ---- privileges ----------------------------------------------------------------------------


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


def _becomes_urgent(pid: int, threads: int) -> bool:
    """Whether so many of the process's threads are real-time ones within 5 s."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        tids = [int(t.name) for t in Path(f"/proc/{pid}/task").iterdir()]
        if [os.sched_getscheduler(tid) for tid in tids].count(os.SCHED_RR) == threads:
            return True
        time.sleep(0.02)
    return False


def test_making_rows_is_not_urgent_until_the_machine_is_crowded(record: Record) -> None:
    # Reading the rings is, and what the disk is asked for.
    with record("--pid", os.getpid()) as recording:
        assert _becomes_urgent(recording.pid, 2)
        # The writing thread gets no CPU among these, and would keep the reader from its lock.
        hogs = ("--hogs", 5 * (os.cpu_count() or 1), "--groups", 0, "--churn-us", 0)
        with load("contend", "--duration", 10, *hogs):
            assert _becomes_urgent(recording.pid, 3)
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
