"""diagnosis: what Go and Python processes suffer from is found with the rest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sltrace.analysis.finding import Name
from sltrace.analysis.runtimes import _GO, _PYTHON
from tests.pure.test_diagnose import behind_hog, names, of
from tests.support.programs import ROOT
from tests.support.traces import SECOND

GO = {"pid": 50, "runtime": "go", "version": "go1.26", "exe": "/usr/bin/svc", "level": 1}
PYTHON = {"pid": 60, "runtime": "python", "version": "3.11", "exe": "/usr/bin/py", "level": 1}


def parked(counts: list[int]) -> list[dict[str, Any]]:
    """Goroutines that wait at one place, counted every second."""
    row = {"source": "wall", "pid": 50, "state": "waiting", "reason": "chan receive"}
    return [
        {**row, "ns": (i + 1) * SECOND, "count": n, "weight_ns": 0, "stack_runtime": 1}
        for i, n in enumerate(counts)
    ]


def test_what_a_runtime_suffers_from_is_found_with_the_rest(tmp_path: Path) -> None:
    gil = {"kind": "gil", "pid": 60, "wait_ns": SECOND}
    waits = [{**gil, "tid": 61 + i, "end_ns": (i % 8 + 2) * SECOND} for i in range(10)]
    tables = {"targets": [GO, PYTHON], "samples": parked([10, 40, 80, 109])}
    assert names(of(tmp_path, waits[1:], **tables)) == []
    tables["samples"] = parked([10, 40, 80, 110])
    crowd, leak = of(tmp_path, behind_hog(49) + waits, **tables).findings
    assert (crowd.name, crowd.lost, crowd.values["kind"]) == ("gil_crowd", 1.0, ("gil",))
    assert crowd.sentence.startswith("py (60): 1.0 threads waited")
    assert "more processes" in crowd.advice
    assert (leak.name, leak.lost, leak.values) == ("goroutine_leak", 0.0, {"pid": (50,)})
    assert "svc (50): goroutines waiting" in leak.sentence
    assert "grew from 10 to 110 in 3 s" in leak.sentence
    assert "deadline" in leak.advice


def test_a_process_is_called_by_the_program_that_it_was_then(tmp_path: Path) -> None:
    lost = {"kind": "runq_preempt", "held_p": 0, "pid": 50, "wait_ns": 2 * SECOND}
    ps = {"pid": 50, "name": "gomaxprocs", "item": 0, "value": 1.0}
    gil = {"kind": "gil", "pid": 60, "wait_ns": 8 * SECOND, "end_ns": 9 * SECOND}
    first = {"from_ns": 0, "until_ns": 5 * SECOND, "exe": "/usr/bin/launcher"}
    then = {"from_ns": 5 * SECOND}
    for end, name in ((4, "launcher (50)"), (9, "svc (50)")):
        result = of(
            tmp_path,
            [lost | {"end_ns": end * SECOND}, *[gil] * 2],
            gauges=[ps | {"ns": end * SECOND}],
            targets=[t | part for t in (GO, PYTHON) for part in (first, then)],
        )
        said = {f.name: f.sentence.partition(":")[0] for f in result.findings if "pid" in f.values}
        assert said == {"lost_p": name, "gil_crowd": "py (60)"}


def test_without_such_a_process_its_findings_are_not_looked_for(tmp_path: Path) -> None:
    gil = [{"kind": "gil", "pid": 60, "wait_ns": SECOND, "end_ns": 9 * SECOND}] * 20
    assert names(of(tmp_path, gil, samples=parked([0, 100, 200, 300]))) == []


def documented(page: str) -> list[str]:
    """What the tables of findings in a page call them."""
    return re.findall(r"^\| `(\w+)` [A-Z]", (ROOT / "docs" / page).read_text(), re.MULTILINE)


def test_every_finding_has_one_name_and_its_place_in_the_docs() -> None:
    assert set(documented("go.md")) == set(_GO)
    assert set(documented("python.md")) == {*_PYTHON, Name.QUOTA}
    assert {*documented("cli.md"), *_GO, *_PYTHON} == set(Name)
    labels = {str(name): name.label for name in Name}
    for page in ("cli.md", "go.md", "python.md"):
        text = (ROOT / "docs" / page).read_text()
        assert all(f"| `{n}` {labels[n]} |" in text for n in documented(page))
