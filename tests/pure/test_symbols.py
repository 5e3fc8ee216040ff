"""Names of addresses against nm, and readers against damaged input."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import subprocess
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sltrace.symbols.demangle import readable
from sltrace.symbols.elf import Elf, ElfError
from sltrace.symbols.kernel import KernelSymbols, addresses_shown
from sltrace.symbols.mappings import MappingRecorder
from sltrace.symbols.recorder import SymbolRecorder
from sltrace.symbols.resolve import user_frames

SOURCE = """
__attribute__((noinline)) int leaf(int n) { return n * 3; }
static __attribute__((noinline, aligned(64))) int middle(int n) { return leaf(n) + 1; }
int puts(const char *);
int main(int argc, char **argv) { return middle(argc) + puts(argv[0]); }
"""
BUILDS = {
    "pie": ["-pie", "-fPIE"],
    "fixed": ["-no-pie"],
    "static": ["-static"],
    "library": ["-shared", "-fPIC"],
}


@pytest.fixture(scope="module", params=BUILDS)
def binary(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elf")
    (folder / "a.c").write_text(SOURCE)
    build: str = request.param
    target = folder / build
    flags = [*BUILDS[build], "-O1", "-Wl,--build-id=sha1"]
    subprocess.run(["cc", *flags, "-o", target, folder / "a.c"], check=True, timeout=60)
    return target


def functions(binary: Path, *options: str) -> dict[int, tuple[int, set[str]]]:
    """Address to size and names, as nm prints them."""
    lines = subprocess.run(
        ["nm", "--print-size", "--defined-only", *options, binary],
        check=True, capture_output=True, text=True, timeout=60,
    ).stdout.splitlines()  # fmt: skip
    found: dict[int, tuple[int, set[str]]] = {}
    for fields in (line.split() for line in lines):
        if len(fields) == 4 and fields[2] in "tTwWi":
            address = int(fields[0], 16)
            size, names = found.get(address, (0, set()))
            names.add(fields[3].partition("@")[0])
            found[address] = max(size, int(fields[1], 16)), names
    return found


def test_every_function_is_named_as_nm_names_it(binary: Path) -> None:
    with open(binary, "rb") as file:
        elf = Elf.from_file(file)
    known = {a: v for a, v in functions(binary).items() if v[0] > 0}
    starts = np.array(sorted(known), np.uint64)
    for inside in (0, -1):
        addresses = np.array(
            [a if not inside else a + known[a][0] - 1 for a in starts.tolist()], np.uint64
        )
        for start, name in zip(starts.tolist(), elf.names(addresses), strict=True):
            assert name in known[start][1]


def test_the_linkers_own_code_has_no_name(binary: Path) -> None:
    """Its PLT comes after `_init`, which has no size and ends with its section."""
    said = subprocess.run(
        ["readelf", "-SW", binary], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    (plt,) = (f.split()[1:] for f in said.replace("[", "").splitlines() if " .plt " in f)
    with open(binary, "rb") as file:
        elf = Elf.from_file(file)
    start = int(plt[2], 16)
    assert elf.names(np.array([start, start + 8], np.uint64)) == [None, None]
    init = elf.symbol("_init")
    assert init is None or elf.names(np.array([init.value + 1], np.uint64)) == ["_init"]


def test_what_lies_between_functions_has_no_name(binary: Path) -> None:
    with open(binary, "rb") as file:
        elf = Elf.from_file(file)
    known = functions(binary)
    middle = next(a for a, (_, names) in known.items() if "leaf" in names)
    gap = middle + known[middle][0]
    assert gap not in known
    assert elf.names(np.array([gap], np.uint64)) == [None]


def test_build_id_is_what_readelf_says(binary: Path) -> None:
    said = subprocess.run(
        ["readelf", "-n", binary], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    with open(binary, "rb") as file:
        assert Elf.from_file(file).build_id
        assert f"Build ID: {Elf.from_file(file).build_id}" in said


def test_stripped_files_keep_their_dynamic_symbols(binary: Path, tmp_path: Path) -> None:
    stripped = tmp_path / "stripped"
    subprocess.run(["strip", "-o", stripped, binary], check=True, timeout=60)
    with open(stripped, "rb") as file:
        elf = Elf.from_file(file)
    dynamic = {} if binary.name == "static" else functions(binary, "-D")
    every = np.array(list(functions(binary)), np.uint64)
    assert any(elf.names(every)) == bool(dynamic)
    for address, (size, names) in dynamic.items():
        if size:
            assert elf.names(np.array([address], np.uint64))[0] in names


def test_a_function_is_found_whatever_the_compiler_made_of_it(tmp_path: Path) -> None:
    """As link-time optimisation does with one that is not exported."""
    names = ["f", "f.lto_priv.0", "f.constprop.1", "f.cold", "f.cold.2", "ff", "g.f", "f_g"]
    declared = [f'static int f{i}(void) __asm__("{name}");' for i, name in enumerate(names)]
    defined = [f"__attribute__((used)) static int f{i}(void) {{ return {i}; }}"
               for i in range(len(names))]  # fmt: skip
    (tmp_path / "a.c").write_text("\n".join(declared + defined))
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", tmp_path / "a.so", tmp_path / "a.c"],
        check=True,
        timeout=60,
    )
    elf = Elf((tmp_path / "a.so").read_bytes())
    found = {
        name for address in elf.functions("f") for name in functions(tmp_path / "a.so")[address][1]
    }
    assert found == {"f", "f.lto_priv.0", "f.constprop.1"}
    assert elf.functions("f_g.x") == []


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("small")
    (folder / "a.c").write_text(SOURCE)
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", folder / "a.so", folder / "a.c"], check=True, timeout=60
    )
    return (folder / "a.so").read_bytes()


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=12),
       st.integers(0, 2**20))  # fmt: skip
def test_damaged_files_end_in_an_elf_error(
    small: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(small)
    for at, value in changes:
        # Headers are where damage hurts.
        data[at % (len(data) if at % 2 else 1024)] = value
    try:
        elf = Elf(bytes(data[: len(data) - cut % (2 * len(data))]))
    except ElfError:
        return
    for name in elf.names(np.array([0, 0x1000, 0x1139, 2**63], np.uint64)):
        assert name is None or len(name) <= 4096


def test_a_file_that_its_owner_cuts_short_ends_nobody(small: bytes, tmp_path: Path) -> None:
    path = tmp_path / "short.so"
    path.write_bytes(small)
    with open(path, "rb") as file:
        elf = Elf.from_file(file)
    leaf = elf.symbol("leaf")
    assert leaf
    where = np.array([leaf.value], np.uint64)
    assert elf.names(where) == ["leaf"]
    os.truncate(path, 0)
    assert elf.names(where) == [""]
    assert elf.symbol("leaf") is None
    assert elf.notes(b"stapsdt", 8) == []
    assert elf.relocations("leaf") == []


def test_a_file_system_that_fails_ends_nobody(small: bytes, tmp_path: Path) -> None:
    path = tmp_path / "far.so"
    path.write_bytes(small)
    with open(path, "rb") as file:
        elf = Elf.from_file(file)
    with mock.patch("os.pread", side_effect=OSError(errno.ESTALE, "")):
        assert elf.names(np.array([0x1000], np.uint64)) == [None]
    with (
        open(path, "rb") as file,
        mock.patch("os.pread", side_effect=OSError(errno.EIO, "")),
        pytest.raises(ElfError),
    ):
        Elf.from_file(file)


def test_headers_that_claim_the_most_cost_little(small: bytes, tmp_path: Path) -> None:
    """Notes over a hole of a file, which are as many as fit, and addresses beyond the last one."""
    data = bytearray(small)
    (headers_at,) = struct.unpack_from("<Q", data, 32)
    (count,) = struct.unpack_from("<H", data, 56)
    for at in range(headers_at, headers_at + 56 * count, 56):
        (kind,) = struct.unpack_from("<I", data, at)
        if kind == 4:  # PT_NOTE
            struct.pack_into("<QQQQ", data, at + 8, 1 << 20, 0, 0, 256 << 20)
        if kind == 1:  # PT_LOAD
            struct.pack_into("<Q", data, at + 16, 2**64 - 4096)
    path = tmp_path / "hole.so"
    path.write_bytes(data)
    os.truncate(path, 300 << 20)
    begin = time.process_time()
    with open(path, "rb") as file:
        elf = Elf.from_file(file)
    assert elf.build_id == ""
    assert time.process_time() - begin < 5
    linked = [elf.address_of(s.offset + s.size - 1) for s in elf.segments]
    assert elf.names(np.array([a or 0 for a in linked], np.uint64)) is not None


def test_a_program_that_another_replaced_keeps_its_names(small: bytes, tmp_path: Path) -> None:
    """And what both have at one address has none."""
    for name in ("one.so", "two.so"):
        (tmp_path / name).write_bytes(small)
    elf = Elf(small)
    leaf = elf.symbol("leaf")
    assert leaf
    size = len(small)

    def maps(*files: tuple[int, str]) -> None:
        lines = [
            f"{at:x}-{at + size:x} r-xp 00000000 fd:01 {ord(path[0])} {tmp_path / path}\n"
            for at, path in files
        ]
        (tmp_path / "7" / "maps").write_text("".join(lines))

    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "root").symlink_to("/")
    recorder = MappingRecorder(tmp_path)
    shared, apart, later = 1 << 20, 1 << 30, 1 << 40
    call = elf.offset_of(leaf.value)
    assert call is not None
    maps((shared, "one.so"), (apart, "one.so"))
    recorder.observe(7, [shared + call + 1, apart + call + 1])
    recorder.executed(7)
    maps((shared, "two.so"), (later, "two.so"))
    recorder.observe(7, [later + call + 1])
    recorder.finish()
    named = {f["address"] - call - 1: (f["name"], f["module"]) for f in user_frames(recorder)}
    assert named == {
        shared: ("[unknown]", ""),
        apart: ("leaf", "one.so"),
        later: ("leaf", "two.so"),
    }


def test_a_file_that_is_written_over_gives_no_name_of_another(small: bytes, tmp_path: Path) -> None:
    """What is known of its addresses is where in the file they were."""
    library = tmp_path / "one.so"
    library.write_bytes(small)
    leaf = Elf(small).symbol("leaf")
    assert leaf
    at, call = 1 << 20, Elf(small).offset_of(leaf.value)
    assert call is not None
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "root").symlink_to("/")
    line = f"{at:x}-{at + len(small):x} r-xp 00000000 fd:01 7 {library}\n"
    (tmp_path / "7" / "maps").write_text(line)
    recorder = SymbolRecorder(kernel=False)
    recorder._recorder = MappingRecorder(tmp_path)
    recorder._recorder.observe(7, [at + call + 1])
    # Its names are others, at the same places.
    library.write_bytes(small.replace(b"leaf", b"fall") + b"more")
    ((_, frames),) = recorder.finish()
    assert frames["name"].to_pylist() == [f"one.so+{call + 1:#x}"]
    assert recorder.refused["addresses_overwritten"] == 1


def test_processes_that_are_gone_are_kept_within_bounds(
    small: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Builds and shells start thousands, each with addresses of its own."""
    monkeypatch.setattr("sltrace.symbols.mappings._MAX_KEPT", 100 * 250)
    (tmp_path / "one.so").write_bytes(small)
    leaf = Elf(small).symbol("leaf")
    assert leaf
    call = Elf(small).offset_of(leaf.value)
    assert call is not None
    recorder = MappingRecorder(tmp_path)
    for pid in range(1, 301):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "root").symlink_to("/")
        at = pid << 20
        line = f"{at:x}-{at + len(small):x} r-xp 00000000 fd:01 7 {tmp_path / 'one.so'}\n"
        (tmp_path / str(pid) / "maps").write_text(line)
        recorder.observe(pid, [at + call + 1])
        if pid % 2:
            recorder.exited(pid)
        else:
            recorder.executed(pid)
    kept = [(f["pid"], f["name"]) for f in user_frames(recorder)]
    assert sorted(kept) == [(pid, "leaf") for pid in range(1, len(kept) + 1)]
    assert 100 <= len(kept) < 150
    assert recorder.refused_processes == 300 - len(kept)


def test_not_elf() -> None:
    for data in (b"", b"\x7fELF", b"#!/bin/sh\n" * 20, b"\x7fELF\x01\x01" + b"\0" * 100):
        with pytest.raises(ElfError):
            Elf(data)


def test_demangling_agrees_with_the_compiler() -> None:
    assert readable("_ZNSt6vectorIiSaIiEE9push_backERKi") == (
        "std::vector<int, std::allocator<int> >::push_back(int const&)"
    )
    assert readable("_ZN4core3fmt5write17h0123456789abcdefE") == "core::fmt::write"
    assert readable("plain") == "plain"
    assert readable("a\nb\x1b[31m") == "a?b?[31m"
    assert len(readable("x" * 5000)) == 512
    # Each pair of references is as long as all that came before: 2**40 characters.
    numbers = [*"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", *(f"1{n}" for n in "0123")]
    bomb = "_Z1fSt4pairIiiES_IS0_S0_E" + "".join(f"S_IS{n}_S{n}_E" for n in numbers)
    assert readable(bomb) == bomb[:512]


def test_kernel_symbols(tmp_path: Path) -> None:
    table = tmp_path / "kallsyms"
    table.write_text(
        "ffffffff81000000 T _text\nffffffff81000100 t schedule\nffffffff81000200 D data\n"
        "ffffffffc0000000 t probe\t[ext4]\n"
    )
    symbols = KernelSymbols(table)
    asked = np.array([0xFFFFFFFF81000150, 0xFFFFFFFFC0000010, 5], np.uint64)
    assert symbols.names(asked) == [("schedule", "[kernel]"), ("probe", "ext4"), None]
    assert addresses_shown(table)
    # Per-CPU variables come first on some kernels.
    table.write_text("0000000000000000 A fixed_percpu_data\n" + table.read_text())
    assert addresses_shown(table)
    table.write_text("0000000000000000 A fixed_percpu_data\n0000000000000000 T hidden\n")
    assert not addresses_shown(table)
    assert len(KernelSymbols(table)) == 0


def test_libc_agrees_with_the_dynamic_linker() -> None:
    libc = ctypes.CDLL("libc.so.6")
    address = ctypes.cast(libc.clock_nanosleep, ctypes.c_void_p).value or 0
    maps = Path("/proc/self/maps").read_text().splitlines()
    line = next(
        m for m in maps if "x" in m.split()[1]
        and int(m.split("-")[0], 16) <= address < int(m.split()[0].split("-")[1], 16)
    )  # fmt: skip
    start, offset = int(line.split("-")[0], 16), int(line.split()[2], 16)
    with open(line.split()[-1], "rb") as file:
        elf = Elf.from_file(file)
    linked = elf.address_of(address - start + offset)
    assert linked is not None
    (name,) = elf.names(np.array([linked], np.uint64))
    assert name is not None
    assert "clock_nanosleep" in name
