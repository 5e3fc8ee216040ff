"""What is found in Go executables without symbols, against what the toolchains' own tools say."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from sltrace.target.go import dwarf, locate
from sltrace.target.go.buildinfo import read_buildinfo
from sltrace.target.go.errors import RefusedError
from sltrace.target.go.image import Image
from sltrace.target.go.inlining import Inlining
from sltrace.target.go.offsets import OFFSETS, offsets_of
from sltrace.target.go.pclntab import Pclntab
from sltrace.target.go.process import find_offsets, identify, look_into
from sltrace.target.go.x86 import decode, is_emulated
from tests.support.golang import (
    MODES,
    OLD_VERSION,
    VERSIONS,
    WITNESS,
    go_command,
    go_environment,
    go_program,
    witness,
)
from tests.support.programs import ROOT
from tests.support.traces import SECOND

MATRIX = [(v, m) for v in VERSIONS for m in MODES]


def symbols(path: Path) -> dict[str, int]:
    """nm's."""
    text = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout
    return {m[2]: int(m[1], 16) for m in re.finditer(r"^(\w{16}) \w (\S+)$", text, re.M)}


@pytest.mark.parametrize(
    ("version", "mode"), [(OLD_VERSION, "plain"), *((v, m) for v, m in MATRIX if m != "stripped")]
)
def test_finds_what_nm_lists(version: str, mode: str) -> None:
    path = go_program(WITNESS, version, mode)
    known = symbols(path)
    image = Image.from_file(path)
    table = Pclntab(image)
    assert read_buildinfo(image).version == f"go{version}"
    found = locate.variables(image, table, offsets_of(f"go{version}"))
    assert found.sched == known["runtime.sched"]
    assert (found.allp, found.allgs) == (known["runtime.allp"], known["runtime.allgs"])
    assert found.wait_reasons == known["runtime.waitReasonStrings"]
    for name in ("runtime.casgstatus", "runtime.gopark", "main.work", "main.main"):
        assert (table.function(name) or (0, 0))[0] == known[name]


@pytest.mark.parametrize("version", VERSIONS)
def test_places_to_probe_begin_an_instruction(version: str) -> None:
    """objdump decodes the same functions; every place is one of its lines, and emulated."""
    path = go_program(WITNESS, version)
    image = Image.from_file(path)
    table = Pclntab(image)
    sites = locate.sites(image, table, offsets_of(f"go{version}"), Inlining(image, table))
    assert not sites.why
    for name, places in (
        (locate.RECORD, [sites.record]),
        (locate.CASGSTATUS, [sites.tracked, sites.every]),
    ):
        start, end = table.function(name) or (0, 0)
        text = _disassembled(path, start, end)
        lines = {int(m[1], 16): m[2] for m in re.finditer(r"^\s+(\w+):\t[\w ]+\t(\w+)", text, re.M)}
        for place in places:
            assert place is not None
            assert lines[place][0] == "j" or lines[place] == "push"


def _disassembled(path: Path, start: int, end: int) -> str:
    """What objdump prints of these addresses."""
    return subprocess.run(
        ["objdump", "-d", f"--start-address={start}", f"--stop-address={end}", path],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_places_of_the_tracing_sdk_are_behind_the_check_for_stack() -> None:
    """In Caddy, where nothing has moved the stack pointer yet."""
    path = ROOT / "build" / "caddy" / "bin" / "caddy"
    image = Image.from_file(path)
    table = Pclntab(image)
    sites = locate.sites(image, table, offsets_of("go1.26"), Inlining(image, table))
    assert not sites.why
    for function, place in (
        (locate.SPAN_BEGIN, sites.span_begin),
        (locate.SPAN_END, sites.span_end),
    ):
        start, _ = table.function(function) or (0, 0)
        assert place
        text = _disassembled(path, start, place + 1)
        lines = re.findall(r"^\s+\w+:\t[\w ]+\t(\w+) *(.*)$", text, re.M)
        assert lines[-1][0] == "push"
        assert {mnemonic for mnemonic, _ in lines[:-1]} <= {"lea", "cmp", "jbe"}
        assert not any(operands.endswith(",%rsp") for name, operands in lines if name == "lea")
    image = Image.from_file(go_program(WITNESS))
    table = Pclntab(image)
    without = locate.sites(image, table, offsets_of(f"go{VERSIONS[-1]}"), Inlining(image, table))
    assert (without.span_begin, without.span_end, without.why) == (None, None, {})


def test_decodes_as_objdump_does() -> None:
    """Every instruction of the runtime begins where objdump says."""
    path = go_program(WITNESS)
    text = subprocess.run(
        ["objdump", "-d", "-w", "--no-show-raw-insn", path],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    image, table = Image.from_file(path), Pclntab(Image.from_file(path))
    compared = 0
    for block in re.split(r"\n\n(?=\w{16} <runtime\.)", text)[1:400]:
        lines = [int(m, 16) for m in re.findall(r"^\s+(\w+):\t", block.split("\n\n")[0], re.M)]
        index = table.index_of(np.array(lines[:1]))
        if not len(lines) or index[0] < 0:
            continue
        ours = decode(image.read(lines[0], lines[-1] - lines[0] + 1), lines[0])
        theirs = set(lines)
        for instruction in ours:
            assert instruction.address in theirs, hex(instruction.address)
            compared += 1
    assert compared > 10_000


def test_emulated_is_what_the_kernel_emulates() -> None:
    """As in arch/x86/kernel/uprobes.c."""
    emulated = ["55", "57", "90", "7c65", "0f8400000000", "e800000000"]
    stepped = ["4885db", "493b6610", "c3", "5d", "6690", "48ffc0"]
    for code in emulated:
        assert is_emulated(next(decode(bytes.fromhex(code), 0)))
    for code in stepped:
        assert not is_emulated(next(decode(bytes.fromhex(code), 0)))


@pytest.mark.parametrize(("version", "mode"), MATRIX)
def test_accepts_live_processes(version: str, mode: str) -> None:
    with witness(version, mode) as running:
        process = look_into(identify(running.pid))
        assert process.identity.version == f"go{version}"
        assert {"chan receive", "select", "sync.Mutex.Lock"} <= set(process.reasons)
        assert not process.sites.why


def test_lines_are_those_of_addr2line() -> None:
    path = go_program(WITNESS)
    table = Pclntab(Image.from_file(path))
    start, end = table.function("main.work") or (0, 0)
    addresses = list(range(start, end, 7))
    assert addresses
    said = subprocess.run(
        [go_command(), "tool", "addr2line", path],
        input="\n".join(map(hex, addresses)),
        capture_output=True,
        text=True,
        env=go_environment(),
        check=True,
    )
    lines = said.stdout.splitlines()
    for address, function, place in zip(addresses, lines[::2], lines[1::2], strict=True):
        where = table.locate(address)
        assert where is not None
        assert f"{where.file}:{where.line}" == place
        assert where.function == function


@pytest.mark.parametrize("version", VERSIONS)
def test_dwarf_says_what_the_table_does(version: str) -> None:
    for mode in MODES:
        written = dwarf.offsets_of(Image.from_file(go_program(WITNESS, version, mode)))
        assert written == (None if mode == "stripped" else offsets_of(f"go{version}")), mode


def test_versions_from_the_future_are_known_by_their_dwarf(tmp_path: Path) -> None:
    """What they call themselves is not asked for then; the live process is checked all the same."""
    for name in (b"1.99.3", b"devel "):
        future = tmp_path / name.decode().strip()
        future.write_bytes(go_program(WITNESS).read_bytes().replace(VERSIONS[-1].encode(), name))
        future.chmod(0o755)
        with subprocess.Popen([future], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout
                process.stdout.readline()
                found = look_into(identify(process.pid))
            finally:
                process.kill()
        assert found.identity.version == f"go{name.decode()}"
        assert (found.offsets_from, found.offsets) == ("dwarf", OFFSETS[1, 27])
        assert not found.sites.why
    stripped = Image.from_file(go_program(WITNESS, mode="stripped"))
    assert find_offsets(stripped, f"go{VERSIONS[-1]}")[1] == "table"
    with pytest.raises(RefusedError, match=r"built by go1\.99\.3.*no DWARF"):
        find_offsets(stripped, "go1.99.3")


def test_a_program_is_decoded_once_for_all_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a hundred times as long as all the rest: 32 of a kind were a minute's work."""
    with witness() as first, witness() as second:
        known = look_into(identify(first.pid))
        monkeypatch.delattr(dwarf, "offsets_of")
        again = look_into(identify(second.pid))
    assert again.variables == known.variables
    assert again.pid != known.pid


def test_a_program_copied_over_another_is_decoded_anew(tmp_path: Path) -> None:
    """Also where it has the same size and time, as from `cp -p` of a reproducible build."""
    file = tmp_path / "service"
    whole = go_program(WITNESS).read_bytes()
    tables = []
    for name in (b"main.giveWay", b"main.getAway"):
        file.write_bytes(whole.replace(b"main.giveWay", name))
        file.chmod(0o755)
        os.utime(file, ns=(SECOND, SECOND))
        with subprocess.Popen([file], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout
                process.stdout.readline()
                tables.append(look_into(identify(process.pid)).table)
            finally:
                process.kill()
        assert tables[-1].function(name.decode())
    assert tables[0] is not tables[1]
