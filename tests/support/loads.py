"""Runs the load programs of tests/programs and reads what their threads report."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.support.cgroups import Cgroup
from tests.support.programs import program


class LoadError(Exception):
    """A load failed or did not end in time; `exit_code` is None in the second case."""

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class ThreadReport:
    """What the kernel said about one thread between its two readings (times in ns, MONOTONIC).

    The thread lived a little before `start_ns` (its creation; `run_delay_before_ns` of waiting)
    and tens of microseconds after `end_ns` (its exit), with perhaps a wait or two in each.
    """

    role: str
    pid: int
    tid: int
    ns_tid: int
    policy: int
    start_ns: int
    end_ns: int
    cpu_ns: int
    run_delay_ns: int
    timeslices: int
    nvcsw: int
    nivcsw: int
    run_delay_before_ns: int


@dataclass(frozen=True)
class Outcome:
    """A finished load: its threads, and its own counters by name in `values`."""

    program: str
    threads: tuple[ThreadReport, ...]
    values: dict[str, Any]

    def by_role(self, role: str) -> list[ThreadReport]:
        """Threads of one role, such as `hog`."""
        return [t for t in self.threads if t.role == role]

    def one(self, role: str) -> ThreadReport:
        """The only thread of a role."""
        (thread,) = self.by_role(role)
        return thread


@dataclass
class Load:
    """A running load program."""

    name: str
    process: subprocess.Popen[bytes]
    timeout: float
    _out: IO[bytes] = field(repr=False)
    _err: IO[bytes] = field(repr=False)

    @property
    def pid(self) -> int:
        """Process id of the program (of the outermost command, where there is a prefix)."""
        return self.process.pid

    def stop(self) -> None:
        """Asks it to end now; `outcome` then gets what it has."""
        self.process.terminate()

    def outcome(self) -> Outcome:
        """Waits for the end.

        Raises:
            LoadError: It failed, or ran on for longer than its timeout.
        """
        try:
            code = self.process.wait(self.timeout)
        except subprocess.TimeoutExpired:
            raise LoadError(f"{self.name} did not end within {self.timeout} s") from None
        self._out.seek(0)
        self._err.seek(0)
        if code:
            message = self._err.read().decode("utf-8", "replace").strip()
            raise LoadError(f"{self.name} ended with {code}: {message}", code)
        return _parse(json.loads(self._out.read()))

    def kill(self) -> None:
        """Ends it for good, unless it has ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._out.close()
        self._err.close()


@contextmanager
def load(
    name: str,
    *args: str | int | Path,
    prefix: Sequence[str] = (),
    within: Cgroup | None = None,
    timeout: float = 70,
) -> Iterator[Load]:
    """Starts a load program; killed at the end of the block if it is still there.

    Args:
        name: Program, e.g. `contend`.
        args: Its arguments.
        prefix: A command to run it under, e.g. `pinned(1)`.
        within: cgroup it joins before anything else.
        timeout: Seconds `outcome` waits for it, from then.
    """
    command = [*prefix, str(program(name)), *map(str, args)]
    # Files, not pipes: a load must never wait for its reader.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            joining(command, within), stdin=subprocess.DEVNULL, stdout=out, stderr=err
        )
        running = Load(name, process, timeout, out, err)
        try:
            yield running
        finally:
            running.kill()


def run(
    name: str,
    *args: str | int | Path,
    prefix: Sequence[str] = (),
    within: Cgroup | None = None,
    timeout: float = 70,
) -> Outcome:
    """Runs a load program to its end; arguments as for `load`.

    Raises:
        LoadError: It failed, or did not end in time.
    """
    with load(name, *args, prefix=prefix, within=within, timeout=timeout) as running:
        return running.outcome()


def joining(command: list[str], within: Cgroup | None) -> list[str]:
    """A command that is in a cgroup, if one is given, before anything else."""
    if within is None:
        return command
    # The shell becomes the command, so nothing of it ever runs outside the cgroup.
    script = 'echo $$ > "$0" && exec "$@"'
    return ["/bin/sh", "-c", script, str(within.procs), *command]


def pinned(cpu: int) -> list[str]:
    """Prefix that keeps a program on one CPU."""
    return ["taskset", "-c", str(cpu)]


def in_pid_namespace() -> list[str]:
    """Prefix that runs a program in a new pid namespace; reports give host `tid` and `ns_tid`."""
    return ["unshare", "--pid", "--fork", "--kill-child"]


def allowed_cpus() -> list[int]:
    """CPUs this process may use, in order."""
    return sorted(os.sched_getaffinity(0))


def nested_births(
    parent: Cgroup, depth: int = 3, sleep_s: float = 0.1
) -> Iterable[tuple[Cgroup, Outcome]]:
    """Makes cgroups inside each other one by one, with a short-lived load in each.

    On v2 a cgroup with processes cannot have children with controllers, so each load ends before
    the next cgroup is made, and the load runs in a leaf beside it.

    Args:
        parent: Where the outermost is made, e.g. the cgroup a recording is filtered by.
        depth: How many levels.
        sleep_s: Pause before each, so that the births spread over the recording.

    Yields:
        The cgroup each load ran in, and the load's outcome.
    """
    level = parent
    for number in range(depth):
        time.sleep(sleep_s)
        level = level.child(f"level{number}")
        leaf = level.child("leaf")
        yield leaf, run("victim", "--duration", 1, "--comm", f"nested{number}", within=leaf)


def read_schedstat(pid: int, tid: int | None = None) -> tuple[int, int, int]:
    """CPU time (ns), run delay (ns) and time slices of another thread."""
    path = Path(f"/proc/{pid}/task/{tid or pid}/schedstat")
    cpu_ns, delay_ns, slices = path.read_text(encoding="ascii").split()
    return int(cpu_ns), int(delay_ns), int(slices)


def queued_ns(pid: int) -> int:
    """How long the threads of a process have waited for a CPU so far."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(read_schedstat(pid, int(thread.name))[1] for thread in threads)


def stolen_ns() -> int:
    """Time the hypervisor has taken from all CPUs so far, in whole ticks of 10 ms.

    It is in a thread's wall time, but neither in its CPU time nor in its run delay.
    """
    first = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
    return int(first.split()[8]) * 10_000_000


def voluntary_switches(task: Path) -> int:
    """How often a thread has given up its CPU so far; `task` is its folder in /proc."""
    status = (task / "status").read_text(encoding="utf-8", errors="replace")
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def put_first(pid: int) -> None:
    """Gives a process the CPU before all others: what they do must not look like its doing.

    Once the recorder has attached, which it would not come to else on a busy machine.
    """
    for task in Path(f"/proc/{pid}/task").iterdir():
        # A thread may have ended meanwhile.
        with contextlib.suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, int(task.name), -20)


def until_switched(times: int, *pids: int, timeout: float = 60) -> None:
    """Waits until the threads of each process have given up their CPU so often from now.

    How often a program has slept, on a machine of any speed.
    """
    deadline = time.monotonic() + timeout
    enough = {pid: _switches(pid) + times for pid in pids}
    while late := [pid for pid, n in enough.items() if _switches(pid) < n]:
        if time.monotonic() > deadline:
            raise LoadError(f"processes {late} did not sleep {times} times in {timeout} s")
        time.sleep(0.02)


def _switches(pid: int) -> int:
    """Voluntary switches of the threads that a process has."""
    found = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        # A thread may have ended meanwhile.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += voluntary_switches(task)
    return found


def _parse(document: dict[str, Any]) -> Outcome:
    rows = document.pop("threads")
    with contextlib.suppress(KeyError):
        # rename: the stages before its exec are a document of their own.
        rows = document.pop("first")["threads"] + rows
    threads = tuple(ThreadReport(**row) for row in rows)
    return Outcome(document.pop("program"), threads, document)
