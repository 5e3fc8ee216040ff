"""Recording for real, into a temporary folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from sltrace.trace.reader import Trace
from tests.support.loads import Outcome, allowed_cpus, run
from tests.support.recorder import recorder


@dataclass(frozen=True)
class Contended:
    """The whole machine recorded under a load of every kind of thread.

    `ctxt` is the kernel's count of context switches: before the recorder was started, when it
    had attached, before it was told to stop, and when it was gone.
    """

    trace: Trace
    outcome: Outcome
    ctxt: tuple[int, int, int, int]
    recorder_pid: int


def context_switches_so_far() -> int:
    """`ctxt` of /proc/stat: switches of all CPUs since boot."""
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        if line.startswith("ctxt "):
            return int(line.split()[1])
    raise AssertionError("/proc/stat has no ctxt")


@pytest.fixture(scope="session")
def contended(tmp_path_factory: pytest.TempPathFactory) -> Contended:
    path = tmp_path_factory.mktemp("contended") / "all.slt"
    ctxt = [context_switches_so_far()]
    with recorder(path) as recording:
        ctxt.append(context_switches_so_far())
        outcome = run("contend", "--duration", 4)
        ctxt.append(context_switches_so_far())
    first, attached, told, gone = (*ctxt, context_switches_so_far())
    return Contended(recording.trace, outcome, (first, attached, told, gone), recording.pid)


@dataclass(frozen=True)
class Traps:
    """One recording of the whole machine in which one load after the other ran."""

    trace: Trace
    outcomes: dict[str, Outcome]


@pytest.fixture(scope="session")
def traps(tmp_path_factory: pytest.TempPathFactory) -> Traps:
    """Loads that the popular tools get wrong; the tests look at one each."""
    path = tmp_path_factory.mktemp("traps") / "all.slt"
    here, there = (*allowed_cpus(), *allowed_cpus())[:2]
    with recorder(path) as recording:
        outcomes = {
            "across": run("pingpong", "--duration", 2, "--ping-cpu", here, "--pong-cpu", there),
            "futex": run("pingpong", "--duration", 1, "--via", "futex", "--ping-cpu", here),
            "timer": run("victim", "--duration", 1, "--cpu", there),
            "wakerun": run("wakerun", "--duration", 2),
            "interrupted": run("interrupted", "--duration", 1),
            "signals": run("interrupted", "--duration", 1, "--period-us", 0),
            "longcall": run("longcall", "--duration", 2),
            "migrate": run("migrate", "--duration", 2),
            "pidreuse": run("pidreuse", "--lives", 40),
            "exitstorm": run("exitstorm", "--duration", 1, "--report"),
        }
    return Traps(recording.trace, outcomes)
