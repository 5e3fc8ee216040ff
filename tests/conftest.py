"""Markers for what a machine may lack, and the fixtures every folder shares."""

from __future__ import annotations

import os
from collections.abc import Generator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.recorder import Record, recording_into

# A machine with other things to do may take longer than any deadline.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

REQUIRED = frozenset(os.environ.get("SLTRACE_REQUIRE", "").split(",")) - {""}
"""Markers whose tests must run: on a machine that cannot, they fail and are not skipped,
whatever it is that they skip for."""


@cache
def why_no_bpf() -> str:
    """What keeps the probes from being loaded here; empty if nothing does.

    The probes are loaded once for real: a check of the parts would pass on machines that a
    security module or a sysctl keeps from it.
    """
    from sltrace.capture.checkup import examine

    missing = [f for f in examine() if f.state == "missing"]
    return "; ".join(f"{f.subject}: {f.text} ({f.advice})" for f in missing)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs for real shares its CPUs with whatever else this machine does.

    A burst from outside can break a premise (a load that did not get its CPU); a defect fails
    again. Reruns are listed at the end, with what failed.
    """
    for item in items:
        if item.get_closest_marker("bpf") or item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.flaky(reruns=2))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if getattr(item, "execution_count", 1) > 1:
        _record_again(item)
    if item.get_closest_marker("bpf") and (why := why_no_bpf()):
        pytest.skip(f"cannot record here: {why}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    required = sorted(m for m in REQUIRED if item.get_closest_marker(m))
    if report.skipped and required and not hasattr(report, "wasxfail"):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"must run here (SLTRACE_REQUIRE={','.join(required)}): {why}"
    return report


def _record_again(item: pytest.Item) -> None:
    """Lets go of the recordings that tests share: looking at the same one again proves nothing."""
    if not isinstance(item, pytest.Function):
        return
    for definitions in item._fixtureinfo.name2fixturedefs.values():
        for fixture in definitions:
            if fixture.scope != "function" and fixture.baseid.startswith("tests"):
                fixture.finish(item._request)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.stats.get("rerun", []):
        crash = getattr(report.longrepr, "reprcrash", None)
        why = crash.message if crash else str(report.longrepr)
        terminalreporter.line(f"RERUN {report.nodeid}: {' '.join(why.split())[:300]}")
    skipped = [
        report
        for report in terminalreporter.stats.get("skipped", [])
        if "cannot record here" in str(report.longrepr)
    ]
    if skipped:
        terminalreporter.section("NOT TESTED", red=True)
        terminalreporter.line(
            f"{len(skipped)} tests that need the probes did not run: {why_no_bpf()}", red=True
        )


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """`with record(*options) as recording:` records while the block runs; see `recorder`."""
    return recording_into(tmp_path)


@pytest.fixture(scope="module")
def record_once(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """The same for a recording that several tests of a module look at."""
    return recording_into(tmp_path_factory.mktemp("recorded"))
