"""What was inlined into what, as in programs that are built with a profile (PGO)."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from sltrace.target.go import locate
from sltrace.target.go.image import Image
from sltrace.target.go.inlining import Inlining
from sltrace.target.go.locate import CASGSTATUS, EXECUTE, RECORD
from sltrace.target.go.offsets import offsets_of
from sltrace.target.go.pclntab import Pclntab
from tests.support.cli import in_process
from tests.support.golang import PROFILED, VERSIONS, WITNESS, go_program, witness
from tests.support.gorecords import COMPARED, assert_same_buckets, measured
from tests.support.recorder import recorder


def looked_into(mode: str, version: str = VERSIONS[-1]) -> tuple[Image, Pclntab, Inlining]:
    image = Image.from_file(go_program(WITNESS, version, mode))
    table = Pclntab(image)
    return image, table, Inlining(image, table)


@pytest.mark.parametrize("version", VERSIONS)
def test_inlined_functions_are_those_of_dwarf(version: str) -> None:
    """By address, as LLVM reads them in what the compiler wrote for debuggers."""
    _, table, inlining = looked_into("plain", version)
    assert inlining.is_known
    addresses: list[int] = []
    for name in ("main.giveWay.func1", "runtime.gcStart", "runtime.chanrecv", "main.work"):
        start, end = table.function(name) or (0, 0)
        addresses += range(start, end, 5)
    program = go_program(WITNESS, version)
    said = subprocess.run(
        ["llvm-symbolizer-19", "--output-style=JSON", f"--obj={program}", *map(hex, addresses)],
        capture_output=True,
        text=True,
        check=True,
    )
    innermost = [one["Symbol"][0]["FunctionName"] for one in json.loads(said.stdout)]
    found = [inlining.innermost(address) for address in addresses]
    # Between two functions debuggers are told of none.
    named = [pair for pair in zip(innermost, found, strict=True) if pair[0]]
    assert len(named) > 400
    assert not [pair for pair in named if pair[0] != pair[1]]
    assert len(set(found)) > 10
    assert "main.giveWay.func1" in inlining.holders("runtime.Gosched")
    assert not inlining.holders(CASGSTATUS) + inlining.holders(RECORD)


def test_no_probe_is_where_copies_would_be_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    image, table, inlining = looked_into(PROFILED)
    assert inlining.holders(CASGSTATUS) == [EXECUTE]
    assert inlining.holders(RECORD) == [CASGSTATUS]
    offsets = offsets_of(f"go{VERSIONS[-1]}")
    # What begins to run comes by the copy in execute, which calls what notes the wait.
    sites = locate.sites(image, table, offsets, inlining)
    assert sites.record
    assert (sites.tracked, sites.every) == (None, None)
    for name in ("tracked", "every"):
        assert f"{CASGSTATUS} was inlined into {EXECUTE}" in sites.why[name]
    for holders, missed in (
        ({RECORD: [EXECUTE]}, f"into {EXECUTE},"),
        ({RECORD: [CASGSTATUS, "runtime.startTheWorldWithSema"]}, "into runtime.startTheWorld"),
    ):
        known = {CASGSTATUS: [EXECUTE], **holders}
        monkeypatch.setattr(inlining, "holders", lambda name, known=known: known.get(name, [])[:])
        sites = locate.sites(image, table, offsets, inlining)
        assert sites.record is None
        assert missed in sites.why["record"]
    # Of one that calls it all waits go through the copy there.
    image, table, inlining = looked_into("plain")
    monkeypatch.setattr(inlining, "holders", {RECORD: [CASGSTATUS], EXECUTE: []}.get)
    assert f"into {CASGSTATUS}," in locate.sites(image, table, offsets, inlining).why["record"]


def test_nothing_is_probed_where_copies_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    image, table, inlining = looked_into("plain")
    monkeypatch.setattr(inlining, "is_known", False)
    sites = locate.sites(image, table, offsets_of(f"go{VERSIONS[-1]}"), inlining)
    assert (sites.record, sites.tracked, sites.every) == (None, None, None)
    assert "is not known" in sites.why["record"]


@pytest.mark.bpf
def test_a_program_built_with_a_profile_is_at_the_level_that_is_exact(tmp_path: Path) -> None:
    """And why its goroutines had stopped is what it is without."""
    with witness(mode=PROFILED) as running:
        running.ask("work 50")
        path = tmp_path / "p.slt"
        with recorder(path, "--pid", running.pid, "--go-level", 3) as recording:
            time.sleep(0.2)
            work = measured(running, "work 700", COMPARED)
            running.ask("handover 200")
        trace = recording.trace
    (target,) = trace.sql("SELECT level, why FROM targets WHERE runtime = 'go'").to_pylist()
    assert target["level"] == 1
    assert f"{CASGSTATUS} was inlined into {EXECUTE}" in target["why"]
    assert target["why"] in in_process("go", str(path)).stdout
    # What is of 0 ns is noted by a copy, in casgstatus.
    assert_same_buckets(trace, work, zeros=False)
    (process,) = trace.meta["sources"]["go"]["processes"]
    assert process["told"] > process["noted"] / 2 > 50
    # Every time but the first it had gone on within chanrecv, behind a call of runtime.mcall.
    received = trace.sql("SELECT 1 FROM waits WHERE kind = 'goroutine' AND reason = 'chan receive'")
    assert received.num_rows > 10
