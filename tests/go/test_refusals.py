"""Executables and processes that are no Go, or not as they say: refused, and never crashed on."""

from __future__ import annotations

import os
import struct
import subprocess
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sltrace.symbols.elf import ElfError
from sltrace.target.go import dwarf, locate, process
from sltrace.target.go.buildinfo import read_buildinfo
from sltrace.target.go.errors import DwarfError, NotGoError, RefusedError
from sltrace.target.go.image import Image
from sltrace.target.go.inlining import Inlining
from sltrace.target.go.offsets import OFFSETS, offsets_of
from sltrace.target.go.pclntab import Pclntab
from sltrace.target.go.process import find_offsets, identify, look_into
from tests.support.golang import VERSIONS, WITNESS, go_program, witness
from tests.support.programs import ROOT, build


@pytest.mark.parametrize("version", ["go1.28.0", "go1.20", "devel +abc", "go1.26.1 X:greenteagc"])
def test_refuses_versions_it_does_not_know(version: str) -> None:
    with pytest.raises(RefusedError, match="built by"):
        offsets_of(version)


@pytest.mark.parametrize(
    "version",
    ["go1.26.6-X:boringcrypto", "go1.26.2 (Red Hat 1.26.2-2.el9_5) X:strictfipsruntime"],
)
def test_experiments_of_cryptography_change_no_offsets(version: str) -> None:
    assert offsets_of(version) == OFFSETS[1, 26]
    with pytest.raises(RefusedError, match="experiments"):
        offsets_of(f"{version},greenteagc")


def test_a_packed_program_is_one_of_go() -> None:
    """Its file tells nothing of it; who asks for it is to know why it is not looked into."""
    source = ROOT / "tests" / "go" / "programs" / "packed" / "packed.c"
    # What UPX leaves at the beginning of a file.
    stub = build("packed", (source,), flags=("-O2", "-Wall", "-Wextra", "-Wl,-rpath,UPX!"))
    with subprocess.Popen(
        [stub, go_program(WITNESS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as running:
        try:
            assert running.stdout
            running.stdout.readline()
            identity = identify(running.pid)
            assert (identity.exe, identity.version) == (str(stub), f"go{VERSIONS[-1]}")
            with pytest.raises(RefusedError, match=r"packed \(UPX\)"):
                look_into(identity)
        finally:
            running.kill()


def test_a_program_of_old_is_one_of_go(tmp_path: Path) -> None:
    """Its build info is of another form; who asks for it is to know why it is not looked into."""
    old = bytearray(go_program(WITNESS, mode="stripped").read_bytes())
    old[old.index(b"\xff Go buildinf:") + 15] = 0
    image = Image(bytes(old))
    version = read_buildinfo(image).version
    with pytest.raises(RefusedError, match=r"built by go1\.17 or older; Go 1\.19 and"):
        find_offsets(image, version)


def test_refuses_a_runtime_that_is_not_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the offsets of another version the live process does not pass."""
    for wrong in ((1, 21), (1, 25)):
        monkeypatch.setattr(process, "_programs", {})
        monkeypatch.setitem(OFFSETS, (1, 27), OFFSETS[wrong])
        with witness(mode="stripped") as running, pytest.raises(RefusedError):
            look_into(identify(running.pid))


def test_knows_what_is_not_go() -> None:
    with pytest.raises(NotGoError):
        identify(os.getpid())


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damaged_executables_are_refused_not_crashed_on(data: st.DataObject) -> None:
    """Bytes of headers, build info, tables of functions and code are overwritten at random."""
    raw = _whole()
    damaged = bytearray(raw)
    image = Image(raw)
    regions = [(0, 4096), *((s.offset, min(s.size, 1 << 16)) for s in image.sections.values())]
    for _ in range(data.draw(st.integers(1, 12))):
        offset, size = data.draw(st.sampled_from(regions))
        at = offset + data.draw(st.integers(0, max(size - 9, 0)))
        value = data.draw(st.sampled_from([0, 1, 0xFF, 0x7FFFFFFFFFFFFFFF, 1 << 63, 1 << 32]))
        damaged[at : at + 8] = struct.pack("<Q", value)
    cut = data.draw(st.sampled_from([len(raw), len(raw) // 2, 5000, 70, 3]))
    try:
        image = Image(bytes(damaged[:cut]))
        read_buildinfo(image)
        table = Pclntab(image)
        found = offsets_of(f"go{VERSIONS[-1]}")
        locate.variables(image, table, found)
        inlining = Inlining(image, table)
        locate.sites(image, table, found, inlining)
        for index in range(0, len(table), max(len(table) // 20, 1)):
            table.name(index)
        for address in range(table.text, table.text + 100_000, 3001):
            table.locate(address)
            inlining.innermost(address)
    except (ElfError, NotGoError, RefusedError):
        return


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_dwarf_is_refused_not_crashed_on(data: st.DataObject, unpacked: Image) -> None:
    """Of the entries that are read, and of the units around them."""
    whole = unpacked.data[:]
    damaged = bytearray(whole)
    info, abbrev = unpacked.sections[".debug_info"], unpacked.sections[".debug_abbrev"]
    places = [abbrev.offset, info.offset]
    places += [whole.index(b"runtime.%s\0" % n, info.offset) for n in (b"g", b"m", b"schedt")]
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.sampled_from(places)) + data.draw(st.integers(-8, 900))
        damaged[at] = data.draw(st.integers(0, 255))
    try:
        found = dwarf.offsets_of(Image(bytes(damaged)))
    except DwarfError:
        return
    # What is read all the same is within what is read of the process.
    assert found is None or max(found.g_labels, found.g_goid) <= 392


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The witness with DWARF that is not compressed, which says the same."""
    path = tmp_path_factory.mktemp("dwarf") / "unpacked"
    program = go_program(WITNESS)
    subprocess.run(["objcopy", "--decompress-debug-sections", program, path], check=True)
    image = Image.from_file(path)
    assert not image.sections[".debug_info"].compressed
    assert dwarf.offsets_of(image) == dwarf.offsets_of(Image.from_file(program))
    return image


@cache
def _whole() -> bytes:
    return go_program(WITNESS, mode="stripped").read_bytes()
