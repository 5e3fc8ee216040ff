"""Spans of a program that begins and ends them as OpenTelemetry's SDK does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.golang import go_command, go_environment
from tests.support.programs import ROOT
from tests.support.recorder import recorder

pytestmark = pytest.mark.bpf

PROGRAM = ROOT / "tests" / "go" / "programs" / "spans"


def test_no_span_is_taken_for_its_parent(tmp_path: Path) -> None:
    """Even where the first one that ends does so where its parent was begun."""
    program = tmp_path / "spans"
    subprocess.run(
        [go_command(), "build", "-o", program, "."],
        cwd=PROGRAM,
        env=go_environment() | {"GOPATH": str(PROGRAM), "CGO_ENABLED": "0"},
        check=True,
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([program], stdin=pipe, stdout=pipe, text=True) as running:
        assert running.stdin
        assert running.stdout
        try:
            assert running.stdout.readline() == "ready\n"
            options = ("--pid", running.pid, "--go-level", 3, "--go-budget", "none")
            with recorder(tmp_path / "s.slt", *options) as recording:
                print("go", file=running.stdin, flush=True)
                assert running.stdout.readline() == "done\n"
        finally:
            running.kill()
    rows = recording.trace.sql(
        "SELECT f.name, trace_id, span_id, id_source, count(*) AS n FROM waits "
        "JOIN stacks USING (pid) JOIN frames f USING (pid) "
        "WHERE kind = 'goroutine' AND stack_runtime = stack_id "
        "AND list_contains(addresses, f.address) AND f.name IN ('main.within', 'main.outside') "
        "GROUP BY ALL"
    ).to_pylist()
    within = {r["span_id"]: r["n"] for r in rows if r["name"] == "main.within"}
    assert set(within) == {f"{4:016x}", f"{5:016x}"}
    assert within[f"{4:016x}"] > within[f"{5:016x}"] > 20
    outside = [r for r in rows if r["name"] == "main.outside"]
    assert sum(r["n"] for r in outside) > 20
    assert {(r["trace_id"], r["span_id"], r["id_source"]) for r in outside} == {(None,) * 3}
