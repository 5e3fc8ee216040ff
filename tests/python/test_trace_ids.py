"""Trace and span ids of waits against the process's own log of which span it was in when."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from sltrace.target.memory import Memory
from sltrace.target.python.interpreter import find
from sltrace.target.python.otel import find_nodes
from sltrace.trace.reader import Trace
from tests.python.conftest import Contending
from tests.support.loads import until_switched
from tests.support.programs import ROOT
from tests.support.pythons import WANTED, interpreter, service, those_here
from tests.support.recorder import Record, of_pids
from tests.support.spanlog import checked

pytestmark = pytest.mark.bpf

_LEAST = 4_000
"""Of each of WANTED: 24,000 in all."""


@dataclass(frozen=True)
class Spans:
    """Two processes that each log which thread was in which span when, recorded together."""

    trace: Trace
    pids: dict[str, int]
    logs: Path


@pytest.fixture(scope="module")
def spans(record_once: Record, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Spans]:
    here = those_here(WANTED)

    @cache
    def recorded(pair: int) -> Spans:
        logs = tmp_path_factory.mktemp("spans")
        with ExitStack() as stack:
            processes = {
                version: stack.enter_context(
                    service(version, "spans", logs / version, 60, packages=True)
                )
                for version in here[2 * pair : 2 * pair + 2]
            }
            pids = {version: process.pid for version, process in processes.items()}
            with record_once(*of_pids(pids.values()), "--python-rate", 0) as recording:
                time.sleep(2.5)
                until_switched(2_000, *pids.values())
            for process in processes.values():
                process.terminate()
                process.wait(20)
        return Spans(recording.trace, pids, logs)

    return lambda version: recorded(here.index(version) // 2)


@pytest.mark.parametrize("version", WANTED)
def test_no_wait_has_another_span_than_its_thread(
    version: str, spans: Callable[[str], Spans]
) -> None:
    interpreter(version)
    recorded = spans(version)
    pid = recorded.pids[version]
    found = checked(recorded.trace, recorded.logs / version)
    print(f"\n{version}: {found}")
    assert found.wrong == 0
    assert found.right >= _LEAST
    # None was left out once the first had been found, half a second after the start at most.
    assert found.missing <= 0.2 * found.right
    assert found.outside > 100
    target = recorded.trace.sql("SELECT level, why FROM targets WHERE pid = ?", [pid]).to_pylist()
    assert target == [{"level": 2, "why": ""}]


def test_the_helper_gives_the_same_ids_by_contract(record: Record, tmp_path: Path) -> None:
    log = tmp_path / "log"
    arguments = (log, 60, "helper", ROOT)
    with service("3.13", "spans", *arguments, packages=True) as process:
        with record("--pid", process.pid, "--python-rate", 0) as recording:
            until_switched(6_000, process.pid)
        process.terminate()
        process.wait(20)
    found = checked(recording.trace, log)
    print(f"\nhelper: {found}")
    assert found.wrong == 0
    assert found.missing == 0
    assert found.right > 2_000
    rows = recording.trace.sql(
        "SELECT id_source AS s, count(*) AS n FROM waits WHERE id_source IS NOT NULL GROUP BY 1"
    ).to_pylist()
    sources = {r["s"]: r["n"] for r in rows}
    # A thread may be switched out when its span is current and the record not yet written.
    assert sources["thread_context"] > 100 * sources.get("contextvars", 0)


_COLLECTED = ["3.10", "3.13", "stripped 3.11", "3.14"]


@dataclass(frozen=True)
class Collected:
    """A process for each of _COLLECTED, recorded together, and the spans its collections were in.

    A line of a log is tid, begin, end, trace id and span id.
    """

    trace: Trace
    pids: dict[str, int]
    logs: dict[str, list[list[str]]]


@pytest.fixture(scope="module")
def collected(record_once: Record, tmp_path_factory: pytest.TempPathFactory) -> Collected:
    logs = tmp_path_factory.mktemp("logs")
    with ExitStack() as stack:
        processes = {
            version: stack.enter_context(
                service(version, "collected", logs / version, 60, packages=True)
            )
            for version in those_here(_COLLECTED)
        }
        time.sleep(0.5)
        pids = {version: process.pid for version, process in processes.items()}
        with record_once(*of_pids(pids.values())) as recording:
            time.sleep(1.5)
        for process in processes.values():
            process.terminate()
            process.wait(20)
    lines = {v: (logs / v).read_text().splitlines() for v in processes}
    return Collected(recording.trace, pids, {v: [x.split() for x in lines[v]] for v in lines})


@pytest.mark.parametrize("version", _COLLECTED)
def test_a_collection_is_of_the_span_that_it_kept_waiting(
    version: str, collected: Collected
) -> None:
    """And one, whatever what it frees does."""
    interpreter(version)
    pid = collected.pids[version]
    rows = collected.trace.sql(
        "SELECT tid, end_ns - wait_ns AS begin, end_ns, trace_id, span_id, runq_ns FROM waits "
        "WHERE pid = ? AND kind = 'stw' AND reason = 'gc'",
        [pid],
    ).to_pylist()
    queued = collected.trace.sql(
        "SELECT tid, end_ns - wait_ns AS begin, end_ns, wait_ns FROM waits "
        "WHERE pid = ? AND kind IN ('runq_wakeup', 'runq_preempt')",
        [pid],
    ).to_pylist()
    # Of these the recording knows no more than that they were there.
    missed = collected.trace.sql(
        "SELECT tid, end_ns - high_ns AS begin, end_ns FROM missed WHERE pid = ?", [pid]
    ).to_pylist()
    first, last = min(r["begin"] for r in rows), max(r["end_ns"] for r in rows)
    within = 0
    for tid, begin, end, *ids in collected.logs[version]:
        if not first <= int(begin) < int(end) <= last:
            continue
        (row,) = (
            r for r in rows
            if r["tid"] == int(tid) and int(begin) <= r["begin"] and r["end_ns"] <= int(end)
        )  # fmt: skip
        assert [row["trace_id"] or "-", row["span_id"] or "-"] == ids
        if any(m["begin"] < row["end_ns"] and row["begin"] < m["end_ns"] for m in missed):
            continue
        mine = [q for q in queued if q["tid"] == row["tid"] and q["end_ns"] <= row["end_ns"]]
        expected = sum(q["wait_ns"] for q in mine if q["begin"] >= row["begin"])
        assert row["runq_ns"] == pytest.approx(expected, rel=0.05, abs=50_000)
        within += 1
    assert within > 50


@pytest.mark.parametrize("version", WANTED)
def test_the_types_of_a_context_are_where_the_process_says(version: str) -> None:
    """Also while no thread has one, as in a service that starts a thread for each request."""
    with service(version, "nodes") as process:
        memory = Memory(process.pid)
        found = find_nodes(memory, find(process.pid, memory, set()))
        memory.close()
    said = process.said  # type: ignore[attr-defined]
    assert f"{found.bitmap} {found.array}" == said.strip()


def test_waits_before_opentelemetry_is_imported_have_no_ids(contending: Contending) -> None:
    ids = contending.trace.sql("SELECT count(trace_id) AS n FROM waits").to_pylist()
    assert ids == [{"n": 0}]
    assert contending.trace.sql("SELECT level FROM targets").to_pylist() == [{"level": 1}]


_TRACING: dict[str, tuple[str, ...]] = {
    "threads": (),
    "tasks, patched": ("patched",),
    "tasks, not patched": ("not patched",),
}
_SWITCHING: dict[str, tuple[str, ...]] = {
    "from the start": ("greenlets",),
    "later": ("greenlets", "late"),
}
"""Programs whose tracer is ddtrace, as arguments of ddspans.py: with and without greenlets."""


def _beside_ddtrace(programs: dict[str, tuple[str, ...]], record: Record, logs: Path) -> Spans:
    """Records such programs together, which takes their import of ddtrace, 2 s of a CPU each."""
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(service("this", "ddspans", logs / name, 200, *what))
            for name, what in programs.items()
        }
        pids = {name: process.pid for name, process in processes.items()}
        # So that their loops, and what they import, are known.
        time.sleep(0.5)
        until_switched(500, *pids.values())
        with record(*of_pids(pids.values()), "--python-rate", 0) as recording:
            time.sleep(0.6)
            until_switched(500, *pids.values())
            for name in programs:
                (logs / name).with_suffix(".late").touch()
            time.sleep(1.2)
            until_switched(2_000, *pids.values())
        for process in processes.values():
            process.terminate()
            process.wait(20)
    return Spans(recording.trace, pids, logs)


@pytest.fixture(scope="module")
def tracing(record_once: Record, tmp_path_factory: pytest.TempPathFactory) -> Spans:
    return _beside_ddtrace(_TRACING, record_once, tmp_path_factory.mktemp("tracing"))


@pytest.fixture(scope="module")
def switching(record_once: Record, tmp_path_factory: pytest.TempPathFactory) -> Spans:
    return _beside_ddtrace(_SWITCHING, record_once, tmp_path_factory.mktemp("switching"))


@pytest.mark.parametrize("program", _TRACING)
def test_the_thread_record_of_another_tracer_is_read(program: str, tracing: Spans) -> None:
    """OTEP 4947 with ddtrace as its writer: no OpenTelemetry SDK in the process.

    Its record follows asyncio from task to task only where it has patched that.
    """
    found = checked(tracing.trace, tracing.logs / program)
    print(f"\nddtrace, {program}: {found}")
    assert found.wrong == 0
    assert (found.missing > 100) == (program == "tasks, not patched")
    assert found.right > 1_000
    sources = tracing.trace.sql(
        "SELECT DISTINCT id_source AS s FROM waits WHERE pid = ?", [tracing.pids[program]]
    ).to_pylist()
    assert {r["s"] for r in sources} == {None, "thread_context"}


@pytest.mark.parametrize("program", _SWITCHING)
def test_a_thread_record_that_does_not_follow_greenlets_is_not_taken(
    program: str, switching: Spans
) -> None:
    """Not even of those that are imported while it is recorded."""
    found = checked(switching.trace, switching.logs / program)
    print(f"\nddtrace, greenlets, {program}: {found}")
    assert (found.right > 0, found.wrong) == (program == "later", 0)
    assert found.missing > 300
    (target,) = switching.trace.sql(
        "SELECT level, why FROM targets WHERE pid = ?", [switching.pids[program]]
    ).to_pylist()
    assert target["level"] == 1
    assert "greenlets" in target["why"]
