"""Where threads wait for locks, and which of that is idle workers, from rows made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sltrace.analysis.python.report import python_report
from sltrace.trace.reader import Trace
from tests.support.traces import SECOND, make_trace

PID, STACK = 100, 9
_SITE = "/srv/lib/python3.11/site-packages"
_LIBRARY = "/usr/lib/python3.11"

Frame = tuple[str, str]
"""Function and file."""


def report(folder: Path, *frames: Frame) -> tuple[list[str], list[bool]]:
    """Four threads that end each other's waits, whose innermost frame is the first of `frames`.

    Returns:
        What is said of convoys, and whether each place is one of idle workers.
    """
    waits: list[dict[str, Any]] = [
        {
            "kind": "blocked",
            "reason": "lock",
            "pid": PID,
            "tid": PID + number % 4,
            "waker_tid": PID + (number + 3) % 4,
            "end_ns": SECOND + number * 10_000_000,
            "wait_ns": 400_000_000,
            "stack_runtime": STACK,
            "trace_id": "1" * 32,
        }
        for number in range(80)
    ]
    rows = [
        {
            "space": "python",
            "pid": PID,
            "address": 1 + at,
            "name": name,
            "module": file.rpartition("/")[2],
            "file": file,
            "line": 7,
            "language": "python",
        }
        for at, (name, file) in enumerate(frames)
    ]
    addresses = [row["address"] for row in rows]
    stacks = [{"stack_id": STACK, "space": "python", "pid": PID, "addresses": addresses}]
    target = {"pid": PID, "runtime": "python", "level": 1, "from_ns": 0}
    made = make_trace(folder, waits, stacks=stacks, frames=rows, targets=[target])
    found = python_report(Trace.open(made))
    return [f.what for f in found.findings], [lock.idle for lock in found.locks]


WAIT = ("Condition.wait", f"{_LIBRARY}/threading.py")
HANDLER = ("handler", "/srv/app.py")


@pytest.mark.parametrize(
    ("frames", "place"),
    [
        # Redis' client, in a file that is called as one of multiprocessing's.
        (
            (
                WAIT,
                ("Queue.get", f"{_LIBRARY}/queue.py"),
                ("BlockingConnectionPool.get_connection", f"{_SITE}/redis/connection.py"),
                HANDLER,
            ),
            "queue in BlockingConnectionPool.get_connection (connection.py:7)",
        ),
        # SQLAlchemy's pool, on a queue of its own.
        (
            (
                WAIT,
                ("Queue.get", f"{_SITE}/sqlalchemy/util/queue.py"),
                ("QueuePool._do_get", f"{_SITE}/sqlalchemy/pool/impl.py"),
                HANDLER,
            ),
            "queue in QueuePool._do_get (impl.py:7)",
        ),
        ((("Orders.put", "/srv/orders/queue.py"), HANDLER), "lock in Orders.put (queue.py:7)"),
        ((("Bucket.take", "threading_limits/pool.py"),), "lock in Bucket.take (pool.py:7)"),
    ],
)
def test_files_that_are_called_as_those_of_the_library(
    frames: tuple[Frame, ...], place: str, tmp_path: Path
) -> None:
    (said,), idle = report(tmp_path, *frames)
    assert f"4 threads queued for a {place}," in said
    assert idle == [False]


@pytest.mark.parametrize(
    "frames",
    [
        (("_worker", f"{_LIBRARY}/concurrent/futures/thread.py"),),
        (("_worker", "concurrent/futures/thread.py"),),
        (WAIT, ("Thread.run", f"{_LIBRARY}/threading.py")),
        (WAIT, ("Thread.run", "threading.py")),
        (WAIT, ("Thread.run", "/srv/python311.zip/threading.py")),
        (WAIT, ("Thread.run", "/src/cpython/Lib/threading.py")),
        (("worker", f"{_LIBRARY}/multiprocessing/pool.py"),),
        (("SimpleQueue.get", f"{_SITE}/billiard/connection.py"),),
    ],
)
def test_workers_of_the_library_wherever_it_is(frames: tuple[Frame, ...], tmp_path: Path) -> None:
    assert report(tmp_path, *frames) == ([], [True])
