"""Every disease of examples/ is named by `sltrace go`, and on no cure is it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.cgroups import cgroup
from tests.support.cli import told
from tests.support.golang import go_program
from tests.support.loads import put_first
from tests.support.programs import ROOT
from tests.support.recorder import of_pids, recorder

pytestmark = pytest.mark.bpf

DISEASES = {
    "go_leak": "goroutine_leak",
    "go_fanout": "goroutine_backlog",
    "go_storm": "netpoller_starvation",
    "go_finalizer": "p_hoarding",
    "go_locked": "gc_amplification",
    "go_quota": "lost_p",
}
SECONDS = 4


@contextmanager
def service(name: str, *options: str, group: Path | None = None) -> Iterator[int]:
    """Runs an example; in a cgroup if one is given, by its list of processes."""
    program = go_program(ROOT / "examples" / name)
    join = (lambda: group.write_text(str(os.getpid()))) if group else None
    with subprocess.Popen([program, "-d", "60s", *options], preexec_fn=join) as process:
        try:
            time.sleep(0.5)
            yield process.pid
        finally:
            process.kill()


def findings(path: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = told("go", path)["findings"]
    return found


@pytest.mark.parametrize("name", DISEASES)
def test_disease_is_named(tmp_path: Path, name: str) -> None:
    with (
        cgroup("sltrace-go-test", cpus=0.5 if name == "go_quota" else None) as limited,
        service(name, group=limited.procs if name == "go_quota" else None) as pid,
        recorder(tmp_path / "d.slt", "--pid", pid, "-d", SECONDS) as recording,
    ):
        limited.weigh(100)
        recording.wait()
    found = {f["name"]: f for f in findings(tmp_path / "d.slt")}
    assert DISEASES[name] in found, found
    evidence = found[DISEASES[name]]["evidence"]
    assert isinstance(evidence, dict)
    match name:
        case "go_leak":
            assert evidence["started"].startswith("main.connection")
        case "go_finalizer":
            assert evidence["where"].startswith(("main.finalize", "main.spin"))
        case "go_quota":
            assert evidence["quota_cpus"] == 0.5
            assert evidence["throttled_ns"] > 500_000_000
        case "go_locked":
            # Its threads are switched so often that level 0 costs more than level 1 may. Beside it.
            (process,) = recording.trace.meta["sources"]["go"]["processes"]
            assert process["looked"] > 0.9
        case "go_fanout":
            assert evidence["by_reason"][0]["reason"] == "new goroutine"


def test_cures_are_silent(tmp_path: Path) -> None:
    """All at once, so that one recording sees them; none alone needs a tenth of a CPU.

    Other processes of the machine may take a P's thread off its CPU: that is no fault of theirs.
    """
    with (
        service("go_leak", "-cured") as a,
        service("go_fanout", "-cured") as b,
        service("go_storm", "-cured") as c,
        service("go_finalizer", "-cured") as d,
        service("go_locked", "-cured") as e,
        cgroup("sltrace-go-test", cpus=0.5) as limited,
        service("go_quota", "-cured", group=limited.procs) as f,
    ):
        pids = (a, b, c, d, e, f)
        with recorder(tmp_path / "c.slt", *of_pids(pids), "-d", SECONDS) as recording:
            for pid in pids:
                put_first(pid)
            recording.wait()
    targets = recording.trace.sql("SELECT level FROM targets").to_pylist()
    assert [t["level"] for t in targets] == [1] * 6
    found = findings(tmp_path / "c.slt")
    assert [f for f in found if f["name"] != "lost_p"] == []
    for finding in found:
        evidence = finding["evidence"]
        assert isinstance(evidence, dict)
        assert evidence["throttled_ns"] < evidence["preempted_ns"]
