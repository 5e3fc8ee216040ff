"""When a recording starts: who is on a queue then, and who only sleeps there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sltrace.model import Flag
from sltrace.trace.reader import Trace
from tests.support.loads import allowed_cpus
from tests.support.programs import SOURCES
from tests.support.recorder import sltrace

pytestmark = [pytest.mark.bpf, pytest.mark.alone]

_DOZERS, _STARTS = 60, 4


def test_who_sleeps_on_a_queue_does_not_wait(tmp_path: Path) -> None:
    """Since 6.12 a task that goes to sleep may stay on its queue for a while.

    A recording that starts then finds it there, beside those that wait for the CPU.
    """
    dozers = subprocess.Popen(
        [sys.executable, SOURCES / "dozers.py", str(_DOZERS), str(allowed_cpus()[0]), "7"],
        stdout=subprocess.PIPE,
        text=True,
    )
    traces = []
    for number in range(_STARTS):
        path = tmp_path / f"{number}.slt"
        done = sltrace("record", "-o", path, "-d", "0.4", "--no-python", "--no-go")
        assert done.code == 0, done.err
        traces.append(Trace.open(path))
    said, _ = dozers.communicate(timeout=60)
    sleeps = {(line := json.loads(text))["pid"]: line["sleeps"] for text in said.splitlines()}
    assert len(sleeps) == _DOZERS
    waiting, asleep, wrong = 0, 0, []
    for trace in traces:
        started = {}
        for row in trace.sql(
            "SELECT tid, end_ns - wait_ns AS start_ns FROM waits "
            "WHERE flags & $1 AND kind = 'runq_preempt'",
            (int(Flag.CENSORED),),
        ).to_pylist():
            started[row["tid"]] = row["start_ns"]
        moment = min(started.values(), default=0)
        for pid, spans in sleeps.items():
            slept = any(begin <= started.get(pid, moment) < end for begin, end in spans)
            asleep += slept
            waiting += pid in started
            if slept and pid in started:
                wrong.append((pid, started[pid]))
    print(f"\nat {_STARTS} starts {waiting} dozers waited and {asleep} slept")
    assert waiting > 20
    assert asleep > 20
    assert wrong == []
