"""Services that nobody here wrote, under load: followed, told apart by trace, and unharmed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.pythons import PROGRAMS
from tests.support.recorder import Record

pytestmark = pytest.mark.bpf


@contextmanager
def _server(log: Path, *command: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server that says the port it has chosen in its log; the process and the port."""
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=out, stderr=out, cwd=PROGRAMS
        )
    try:
        deadline = time.monotonic() + 30
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield process, int(found[1])
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _load(port: int, seconds: float, paths: tuple[str, ...] = ("/",)) -> tuple[set[str], int]:
    """Requests by four clients; the trace ids of the answers, and how many requests failed."""
    ids: set[str] = set()
    failed = 0
    until = time.monotonic() + seconds

    def client(path: str) -> None:
        nonlocal failed
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as got:
                    ids.add(json.load(got)["trace_id"])
            except (OSError, ValueError, urllib.error.URLError):
                failed += 1

    clients = [threading.Thread(target=client, args=(paths[i % len(paths)],)) for i in range(4)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    return ids, failed


def _check(recording_trace, ids: set[str], place: str) -> None:  # type: ignore[no-untyped-def]
    rows = recording_trace.sql(
        "SELECT w.trace_id, w.reason, f.name FROM waits w "
        "JOIN stacks k ON k.stack_id = w.stack_runtime "
        "JOIN frames f ON f.pid = k.pid AND f.address = k.addresses[1] "
        "WHERE w.kind = 'blocked' AND w.reason = 'sleep'"
    ).to_pylist()
    mine = [r for r in rows if r["name"] == place]
    assert len(mine) > 50
    known = [r for r in mine if r["trace_id"] is not None]
    print(f"\n{place}: {len(mine)} sleeps, {len(known)} with a trace id, {len(ids)} requests")
    # All but those before the SDK's variables had been found.
    assert len(known) > 0.8 * len(mine)
    # None is of a request that never was; the client that was cut off at the end has no answer.
    assert len({r["trace_id"] for r in known} - ids) <= 4


def test_gunicorn_with_flask(record: Record, tmp_path: Path) -> None:
    command = ("gunicorn", "-w", "2", "--threads", "2", "-b", "127.0.0.1:0", "flask_app:app")
    with _server(tmp_path / "log", *command) as (process, port):
        _load(port, 0.5)
        with record("--pid", process.pid) as recording:
            ids, failed = _load(port, 2.5)
            # A worker that dies is replaced: the new one is followed from its fork on.
            worker = int(
                Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
            )
            os.kill(worker, 9)
            time.sleep(1)
            more, _ = _load(port, 1)
        assert process.poll() is None
    assert failed == 0
    _check(recording.trace, ids | more, "query")
    targets = recording.trace.sql("SELECT pid, level, why FROM targets").to_pylist()
    assert len({t["pid"] for t in targets if t["level"]}) >= 4, targets


def test_uvicorn_with_fastapi(record: Record, tmp_path: Path) -> None:
    command = ("uvicorn", "--port", "0", "--log-level", "info", "--no-access-log",
               "fastapi_app:app")  # fmt: skip
    with _server(tmp_path / "log", *command) as (process, port):
        _load(port, 0.5, ("/", "/thread"))
        with record("--pid", process.pid) as recording:
            ids, failed = _load(port, 2.5, ("/", "/thread"))
        assert process.poll() is None
    assert failed == 0
    _check(recording.trace, ids, "blocking")
    loops = recording.trace.sql(
        "SELECT tid, count(*) AS n FROM waits WHERE kind = 'loop' AND pid = ? GROUP BY tid",
        (process.pid,),
    ).to_pylist()
    assert [r["tid"] for r in loops] == [process.pid]
