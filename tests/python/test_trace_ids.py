"""Trace and span ids of waits against the process's own log of which span it was in when."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

from sltrace.trace.reader import Trace
from tests.kernel.conftest import Record
from tests.support.programs import ROOT
from tests.support.pythons import WANTED, service

pytestmark = pytest.mark.bpf

_LEAST = 4_000
"""Of each of five interpreters: 20 000 in all."""


@dataclass
class Checked:
    """Waits that began within a logged interval."""

    right: int = 0
    wrong: int = 0
    missing: int = 0
    outside: int = 0


def _check(trace: Trace, log: Path) -> Checked:
    intervals: dict[int, list[tuple[int, int, str | None, str | None]]] = defaultdict(list)
    for line in log.read_text().splitlines():
        tid, begin, end, trace_id, span_id = line.split()
        ids = (None, None) if trace_id == "-" else (trace_id, span_id)
        intervals[int(tid)].append((int(begin), int(end), *ids))
    for known in intervals.values():
        known.sort()
    rows = trace.sql(
        "SELECT tid, end_ns - wait_ns AS began, trace_id, span_id, id_source FROM waits "
        "WHERE kind IN ('blocked', 'runq_preempt') AND stack_runtime IS NOT NULL"
    ).to_pylist()
    found = Checked()
    for row in rows:
        known = intervals.get(row["tid"], [])
        at = bisect_right(known, row["began"], key=lambda i: i[0]) - 1
        if at < 0 or known[at][1] < row["began"]:
            continue
        said = row["trace_id"], row["span_id"]
        if said == known[at][2:]:
            found.right += said[0] is not None
            found.outside += said[0] is None
            assert (row["id_source"] is None) == (said[0] is None)
        elif said == (None, None):
            found.missing += 1
        else:
            found.wrong += 1
    return found


@pytest.mark.parametrize("version", WANTED)
def test_no_wait_has_another_span_than_its_thread(
    version: str, record: Record, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with service(version, "spans", log, 60, packages=True) as process:
        with record("--pid", process.pid, "--python-rate", 0) as recording:
            time.sleep(3)
        process.terminate()
        process.wait(20)
    found = _check(recording.trace, log)
    print(f"\n{version}: {found}")
    assert found.wrong == 0
    assert found.right >= _LEAST
    # None was left out once the first had been found, half a second after the start at most.
    assert found.missing <= 0.2 * found.right
    assert found.outside > 100
    target = recording.trace.sql("SELECT level, why FROM targets").to_pylist()
    assert target == [{"level": 2, "why": ""}]


def test_the_helper_gives_the_same_ids_by_contract(record: Record, tmp_path: Path) -> None:
    log = tmp_path / "log"
    arguments = (log, 60, "helper", ROOT)
    with service("3.13", "spans", *arguments, packages=True) as process:
        with record("--pid", process.pid, "--python-rate", 0) as recording:
            time.sleep(2)
        process.terminate()
        process.wait(20)
    found = _check(recording.trace, log)
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


def test_waits_before_opentelemetry_is_imported_have_no_ids(record: Record) -> None:
    with (
        service("3.12", "contend", 30, 1) as process,
        record("--pid", process.pid) as recording,
    ):
        time.sleep(1)
    ids = recording.trace.sql("SELECT count(trace_id) AS n FROM waits").to_pylist()
    assert ids == [{"n": 0}]
    assert recording.trace.sql("SELECT level FROM targets").to_pylist() == [{"level": 1}]


def test_the_thread_record_of_another_tracer_is_read(record: Record, tmp_path: Path) -> None:
    """OTEP 4947 with ddtrace as its writer: no OpenTelemetry SDK in the process."""
    log = tmp_path / "log"
    with service("this", "ddspans", log, 60) as process:
        with record("--pid", process.pid, "--python-rate", 0) as recording:
            time.sleep(2)
        process.terminate()
        process.wait(20)
    found = _check(recording.trace, log)
    print(f"\nddtrace: {found}")
    assert found.wrong == 0
    assert found.missing == 0
    assert found.right > 1_000
    sources = recording.trace.sql("SELECT DISTINCT id_source AS s FROM waits").to_pylist()
    assert {r["s"] for r in sources} == {None, "thread_context"}
