"""Stacks of real programs, named: however they were linked, wherever their file is, in the vdso."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sltrace.analysis.stacks import grouped_stacks
from sltrace.symbols.mappings import MappingRecorder
from sltrace.target.executable import exe_of
from sltrace.target.memory import Memory
from sltrace.trace.reader import Trace
from tests.support.cgroups import cgroup
from tests.support.loads import allowed_cpus, in_pid_namespace, load, run, until_switched
from tests.support.processes import endless
from tests.support.programs import FLAGS, ROOT, SHARED, SOURCES, build, program
from tests.support.recorder import Record

pytestmark = pytest.mark.bpf

CHAIN = ["main", "outer_call", "middle_call", "inner_sleep"]
LINKED = {"pie": ("-pie", "-fPIE"), "no-pie": ("-no-pie", "-fno-pie"), "static": ("-static",)}


def sleepers(linked: str) -> Path:
    sources = tuple(SOURCES / f"{stem}.c" for stem in ("sleepers", *SHARED))
    frames = ("-fno-omit-frame-pointer", "-mno-omit-leaf-frame-pointer")
    flags = (*FLAGS, *frames, "-fno-optimize-sibling-calls", *LINKED[linked])
    return build(f"sleepers-{linked}", sources, (SOURCES / "common.h",), flags)


def stacks_of(trace: Trace, comm: str) -> dict[tuple[str, ...], int]:
    """Time by stack, as names and root first, of the waits of one program."""
    grouped = grouped_stacks(trace, ["comm"])
    found: dict[tuple[str, ...], int] = {}
    for group in grouped.groups:
        if group.keys == (comm,):
            names = tuple(grouped.frames[i].name for i in grouped.stacks[group.stack].tolist())
            found[names] = found.get(names, 0) + group.wait_ns
    return found


def sleeping(stacks: dict[tuple[str, ...], int]) -> int:
    """Time in stacks that go through the whole chain and then into the kernel's sleep."""
    total = 0
    for names, ns in stacks.items():
        if "inner_sleep" in names:
            end = names.index("inner_sleep") + 1
            if list(names[end - len(CHAIN) : end]) == CHAIN and "hrtimer_nanosleep" in names[end:]:
                total += ns
    return total


@pytest.fixture(scope="module")
def walked(record_once: Record) -> Trace:
    """All that LINKED names, recorded together: they sleep.

    For longer than it may take until what is mapped in them is read: 0.5 s, and as long as the
    writing thread waits for a CPU.
    """
    with record_once("--stacks", "both") as recording:
        running = [
            subprocess.Popen([sleepers(linked), "--duration", "3"], stdout=subprocess.DEVNULL)
            for linked in LINKED
        ]
        assert [p.wait(60) for p in running] == [0] * len(running)
    return recording.trace


@pytest.mark.parametrize("linked", LINKED)
def test_a_known_stack_is_walked_and_named(walked: Trace, linked: str) -> None:
    stacks = stacks_of(walked, sleepers(linked).name[:15])
    assert sleeping(stacks) >= 0.95 * sum(ns for s, ns in stacks.items() if "inner_sleep" in s)
    assert sleeping(stacks) > 300_000_000
    # Nothing of the way from the scheduler to the probe is part of a stack.
    assert [names for names in stacks if any("bpf" in name for name in names)] == []


@contextmanager
def napping(*command: str | Path) -> Iterator[int]:
    """Runs sleepers, at the end of a command, until the block ends; its process id.

    A recorder that ends before that has had all the time to read what is mapped in it.
    """
    with endless([*command, "--duration", "60"], stdout=subprocess.DEVNULL) as process:
        yield _innermost(process.pid)


def _innermost(first: int) -> int:
    """The process itself, or the child that it waits for, once that is there."""
    deadline, pid = time.monotonic() + 60, first
    while True:
        # A child may be one of a shell's other commands, and end.
        try:
            if "sleepers" in Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]:
                return pid
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            children = [str(first)]
        pid = int(children[0]) if children else pid
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_file_deleted_since(record: Record, tmp_path: Path) -> None:
    binary = shutil.copy(sleepers("pie"), tmp_path / "sleepers")
    with napping(binary) as pid:
        Path(binary).unlink()
        with record("--stacks", "both") as recording:
            until_switched(500, pid)
    assert sleeping(stacks_of(recording.trace, "sleepers")) > 300_000_000


def test_a_file_in_another_mount_namespace(record: Record) -> None:
    script = 'mount -t tmpfs none /mnt && cp "$0" /mnt/sleepers && exec /mnt/sleepers "$@"'
    command = ("unshare", "--mount", "sh", "-c", script, sleepers("pie"))
    with record("--stacks", "both") as recording, napping(*command) as pid:
        assert not Path("/mnt/sleepers").exists()
        until_switched(500, pid)
        recording.end()
    assert sleeping(stacks_of(recording.trace, "sleepers")) > 300_000_000


def test_a_program_in_another_pid_namespace(record: Record) -> None:
    command = (*in_pid_namespace(), binary := sleepers("no-pie"))
    with record("--stacks", "both") as recording, napping(*command) as pid:
        until_switched(500, pid)
        recording.end()
    assert sleeping(stacks_of(recording.trace, binary.name[:15])) > 300_000_000
    tasks = recording.trace.sql(
        "SELECT pid, ns_pid FROM tasks WHERE comm = ? AND ns_pid IS NOT NULL", (binary.name[:15],)
    ).to_pylist()
    assert {t["ns_pid"] for t in tasks} == {1}
    assert all(t["pid"] > 1 for t in tasks)


def test_the_vdso_has_names(record: Record) -> None:
    binary, cpu = sleepers("pie"), allowed_cpus()[-1]
    # A small ring goes round: what was there before must not come up as ids.
    with record("--stacks", "both", "--no-go", "--buffer", "64k") as recording:
        # Two that spin on one CPU preempt each other, mostly within clock_gettime.
        pair = [[binary, "--duration", "2", "--cpu", str(cpu)]] * 2
        running = [subprocess.Popen(c, stdout=subprocess.DEVNULL) for c in pair]
        assert [p.wait(60) for p in running] == [0, 0]
    rows = recording.trace.sql("SELECT DISTINCT name FROM frames WHERE module = '[vdso]'")
    names = {row["name"] for row in rows.to_pylist()}
    assert names & {"__vdso_clock_gettime", "clock_gettime"}, names
    ids = "count(trace_id) + count(goid) + count(held_p) + count(stack_runtime)"
    assert recording.trace.sql(f"SELECT {ids} AS n, count(*) > 900 AS many FROM waits").to_pylist()[
        0
    ] == {"n": 0, "many": True}


def test_a_process_whose_first_thread_ends_keeps_its_names(record: Record) -> None:
    with record("--stacks", "user", "--comm", "firstends") as recording:
        # The first second is enough for its end to be told of.
        run("firstends", "--first-ms", 300, "--early-ms", 1500, "--late-ms", 700)
    leaves = {names[-1] for names in stacks_of(recording.trace, "firstends")}
    assert leaves >= {"early_nap", "late_nap"}


def test_a_process_whose_first_thread_has_ended_has_names(record: Record) -> None:
    """Where its mappings and its command were, is nothing any more: only its other threads know."""
    with load("firstends", "--late-ms", 5000) as running:
        first = Path(f"/proc/{running.pid}/task/{running.pid}/stat")
        while first.read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        with record("--stacks", "user", "--pid", running.pid) as recording:
            time.sleep(0.5)
        program = MappingRecorder().read_maps(running.pid)[0]
        assert exe_of(running.pid) == program.path
        assert Memory(running.pid).read(program.start, 1)
    assert {names[-1] for names in stacks_of(recording.trace, "firstends")} >= {"late_nap"}
    commands = recording.trace.sql("SELECT cmdline FROM tasks WHERE pid = ?", (running.pid,))
    assert "--late-ms 5000" in commands["cmdline"][0].as_py()


def test_what_a_process_made_has_names_after_it_has_ended(record: Record) -> None:
    """Its perf map is in a /tmp of its own, which is gone with it."""
    script = (
        # This checkout may be in /tmp.
        'mount -t tmpfs none /mnt && cp "$0" /mnt/jitted && mount -t tmpfs none /tmp && '
        "exec /mnt/jitted --duration 3"
    )
    private = ("unshare", "--mount", *in_pid_namespace())
    command = (*private, "sh", "-c", script, program("jitted"))
    with record("--stacks", "user", "--", *command) as recording:
        assert recording.wait().code == 0
    slept = stacks_of(recording.trace, "jitted")
    named = sum(ns for names, ns in slept.items() if names[-1] == "jitted_nap")
    assert named > 0.9 * sum(slept.values())


def test_bursts_below_the_cap_have_their_stacks(record: Record) -> None:
    """Half as many as there may be in a second, within a few milliseconds."""
    bursts = ROOT / "tests" / "python" / "programs" / "bursts.py"
    with (
        endless([sys.executable, bursts], stdout=subprocess.DEVNULL) as process,
        record(
            "--pid", process.pid, "--no-python", "--stacks", "kernel", "--stack-rate", 2000
        ) as recording,
    ):
        time.sleep(1)
    (found,) = recording.trace.sql(
        "SELECT count(*) AS n, count(stack_kernel) AS stacks FROM waits WHERE kind = 'blocked'"
    ).to_pylist()
    assert found["n"] > 300
    assert found["stacks"] > 0.95 * found["n"]


def test_a_cap_is_not_used_up_by_stacks_of_short_waits(record: Record) -> None:
    """Who leaves the CPU, and wakes others, a thousand times before one waits for long."""
    options = ("--stacks", "both", "--waker-stacks", "--stack-min", "5ms", "--stack-rate", "100")
    with (
        cgroup("capped") as group,
        record("--cgroup", group.name, *options) as recording,
        load("pingpong", "--duration", 30, "--ping-cpu", allowed_cpus()[-1], within=group),
    ):
        nap = "for _ in range(60): time.sleep(0.03)"
        script = f"echo $$ > {group.procs}; exec python3 -c 'import time\n{nap}'"
        sleeper = subprocess.Popen(["sh", "-c", script])
        sleeper.wait()
    (found,) = recording.trace.sql(
        "SELECT count(*) AS n, count(stack_kernel) AS kernel FROM waits "
        f"WHERE tid = {sleeper.pid} AND kind = 'blocked' AND wait_ns > 5000000"
    ).to_pylist()
    assert found["n"] > 50
    assert found["kernel"] > 10
