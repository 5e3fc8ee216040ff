"""Services with a known disease: each is named, with the place; each cure is silent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.conftest import Record
from tests.support.cgroups import cgroup
from tests.support.programs import ROOT
from tests.support.recorder import sltrace

pytestmark = pytest.mark.bpf

_SECONDS = "2.5"
_FIRST = ["nice", "-n", "-20"]
"""Whatever else runs on this machine must not look like a disease."""

DISEASES = {
    "python_gil_hog": ("gil-hog", "compute (service.py"),
    "python_blocking_coroutine": ("loop-blocked", "fetch (service.py"),
    "python_lock_convoy": ("lock-convoy", "record_slowly (service.py"),
    "python_fanout": ("loop-busy", ""),
}


def _findings(path: Path) -> list[dict[str, Any]]:
    done = sltrace("python", path, "--json")
    assert done.code == 0, done.err
    found: list[dict[str, Any]] = json.loads(done.out)["findings"]
    return found


def _run(record: Record, name: str, mode: str) -> list[dict[str, Any]]:
    service = ROOT / "examples" / name / "service.py"
    command = [*_FIRST, sys.executable, str(service), mode, _SECONDS]
    with record("--", *command) as recording:
        recording.wait()
    return _findings(recording.path)


@pytest.mark.parametrize("name", DISEASES)
def test_the_disease_is_named_and_the_cure_is_silent(name: str, record: Record) -> None:
    disease, place = DISEASES[name]
    for _ in range(2):  # on a machine that others use it may not get the CPU to fall ill
        found = _run(record, name, "disease")
        print(f"\n{name}: {[f['what'] for f in found]}")
        # Others may follow from it: tasks without number are work for the collector.
        named = [f for f in found if f["name"] == disease]
        if named:
            break
    assert len(named) == 1
    assert place in named[0]["what"]
    assert named[0]["value"] >= named[0]["threshold"]
    cured = _run(record, name, "cure")
    assert cured == []


def test_too_many_threads_for_the_quota(record: Record) -> None:
    service = ROOT / "examples" / "python_quota_threads" / "service.py"
    # On a machine that others use, a batch may get too little CPU to use its quota up.
    names: set[str] = set()
    seen: list[set[str]] = []
    for mode in ("disease", "disease", "cure"):
        if mode == "disease" and "cpu-quota" in names:
            continue
        with cgroup("half", cpus=0.5) as limited:
            command = [sys.executable, str(service), mode, "4"]
            joining = ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', limited.procs, *command]
            process = subprocess.Popen(joining)
            try:
                with record("--pid", process.pid) as recording:
                    process.wait(20)
                    recording.wait()
            finally:
                process.kill()
                process.wait()
        found = _findings(recording.path)
        print(f"\n{mode}: {[f['what'] for f in found]}")
        names = {f["name"] for f in found}
        # Whoever is held back while it has the GIL holds back the others: that may be named too.
        seen.append(names)
    assert "cpu-quota" in seen[0] | seen[-2]
    assert not seen[-1]
