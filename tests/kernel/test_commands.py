"""What the commands say about real recordings, beside what the kernel says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from sltrace.analysis.blame import blame
from sltrace.analysis.bounds import measure
from sltrace.analysis.diagnosis import Finding, diagnose
from sltrace.analysis.diff import diff
from sltrace.analysis.flame import flame
from sltrace.analysis.losses import losses
from sltrace.analysis.rules import parse_rule
from sltrace.analysis.selection import Selection
from sltrace.analysis.sides import two_traces
from sltrace.analysis.spans import explain_spans, read_spans
from sltrace.analysis.timeline import slowest, timeline
from sltrace.trace.reader import Trace
from tests.support import tagged
from tests.support.cgroups import Cgroup, cgroup
from tests.support.loads import allowed_cpus, load, run, stolen_ns
from tests.support.programs import ROOT
from tests.support.recorder import recorder, sltrace

pytestmark = [pytest.mark.bpf, pytest.mark.alone]


@dataclass(frozen=True)
class Sick:
    """The whole machine recorded while it had four diseases, one after the other.

    Attributes:
        path: The trace.
        ours: cgroup whose thread waited for `hog`'s, on one CPU.
        theirs: The other one.
        limited: cgroup with a quota of a fifth of a CPU.
        writer: cgroup of the process that wrote to a slow disk.
        throttled_ns: What its `cpu.stat` says, over its one CPU.
        mover: Process that moved itself between two CPUs.
        moves: How often.
        throttled_disk: 2 MB were written to a disk held down to 1 MB/s.
        idle_ns: Idle and iowait time of all CPUs meanwhile, from /proc/stat.
    """

    path: Path
    ours: str
    theirs: str
    limited: str
    writer: str
    throttled_ns: int
    mover: int
    moves: int
    throttled_disk: bool
    idle_ns: int

    @property
    def trace(self) -> Trace:
        return Trace.open(self.path)


def idle_ns() -> int:
    """Idle and iowait time of all CPUs together since boot."""
    values = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()
    return (int(values[4]) + int(values[5])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def sick(tmp_path_factory: pytest.TempPathFactory) -> Sick:
    folder = tmp_path_factory.mktemp("sick")
    cpu = str(allowed_cpus()[-1])
    with (
        cgroup("ours") as ours,
        cgroup("theirs") as theirs,
        cgroup("limited", cpus=0.2) as limited,
        cgroup("writer") as writer,
        cgroup("mover") as moving,
    ):
        # Equal to each other, and far above whatever else runs here.
        for group in (ours, theirs, limited, moving):
            group.weigh(50)
        with recorder(folder / "all.slt") as recording:
            before = idle_ns()
            with load(
                "hog", "--cpu", cpu, "--duration", 3, "--comm", "holder", within=theirs
            ) as holder:
                run("hog", "--cpu", cpu, "--duration", 3, "--comm", "waiter", within=ours)
                holder.outcome()
            was = limited.cpu_stat()
            run("quota", "--threads", 1, "--duration", 2, within=limited)
            throttled_ns = limited.cpu_stat().throttled_ns - was.throttled_ns
            mover, moves = move_about(moving)
            throttled_disk = write_slowly(folder / "file", 2, writer)
            after = idle_ns()
        return Sick(
            recording.path,
            ours.name,
            theirs.name,
            limited.name,
            writer.name,
            throttled_ns,
            mover,
            moves,
            throttled_disk,
            after - before,
        )


MOVER = """
import os, time
cpus, moves, end = sorted(os.sched_getaffinity(0))[:2], 0, time.monotonic() + 2
while time.monotonic() < end:
    os.sched_setaffinity(0, {cpus[moves % 2]})
    moves += 1
print(os.getpid(), moves)
"""


def move_about(within: Cgroup) -> tuple[int, int]:
    """A process that makes itself move between two CPUs: its pid, and how often it did."""
    join = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(within.procs)]
    done = subprocess.run(
        [*join, sys.executable, "-c", MOVER], check=True, capture_output=True, text=True
    )
    pid, moves = done.stdout.split()
    return int(pid), int(moves)


def write_slowly(file: Path, megabytes: int, within: Cgroup) -> bool:
    """Writes past the page cache to a disk held down to 1 MB/s; False where that cannot be."""
    mount = Path("/sys/fs/cgroup/blkio")
    group = mount / f"slow-{os.getpid()}"
    device = file.parent.stat().st_dev
    limit = group / "blkio.throttle.write_bps_device"
    try:
        group.mkdir()
        limit.write_text(f"{os.major(device)}:{os.minor(device)} 1000000")
    except OSError:
        if group.exists():
            group.rmdir()
        return False
    try:
        write = ["dd", "if=/dev/zero", f"of={file}", "bs=100k", f"count={megabytes * 10}"]
        script = 'echo $$ > "$0" && echo $$ > "$1" && shift && exec "$@"'
        join = ["sh", "-c", script, str(group / "cgroup.procs"), str(within.procs)]
        subprocess.run([*join, *write, "oflag=direct"], check=True, capture_output=True)
    finally:
        file.unlink(missing_ok=True)
        group.rmdir()
    return True


def one(trace: Trace, name: str, **values: object) -> Finding:
    (found,) = (
        f
        for f in diagnose(trace, most=50).findings
        if f.name == name and all(f.values.get(k) == (v,) for k, v in values.items())
    )
    return found


def test_contention_names_victim_and_culprit(sick: Sick) -> None:
    found = one(sick.trace, "contention", cgroup=sick.ours)
    assert "% of it `waiter`)" in found.sentence
    # Others on this machine get their share of that CPU: who it was most is for pandas to say.
    waits = sick.trace.table("waits").to_pandas()
    long = waits[
        waits["kind"].str.startswith("runq")
        & (waits["cgroup"] == sick.ours)
        & (waits["wait_ns"] >= 1_000_000)
    ]
    held = long.groupby(["culprit_comm", "culprit_cgroup"], observed=True)["culprit_ns"].sum()
    assert ("holder", sick.theirs) in held.index
    comm, group = held.idxmax()
    assert f"`{comm}` of {group} ran" in found.sentence
    assert found.numbers["culprit_ns"] == held.max()
    assert one(sick.trace, "contention", cgroup=sick.theirs)


def test_quota_is_that_of_cpu_stat(sick: Sick) -> None:
    found = one(sick.trace, "quota", cgroup=sick.limited)
    assert "Its quota was 0.20 CPUs (20 ms in 100 ms)" in found.sentence
    assert sick.throttled_ns > 1_000_000_000
    assert found.numbers["waited_ns"] == pytest.approx(sick.throttled_ns, rel=0.05)
    throttled = sick.trace.sql(
        "SELECT bool_and(culprit_cgroup = cgroup) AS own FROM waits "
        "WHERE kind = 'throttled' AND cgroup = ?",
        (sick.limited,),
    )
    assert throttled["own"].to_pylist() == [True]
    cells = [c for c in blame(sick.trace, "cgroup").cells if c.victim == sick.limited]
    by_quota = sum(c.wait_ns for c in cells if (c.what, c.culprit) == ("quota", sick.limited))
    assert by_quota == found.numbers["waited_ns"]


def test_the_share_of_a_rule_is_that_of_cpu_stat(sick: Sick) -> None:
    trace = sick.trace
    clock = trace.meta["clock"]
    wall = clock["end_ns"] - clock["start_ns"]
    rule = parse_rule(f"share(throttled where cgroup={sick.limited}) < 1%")
    share = measure(trace, rule)
    assert float(share.low) * wall == pytest.approx(sick.throttled_ns, rel=0.05)
    done = sltrace("check", sick.path, rule.text, f"count(runq where cgroup={sick.ours}) > 10")
    assert done.code == 7, done.err
    assert [line.split()[0] for line in done.out.splitlines()[:2]] == ["FAIL", "pass"]


def test_migration_is_what_the_load_did(sick: Sick) -> None:
    found = one(sick.trace, "migration", pid=sick.mover)
    # Others on the same CPU move it now and then as well.
    assert found.numbers["moves"] == pytest.approx(sick.moves, rel=0.1)
    assert "`python" in found.sentence


def test_writes_to_a_slow_disk_are_io(sick: Sick) -> None:
    if not sick.throttled_disk:
        pytest.skip("no v1 blkio controller to hold a disk down with")
    found = one(sick.trace, "io", cgroup=sick.writer)
    assert "% of it `dd`)" in found.sentence
    # 2 MB at 1 MB/s, of which the first slice may be free.
    assert 1_500_000_000 < found.numbers["waited_ns"] < 3_500_000_000


def test_cpu_times_are_those_of_proc_stat(sick: Sick) -> None:
    times = sick.trace.meta["cpu_times"]
    assert len(times) == sick.trace.meta["cpus"]
    idle = sum(t["idle"] + t["iowait"] for t in times.values())
    # The recording is a little longer than what the test looked at.
    around = 1_500_000_000 * len(times)
    assert sick.idle_ns - 20_000_000 <= idle <= sick.idle_ns + around
    clock = sick.trace.meta["clock"]
    for spent in times.values():
        whole = sum(spent.values())
        assert whole == pytest.approx(clock["end_ns"] - clock["start_ns"], rel=0.1)


def test_a_well_behaved_program_is_not_diagnosed(tmp_path: Path) -> None:
    """At a real-time priority above the recorder's, so that nobody here can make it wait."""
    urgent = ("--policy", "fifo", "--priority", 60, "--period-us", 5000)
    with (
        load("victim", "--duration", 60, *urgent) as victim,
        recorder(tmp_path / "calm.slt", "--pid", victim.pid) as recording,
    ):
        time.sleep(1.5)
        recording.end()
    result = diagnose(recording.trace)
    assert result.losses.kept > 100
    assert [f for f in result.findings if f.name != "steal"] == []


def test_a_recording_differs_from_itself_in_nothing(sick: Sick) -> None:
    result = diff(two_traces(sick.trace, sick.trace))
    assert {c.difference for cs in result.classes.values() for c in cs} == {0}
    assert {c.difference for g in result.groups for c in g.changes} == {0}


def test_a_request_is_explained_as_it_timed_itself(tmp_path: Path) -> None:
    cpu = str(allowed_cpus()[-1])
    program = [sys.executable, "-m", "tests.support.tagged", str(tmp_path), cpu]
    stolen = -stolen_ns()
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=60)
    stolen += stolen_ns()
    assert done.returncode == 0, done.stderr
    trace = Trace.open(tmp_path / "tagged.slt")
    (traced,) = slowest(trace).traces
    assert traced.trace_id == tagged.TRACE_ID
    spans = read_spans(tmp_path / "spans.json")
    found = {s.span.name: s for s in explain_spans(trace, timeline(trace, traced.trace_id), spans)}
    # The kernel's clock for sleeping, and the thread's own for what it used.
    sleeps, competes, request = found["sleeps"], found["competes"], found["request"]
    missed = trace.sql("SELECT coalesce(sum(high_ns), 0)::BIGINT AS ns FROM missed")["ns"][
        0
    ].as_py()
    slack = 2_000_000 + missed
    assert sleeps.causes["blocked"] == pytest.approx(tagged.SLEEP_S * 1e9, abs=slack)
    assert sleeps.running_ns < slack
    assert -10 * slack <= competes.running_ns - tagged.SPIN_S * 1e9 <= 10 * slack + stolen
    assert competes.causes["runq"] > tagged.SPIN_S * 1e9 / 5
    assert competes.causes["blocked"] == 0
    for span in found.values():
        assert not span.cut
        assert span.running_ns + sum(span.causes.values()) == span.end_ns - span.start_ns
    for cause in ("runq", "blocked"):
        # It may also have waited between its children.
        assert request.causes[cause] >= sleeps.causes[cause] + competes.causes[cause] - slack
    shown = sltrace(
        "explain",
        trace.path,
        "--trace-id",
        traced.trace_id,
        "--spans",
        tmp_path / "spans.json",
    )
    assert shown.code == 0, shown.err
    assert "shop: competes" in shown.out
    assert "ran for" in shown.out


def test_two_recordings_become_one(sick: Sick, tmp_path: Path) -> None:
    """Of one machine, one after the other: the waits add up, and names stay what they are."""
    with (
        load("victim", "--duration", 3, "--comm", "later") as victim,
        recorder(tmp_path / "later.slt", "--stacks", "both", "--pid", victim.pid) as recording,
    ):
        time.sleep(0.7)
        recording.end()
    out = tmp_path / "both.slt"
    done = sltrace("merge", sick.path, recording.path, "-o", out)
    assert done.code == 0, done.err
    assert sltrace("merge", sick.path, sick.path, "-o", tmp_path / "twice.slt").code == 2
    merged = Trace.open(out)
    for table in ("waits", "missed", "counters", "histograms", "stacks", "frames", "tasks"):
        rows = [t.table(table).num_rows for t in (sick.trace, recording.trace, merged)]
        assert rows[0] + rows[1] == rows[2]
    query = "SELECT cgroup, comm, count(*) AS n, sum(wait_ns)::BIGINT AS ns FROM waits GROUP BY ALL"
    parts = [t.sql(query).to_pandas() for t in (sick.trace, recording.trace)]
    expected = pd.concat(parts).groupby(["cgroup", "comm"], observed=True).sum()
    got = merged.sql(query).to_pandas().set_index(["cgroup", "comm"])
    pd.testing.assert_frame_equal(
        got.sort_index(), expected.sort_index(), check_dtype=False, check_index_type=False
    )
    later = flame(merged, Selection(values={"comm": ("later",)}))
    assert later == flame(recording.trace, Selection(values={"comm": ("later",)}))


def test_what_a_full_ring_lost_is_counted_by_the_histograms(tmp_path: Path) -> None:
    """Two threads that wake each other faster than a ring of 64 kB is emptied."""
    path = tmp_path / "lossy.slt"
    with cgroup("pairs") as pairs:
        with recorder(path, "--buffer", "64k") as recording:
            outcome = run(
                "pingpong", "--duration", 1, "--ping-cpu", allowed_cpus()[0], within=pairs
            )
        name = pairs.name
    trace = recording.trace
    lost = losses(trace).lost
    assert lost > 100
    query = "SELECT count(*) AS n FROM waits WHERE cgroup = ? AND kind <> 'blocked'"
    rows = trace.sql(query, (name,))["n"][0].as_py()
    slices = sum(t.timeslices for t in outcome.threads)
    count = measure(trace, parse_rule(f"count(runq where cgroup={name}) > 1"))
    assert rows < slices
    # The threads' births and deaths, before and after what they report, are in it as well.
    assert count.high is not None
    assert slices <= count.high
    assert count.low <= slices + 40
    assert count.high - count.low < lost


def test_a_larger_ring_holds_more(tmp_path: Path) -> None:
    """While the recorder stands still two threads that wake each other fill the usual one.

    It has room for 65,000 records, the larger one for 520,000; these are 360,000 at most.
    """
    cpu, lost = allowed_cpus()[0], {}
    both = ("--ping-cpu", cpu, "--pong-cpu", cpu)
    for size in ("12M", "96M"):
        with (
            recorder(tmp_path / f"{size}.slt", "--buffer", size, "--no-go") as recording,
            load("pingpong", "--duration", 60, *both, "--rate", 60_000),
        ):
            time.sleep(0.5)
            os.kill(recording.pid, signal.SIGSTOP)
            try:
                time.sleep(3)
            finally:
                os.kill(recording.pid, signal.SIGCONT)
        lost[size] = losses(recording.trace).lost
    assert lost["12M"] > 1000
    assert lost["96M"] == 0
