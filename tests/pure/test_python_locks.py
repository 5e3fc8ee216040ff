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


def wait(number: int, *, tid: int, waker: int, stack: int = STACK) -> dict[str, Any]:
    """One of the waits for a lock, of 0.4 s."""
    return {
        "kind": "blocked",
        "reason": "lock",
        "pid": PID,
        "tid": tid,
        "waker_tid": waker,
        "end_ns": SECOND + number * 10_000_000,
        "wait_ns": 400_000_000,
        "stack_runtime": stack,
    }


def findings(
    folder: Path, waits: list[dict[str, Any]], stacks: dict[int, tuple[Frame, ...]]
) -> tuple[list[str], list[bool]]:
    """What is said of convoys, and whether each place is one of idle workers.

    Args:
        folder: For the trace.
        waits: Its waits.
        stacks: Their stacks by id, innermost frames first.
    """
    addresses = {frame: 1 + at for at, frame in enumerate({f for s in stacks.values() for f in s})}
    rows = [
        {
            "space": "python",
            "pid": PID,
            "address": address,
            "name": name,
            "module": file.rpartition("/")[2],
            "file": file,
            "line": 7,
            "language": "python",
        }
        for (name, file), address in addresses.items()
    ]
    walks = [
        {"stack_id": id_, "space": "python", "pid": PID, "addresses": [addresses[f] for f in stack]}
        for id_, stack in stacks.items()
    ]
    target = {"pid": PID, "runtime": "python", "level": 1, "from_ns": 0}
    folder.mkdir(exist_ok=True)
    made = make_trace(folder, waits, stacks=walks, frames=rows, targets=[target])
    found = python_report(Trace.open(made))
    return [f.sentence for f in found.findings], [lock.idle for lock in found.locks]


def of_requests(folder: Path, *frames: Frame) -> tuple[list[str], list[bool]]:
    """Of four threads in traces that end each other's waits, all with this stack."""
    waits = [
        wait(number, tid=PID + number % 4, waker=PID + (number + 3) % 4) | {"trace_id": "1" * 32}
        for number in range(80)
    ]
    return findings(folder, waits, {STACK: frames})


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
    (said,), idle = of_requests(tmp_path, *frames)
    assert f"4 threads queued for a {place}," in said
    assert idle == [False]


def test_who_never_waits_for_what_it_gives_back_is_one_of_the_pool(tmp_path: Path) -> None:
    """Two threads always take it again before the others wake; all three wait for their work."""
    worker = ("_worker", f"{_LIBRARY}/concurrent/futures/thread.py")
    pool = (WAIT, ("Pool.take", "/srv/pool.py"), HANDLER, worker)
    waits = [
        wait(number, tid=PID + number % 3, waker=PID + 3 + number % 2, stack=1)
        for number in range(80)
    ]
    waits += [wait(number, tid=PID + number, waker=PID + 9, stack=2) for number in range(5)]
    said, idle = findings(tmp_path, waits, {1: pool, 2: (worker,)})
    assert "3 threads queued for a condition in Pool.take (pool.py:7)," in said[0]
    assert idle == [False, True]
    # Who has nothing to do with that work is no part of a pool: these wait for what it makes.
    waits = [wait(number, tid=PID + number % 3, waker=PID + 9, stack=1) for number in range(80)]
    waits += [wait(number, tid=PID + number, waker=PID + 9, stack=2) for number in range(3)]
    assert findings(tmp_path / "other", waits, {1: pool, 2: (worker,)}) == ([], [True, True])


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
    assert of_requests(tmp_path, *frames) == ([], [True])


@pytest.mark.parametrize(("else_ns", "idle"), [(10_000, True), (100_000, False)])
def test_a_job_that_goes_round_is_no_convoy(else_ns: int, idle: bool, tmp_path: Path) -> None:
    """Whoever hands it over waits for it again at once; who has had a lock has something to do."""
    threads, hold_ns = 4, 2_000_000
    waits = [
        wait(0, tid=PID + turn % threads, waker=PID + (turn - 1) % threads)
        | {
            "end_ns": SECOND + turn * hold_ns,
            "wait_ns": (threads - 1) * hold_ns - else_ns,
        }
        for turn in range(400)
    ]
    assert findings(tmp_path, waits, {STACK: (HANDLER,)})[1] == [idle]
