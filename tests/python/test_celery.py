"""A Celery worker under load that runs Pyroscope's client: waits, trace ids and its profiles."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sltrace.analysis.cubeprofiles import Stretch
from sltrace.analysis.part import Whole
from sltrace.profiles import profile_pb2 as pb
from sltrace.profiles.pprof import Profile
from sltrace.profiles.stored import stored_profiles
from sltrace.trace.reader import Trace
from tests.support.pythons import PROGRAMS
from tests.support.recorder import Record
from tests.support.spanlog import checked

pytestmark = pytest.mark.bpf

_FIRST = 8
_TASKS = 120
_COMPUTED_S = 0.008
"""Of each task, as its thread's own clock says."""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def _worker(folder: Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that is ready, with tasks in its queue that it has not looked at yet."""
    for name in ("queue", "control", "out"):
        (folder / name).mkdir(parents=True)
    variables = {**os.environ, "CELERY_FOLDER": str(folder), **env}
    said = folder / "said"
    with said.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "-P", "threads", "-c",
             "4", "-n", "test"],
            stdout=out, stderr=out, cwd=PROGRAMS, env=variables,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while b"worker is ready" not in said.read_bytes():
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def _sender(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Sends a few tasks at once, and the rest when its input is closed."""
    code = (
        "import sys, celery_app as c\n"
        f"c.send(range({_FIRST}))\n"
        "sys.stdin.read()\n"
        f"c.send(range({_FIRST}, {_TASKS}))"
    )
    env = {**os.environ, "CELERY_FOLDER": str(folder), "CELERY_OUT": str(folder / "out")}
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=PROGRAMS, env=env, stdin=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _await_tasks(log: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while not log.exists() or log.read_text().count("\n") < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _capabilities(pid: int) -> set[int]:
    """Effective ones of each thread of a process."""
    statuses = (t / "status" for t in Path(f"/proc/{pid}/task").iterdir())
    lines = (line for s in statuses for line in s.read_text().splitlines())
    return {int(line.split()[1], 16) for line in lines if line.startswith("CapEff")}


def test_waits_have_their_trace_and_the_profiles_are_there(record: Record, tmp_path: Path) -> None:
    folder, port = tmp_path / "celery", _free_port()
    with (
        _worker(folder, PYROSCOPE=f"http://127.0.0.1:{port}") as worker,
        _sender(folder) as sender,
    ):
        # So that its threads are in spans already: ids are not looked for all the time.
        _await_tasks(folder / "log", _FIRST)
        options = ("--pid", worker.pid, "--python-rate", 0, "--pyroscope-listen", port)
        with record(*options) as recording:
            assert 0 in _capabilities(recording.pid)
            assert sender.stdin
            sender.stdin.close()
            _await_tasks(folder / "log", _TASKS)
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(30) == 0
            recording.wait()
    log = (folder / "log").read_text().splitlines()
    assert len(log) == _TASKS
    trace = recording.trace
    found = checked(trace, folder / "log")
    print(f"\n{found}")
    assert found.wrong == 0
    assert found.right > _TASKS
    assert found.missing <= 0.05 * found.right
    assert trace.meta["sources"]["profiles"]["refused"] == {}
    profiles = trace.sql("SELECT * FROM profiles ORDER BY ns").to_pylist()
    assert len(profiles) >= 2
    assert {(p["source"], p["app"], p["measure"]) for p in profiles} == {("push", "shop", "cpu")}
    assert all(json.loads(p["labels"])["region"] == "eu" for p in profiles)
    assert all(p["ns"] - 2e9 < p["end_ns"] <= p["ns"] for p in profiles)
    computed = _time_by_span([p["profile"] for p in profiles], "compute")
    # The client sets one after the other.
    unlabelled = sum(computed.pop(ids) for ids in list(computed) if None in ids)
    spans = {tuple(line.split()[3:]) for line in log}
    assert len(spans) == _TASKS
    assert set(computed) <= spans
    # Samples 100 times a second, which also hit a thread that was told to go on and has no CPU yet.
    total = sum(computed.values()) / 1e9
    print(f"{len(profiles)} pushes, {total:.2f} s in compute, {len(computed)} spans")
    assert unlabelled < 0.2 * 1e9 * total
    (stored,), notes = stored_profiles(trace)
    assert (stored.where, notes) == ("shop{region=eu}", [])
    mine = {(x.trace_id, x.span_id): 0 for x in stored.labels}
    for stack, labels, ns in zip(stored.stacks, stored.labels, stored.values, strict=True):
        if "compute" in {stored.frames[i].name for i in stack}:
            mine[labels.trace_id, labels.span_id] += ns
    assert {ids: ns for ids, ns in mine.items() if ns and all(ids)} == computed
    assert 0.7 * _TASKS * _COMPUTED_S < total < 4 * (trace.meta["overhead"]["wall_ns"] / 1e9)
    _check_windows(trace, stored, profiles)


def _check_windows(trace: Trace, stored: Profile, pushes: list[dict[str, Any]]) -> None:
    """What a page shows of the pushes, in all of it and where only one of them was under way."""
    whole = Whole(trace, [stored])
    cube = whole.cube()
    times = [(p["start_ns"], p["end_ns"]) for p in pushes]
    sent = [sum(_time_by_span([p["profile"]]).values()) for p in pushes]
    assert {t for p, t in zip(sent, times, strict=True) if p} == {
        (cube.start_ns + w[0], cube.start_ns + w[1]) for w in cube.profile_windows if w
    } - {(min(s for s, _ in times), max(e for _, e in times))}
    shown = 0
    for (start, end), total in zip(times, sent, strict=True):
        inside = (start + (end - start) // 4, end - (end - start) // 4)
        if any(s < inside[1] and e > inside[0] for s, e in times if (s, e) != (start, end)):
            continue
        # What was taken before the recording belongs to its first moment.
        if inside[0] <= trace.meta["clock"]["start_ns"]:
            continue
        part = whole.with_profiles(whole.part(*inside, 10), Stretch(*inside))
        windows = {part.profile_windows[w] for w in part.profile_rows["window"].tolist()}
        assert windows <= {(start - part.start_ns, end - part.start_ns)}
        assert part.profile_rows["value"].sum() <= total
        shown += bool(windows)
    assert shown


def _time_by_span(
    profiles: list[bytes], name: str = ""
) -> dict[tuple[str | None, str | None], int]:
    """Time by trace and span id, of samples that have a function of this name, or of all."""
    found: dict[tuple[str | None, str | None], int] = {}
    for data in profiles:
        message: Any = pb.Profile()  # type: ignore[attr-defined]
        message.ParseFromString(data)
        text = message.string_table
        named = {f.id for f in message.function if text[f.name] == name}
        places = {x.id for x in message.location if any(i.function_id in named for i in x.line)}
        for sample in message.sample:
            if name and places.isdisjoint(sample.location_id):
                continue
            labels = {text[x.key]: text[x.str] for x in sample.label}
            # The client sets them a moment after it is told to.
            ids = labels.get("trace_id"), labels.get("span_id")
            found[ids] = found.get(ids, 0) + sample.value[0]
    return found
