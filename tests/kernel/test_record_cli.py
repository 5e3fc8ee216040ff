"""`sltrace record` as a user meets it: commands, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from sltrace.trace.reader import Trace
from tests.support.loads import Outcome, ThreadReport, load, queued_ns, read_schedstat
from tests.support.programs import program
from tests.support.recorder import Record, one_line, recorder, sltrace
from tests.support.schedstat import compare, slices_at_least
from tests.support.traces import make_trace

pytestmark = pytest.mark.bpf


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
    assert thread.timeslices > slices_at_least(trace, thread), str(c)
    assert c.switches_explained, str(c)
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


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -9 $$", 137)])
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
        with recorder(path, "-f", "-d", "1s") as recording:
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
            begun, queued = time.monotonic_ns(), -queued_ns(recording.pid)
            time.sleep(2.6)
            _, _, after = read_schedstat(running.pid, pong)
            # The recorder cannot write while it waits for a CPU itself.
            queued += queued_ns(recording.pid)
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
    assert killed - rows["last"] < 1_000_000_000 + queued
    lost = trace.sql("SELECT count(*) AS n FROM missed WHERE tid = ?", (pong,)).to_pylist()[0]["n"]
    share_kept = (rows["last"] - begun) / (killed - begun)
    assert rows["n"] + lost >= 0.9 * (after - before) * share_kept > 300
    last = trace.sql("SELECT max(end_ns) AS ns FROM histograms").to_pylist()[0]["ns"]
    assert killed - last < 2_500_000_000 + queued
    assert sltrace("stat", recording.path).code == 0


def test_the_machine_is_known_again_under_another_name(tmp_path: Path) -> None:
    """A recorder in a container has a host name of its own."""
    other = ("unshare", "--uts", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh")
    paths = [tmp_path / name for name in ("here.slt", "there.slt")]
    for path, prefix in zip(paths, ((), other), strict=True):
        done = sltrace("record", "-q", "--pid", os.getpid(), "-d", 1, "-o", path, prefix=prefix)
        assert done.code == 0, done.err
    done = sltrace("merge", *paths, "-o", tmp_path / "m.slt")
    assert done.code == 0, done.err
    here, there, merged = (Trace.open(p).meta for p in (*paths, tmp_path / "m.slt"))
    assert there["host"] == "elsewhere" != here["host"]
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert here["boot_id"] == there["boot_id"] == merged["boot_id"] == boot
    assert [m["machine"] for m in merged["merged"]] == [0, 0]
