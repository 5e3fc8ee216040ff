"""Processes that are born, replaced, stopped, or become Python while they are looked at."""

from __future__ import annotations

import json
import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from sltrace.analysis.python.report import python_report
from tests.support.programs import FLAGS, build
from tests.support.pythons import PROGRAMS, interpreter, naps, service, those_here
from tests.support.recorder import Record, Recorder, of_pids

pytestmark = pytest.mark.bpf

_SHARED = (*FLAGS, "-shared", "-fPIC")


def _children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def test_children_of_while_the_recorder_starts(record: Record) -> None:
    """Not a moment at which a process can be born and be seen by nobody."""
    with service("3.12", "forks", 30) as process:
        before = _children(process.pid)
        with record("--pid", process.pid) as recording:
            meanwhile = _children(process.pid)
            time.sleep(0.8)
    assert len(meanwhile - before) >= 3
    of_children = naps(recording.trace, "nap_of_a_child")
    assert [pid for pid in sorted(meanwhile) if of_children.get(pid, 0) < 3] == []
    rows = recording.trace.sql("SELECT pid, level FROM targets").to_pylist()
    assert {r["pid"] for r in rows if r["level"]} >= {process.pid, *meanwhile}


def test_who_is_stopped_waits_for_nothing(record: Record) -> None:
    with service("3.12", "burners", 30) as process:
        burners = set(json.loads(process.said))  # type: ignore[attr-defined]
        with record("--pid", process.pid) as recording:
            time.sleep(0.4)
            process.send_signal(signal.SIGSTOP)
            time.sleep(1)
            process.send_signal(signal.SIGCONT)
            time.sleep(0.4)
    rows = recording.trace.sql(
        "SELECT kind, tid, state, reason, wait_ns FROM waits WHERE wait_ns > 800000000"
    ).to_pylist()
    stopped = [r for r in rows if r["state"] == "T"]
    assert {r["tid"] for r in stopped} >= burners
    assert {r["reason"] for r in stopped} == {None}
    assert [r for r in rows if r["kind"] == "gil"] == []
    waited = recording.trace.sql("SELECT DISTINCT tid FROM waits WHERE kind = 'gil'").to_pylist()
    assert {r["tid"] for r in waited} >= burners


def test_an_exec_by_another_thread_than_the_first(record: Record) -> None:
    """It takes over the first one's number, which ends for that: the process does not."""
    other = interpreter("3.13")
    with (
        service("3.11", "thread_exec", 30, other) as process,
        record("--pid", process.pid) as recording,
    ):
        time.sleep(1)
        process.send_signal(signal.SIGUSR1)
        time.sleep(1.8)
    assert naps(recording.trace, "before_the_exec").get(process.pid, 0) > 3
    assert naps(recording.trace, "after_the_exec").get(process.pid, 0) > 3
    targets = recording.trace.sql("SELECT pid, version FROM targets ORDER BY from_ns").to_pylist()
    assert [(t["pid"], t["version"][:4]) for t in targets] == [
        (process.pid, "3.11"),
        (process.pid, "3.13"),
    ]


def test_a_process_whose_first_thread_has_ended(record: Record) -> None:
    with service("3.12", "first_ends", 30) as process:
        first = Path(f"/proc/{process.pid}/task/{process.pid}/stat")
        while first.read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        with record("--pid", process.pid) as recording:
            time.sleep(1)
    assert sum(naps(recording.trace, "nap_of_the_other").values()) > 10
    (target,) = recording.trace.sql("SELECT level, exe FROM targets").to_pylist()
    assert target["level"]
    assert "python3.12" in target["exe"]
    collections = recording.trace.sql("SELECT count(*) AS n FROM waits WHERE kind = 'stw'")
    assert collections["n"][0].as_py() > 10


_CALLING = [("3.11", 1, 10_000), ("3.12", 1, 10_000), ("3.13", 1, 10_000), ("3.13", 10, 2_000)]
"""Version, how often the threads rest between two calls, and how long (us)."""


@dataclass(frozen=True)
class Calling:
    """A process for each of _CALLING, recorded together, and what its calls logged."""

    recording: Recorder
    logs: dict[tuple[str, int, int], list[tuple[int, int, int]]]


@pytest.fixture(scope="module")
def calling(record_once: Record, tmp_path_factory: pytest.TempPathFactory) -> Calling:
    folder = tmp_path_factory.mktemp("calling")
    library = build("callbacks.so", (PROGRAMS / "callbacks.c",), flags=_SHARED)
    here = those_here(version for version, _, _ in _CALLING)
    with ExitStack() as stack:
        processes = {
            (version, rests, rest_us): stack.enter_context(
                service(
                    *(version, "callbacks", folder / f"{version}-{rests}"),
                    *(30, library, 3, rests, rest_us),
                )
            )
            for version, rests, rest_us in _CALLING
            if version in here
        }
        with record_once(*of_pids(p.pid for p in processes.values())) as recording:
            time.sleep(0.2)
            for process in processes.values():
                process.send_signal(signal.SIGUSR1)
            time.sleep(2.3)
            # The names are read while they are there.
            recording.end()
        for process in processes.values():
            process.terminate()
            process.wait()
    logs = {key: json.loads((folder / f"{key[0]}-{key[1]}").read_text()) for key in processes}
    return Calling(recording, logs)


@pytest.mark.parametrize(("version", "rests", "rest_us"), _CALLING)
def test_threads_of_c_that_call_python(
    version: str, rests: int, rest_us: int, calling: Calling
) -> None:
    """Each call has a thread state of its own, which is found in most of them."""
    interpreter(version)
    log = calling.logs[version, rests, rest_us]
    trace = calling.recording.trace
    rows = trace.sql(
        "SELECT w.tid, w.end_ns - w.wait_ns AS begin, w.end_ns, f.name FROM waits w "
        "LEFT JOIN stacks k ON k.stack_id = w.stack_runtime "
        "LEFT JOIN frames f ON f.pid = k.pid AND f.address = k.addresses[1] "
        "WHERE w.kind = 'blocked' AND w.reason = 'sleep' AND w.end_ns - w.wait_ns > ?",
        [calling.recording.started_ns + 1_000_000_000],
    ).to_pylist()
    names = [
        r["name"]
        for r in rows
        if any(tid == r["tid"] and a <= r["begin"] and r["end_ns"] <= b for tid, a, b in log)
    ]
    print(f"\n{version}, {rests} rests: {names.count('callback')} of {len(names)}")
    assert len(names) > 50
    # They rest in epoll, but that is outside of all Python.
    assert trace.sql("SELECT 1 FROM waits WHERE kind = 'loop'").num_rows == 0
    assert set(names) <= {"callback", None}
    assert names.count("callback") > 0.6 * len(names)


def test_programs_that_are_started_are_no_targets(record: Record) -> None:
    """A child is a copy of its parent, until it is another program."""
    with service("3.12", "runs", 30) as process, record("--pid", process.pid) as recording:
        time.sleep(2)
        # The last child, too, is another program by the end.
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.3)
    rows = recording.trace.sql("SELECT pid, level, why, from_ns FROM targets").to_pylist()
    print(f"\n{rows}")
    assert [r["pid"] for r in rows if r["level"]] == [process.pid]
    # Who was there when the recorder began counts as named.
    began = recording.started_ns + 100_000_000
    assert [r for r in rows if r["from_ns"] > began] == []
    started = recording.trace.sql("SELECT DISTINCT pid FROM tasks WHERE comm = 'true'")
    assert started.num_rows > 10


def test_workers_that_are_replaced_have_the_disease_of_their_service(record: Record) -> None:
    """By how long each lived, not by how long was recorded."""
    with service("3.12", "replaced", 60) as process, record("--pid", process.pid) as recording:
        assert process.stdout
        workers: list[int] = []
        while len(workers) < 3:
            born, worker = map(int, process.stdout.readline().split())
            workers += [worker] * (born > recording.started_ns)
    trace = recording.trace
    lived = trace.sql("SELECT pid FROM targets WHERE pid <> ?", [process.pid]).to_pylist()
    assert {r["pid"] for r in lived} >= set(workers)
    found = [f for f in python_report(trace).findings if f.name == "gil_hog"]
    print(f"\n{[f.sentence for f in found]}")
    assert found
    assert {f.pid for f in found} <= {r["pid"] for r in lived}
    assert all("compute (replaced.py" in f.sentence for f in found)


@pytest.mark.parametrize(("program", "place"), [("at_times", "synchronous"), ("events", "handle")])
def test_what_is_on_no_loop_blocks_none(program: str, place: str, record: Record) -> None:
    """A loop that is run at times, and a thread that asks epoll at times."""
    with service("3.12", program, 30) as process, record("--pid", process.pid) as recording:
        time.sleep(2)
    trace = recording.trace
    assert naps(trace, place).get(process.pid, 0) > 5
    loops = trace.sql("SELECT tid, wait_ns FROM waits WHERE kind = 'loop'").to_pylist()
    assert len(loops) > 3
    # A loop that has ended does not go on until the next one begins.
    assert [r for r in loops if r["tid"] == process.pid and r["wait_ns"] > 90_000_000] == []
    assert [f.sentence for f in python_report(trace).findings if f.name == "loop_blocked"] == []


@pytest.mark.parametrize("options", [(), ("--python-loops",)])
def test_threads_of_a_pool_that_ask_epoll_are_no_loops(
    options: tuple[str, ...], record: Record
) -> None:
    """As gunicorn's do, of the connection they were given: then they wait for the next."""
    with (
        service("3.12", "pooled", 30) as process,
        record("--pid", process.pid, *options) as recording,
    ):
        time.sleep(1.5)
    rows = recording.trace.sql(
        "SELECT tid, count(*) FILTER (kind = 'loop') AS loops, "
        "count(*) FILTER (reason = 'poll') AS polls FROM waits GROUP BY tid"
    ).to_pylist()
    loops = {r["tid"]: r["loops"] for r in rows if r["polls"] > 5}
    assert loops.pop(process.pid) > 10
    assert list(loops.values()) == [0] * 3


def test_a_server_in_c_that_python_called_is_told_by_its_file(record: Record) -> None:
    """Also where no sample caught it on a CPU: as a rule it sleeps."""
    library = build("pyuwsgi.so", (PROGRAMS / "callbacks.c",), flags=_SHARED)
    with service("3.12", "served", 30, library) as process, record("--pid", process.pid) as running:
        time.sleep(1.5)
    loops = running.trace.sql("SELECT count(*) AS n FROM waits WHERE kind = 'loop'").to_pylist()
    assert loops[0]["n"] > 5
    report = python_report(running.trace)
    assert (report.loops, report.findings) == ([], [])


@pytest.mark.parametrize("version", ["3.11", "3.13"])
def test_a_child_that_c_forked(version: str, record: Record) -> None:
    """As uWSGI's workers without threads: CPython was not told, and has its parent's number."""
    with service(version, "cforked", 30) as process:
        (child,) = _children(process.pid)
        with record("--pid", child) as recording:
            time.sleep(1)
    targets = recording.trace.sql("SELECT pid, level, why FROM targets").to_pylist()
    assert targets == [{"pid": child, "level": 1, "why": ""}]
    assert naps(recording.trace, "nap_of_the_child").get(child, 0) > 3


@pytest.mark.parametrize("name", ["3.12", "3.14"])
def test_code_in_the_place_of_other_code_has_its_own_name(record: Record, name: str) -> None:
    """Each rule is dropped before the next is made, which comes to the same addresses."""
    with service(name, "rules", 60, 300) as process, record("--pid", process.pid) as recording:
        assert process.stdout
        rules: list[tuple[str, int]] = []
        # Two of them from their first nap to their last.
        while len(rules) < 3:
            rule, begun = process.stdout.readline().split()
            rules += [(rule, int(begun))] * (int(begun) > recording.started_ns)
    rows = recording.trace.sql(
        "SELECT f.name, w.end_ns FROM waits w JOIN stacks k ON k.stack_id = w.stack_runtime "
        "JOIN frames f ON f.pid = k.pid AND f.address = k.addresses[1] "
        "WHERE w.kind = 'blocked' AND w.reason = 'sleep' AND starts_with(f.name, 'rule_') "
        "ORDER BY w.end_ns"
    ).to_pylist()
    # What is noticed is noticed half a second later, and read another half.
    for (rule, _), (_, end_ns) in pairwise(rules):
        last = [r["name"] for r in rows if r["end_ns"] < end_ns][-20:]
        assert last == [rule] * 20
    assert any("made room for others" in note for note in python_report(recording.trace, 5).notes)
