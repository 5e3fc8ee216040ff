"""Executables whose sections are holes: files of some kB that say they are of 100 GB."""

from __future__ import annotations

import os
import struct
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import pytest

from sltrace.symbols.elf import SECTION, SEGMENT, Elf, ElfError, Segment
from sltrace.symbols.filebytes import MAX_SEARCHED, FileBytes
from sltrace.target.go import packed
from sltrace.target.go.buildinfo import MAGIC, read_buildinfo
from sltrace.target.go.image import Image
from sltrace.target.go.memory import Memory
from sltrace.target.go.pclntab import Pclntab
from sltrace.target.memory import Memory as PythonMemory
from sltrace.target.memory import Unreadable
from sltrace.target.python import statics
from sltrace.target.python.objects import Objects

HUGE = 100 << 30
_SYMTAB, _STRTAB, _RELA, _DYNSYM, _PROGBITS = 2, 3, 4, 11, 1
_HEAD, _NAMES_AT, _CONTENTS_AT = 64, 4096, 1 << 16


def sparse(path: Path, sections: Sequence[tuple[str, int, bytes]], size: int = HUGE) -> Path:
    """An executable with sections of a type and first bytes, each up to the end of the file."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name, _, _ in sections) + b".shstrtab\0"
    table = [(0,) * 10]
    for number, (name, kind, _) in enumerate(sections):
        at = _CONTENTS_AT * (number + 1)
        label = names.index(name.encode() + b"\0")
        # The strings of each are those of the one behind it.
        table.append((label, kind, 0, at, at, size - at, number + 2, 0, 1, 0))
    label = names.index(b".shstrtab")
    table.append((label, _STRTAB, 0, 0, _NAMES_AT, len(names), 0, 0, 1, 0))
    rows_at = _HEAD + SEGMENT.size
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, 0, _HEAD, rows_at, 0, _HEAD,
        SEGMENT.size, 1, SECTION.size, len(table), len(table) - 1,
    )  # fmt: skip
    with path.open("wb") as file:
        file.write(header + SEGMENT.pack(1, 5, 0, 0, 0, size, size, 4096))
        file.write(b"".join(SECTION.pack(*row) for row in table))
        file.seek(_NAMES_AT)
        file.write(names)
        for number, (_, _, contents) in enumerate(sections):
            file.seek(_CONTENTS_AT * (number + 1))
            file.write(contents)
    os.truncate(path, size)
    return path


def test_of_build_info_no_more_is_read_than_there_can_be(tmp_path: Path) -> None:
    info = (MAGIC + b"\x08\x02").ljust(32, b"\0") + b"\x08go1.26.6\0"
    image = Image.from_file(sparse(tmp_path / "x", [(".go.buildinfo", _PROGBITS, info)]))
    tracemalloc.start()
    try:
        assert read_buildinfo(image).version == "go1.26.6"
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_a_table_of_functions_that_is_larger_than_any_is_refused(tmp_path: Path) -> None:
    image = Image.from_file(sparse(tmp_path / "x", [(".gopclntab", _PROGBITS, b"")]))
    with pytest.raises(ElfError, match="too large"):
        Pclntab(image)


def test_a_module_is_looked_for_in_so_many_places(tmp_path: Path) -> None:
    """A section may be full of what one begins with, and each is another search."""
    table_at = 2 * _CONTENTS_AT
    header = struct.pack("<IHBB8Q", 0xFFFFFFF1, 0, 1, 8, 1, *(0,) * 7)
    full = struct.pack("<Q", table_at) * 8000
    sections = [(".data", _PROGBITS, full), (".gopclntab", _PROGBITS, header)]
    image = Image.from_file(sparse(tmp_path / "x", sections, 300 << 20))
    with (
        mock.patch.object(FileBytes, "find", autospec=True, side_effect=FileBytes.find) as found,
        pytest.raises(ElfError, match="module"),
    ):
        Pclntab(image)
    assert found.call_count < 100


def test_a_file_is_searched_up_to_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(9) + b"ab" + bytes(9))
    with mock.patch("sltrace.symbols.filebytes.MAX_SEARCHED", 8), path.open("rb") as file:
        assert FileBytes(file).find(b"ab", 3, 20) == 9
        assert FileBytes(file).find(b"ab", 2, 20) == -1


def test_symbols_are_looked_for_in_so_many_tables(tmp_path: Path) -> None:
    """Each search is of their strings, from the last hit to a limit that is the same for all."""
    sections = [(f".s{n}", _SYMTAB, b"") for n in range(30)]
    path = sparse(tmp_path / "x", sections)
    with path.open("rb") as file, mock.patch.object(FileBytes, "find", return_value=-1) as find:
        elf = Elf.from_file(file)
        with mock.patch("sltrace.symbols.elf._MAX_SYMBOLS", 4):
            assert elf.symbol("gc_collect_main") is None
            assert elf.functions("gc_collect_main") == []
    looked = [call.args[1:] for call in find.call_args_list]
    assert 0 < len(looked) < 10
    assert all(end - start <= MAX_SEARCHED + 1 for start, end in looked)


def test_a_name_is_looked_for_in_so_many_places(tmp_path: Path) -> None:
    """Strings may be full of it, and each place would be looked for among all symbols."""
    full = b"\0" + b"f\0" * 30_000
    symbol = struct.pack("<IBBHQQ", 1, 2, 0, 0, 0, 0)
    sections = [(".symtab", _SYMTAB, symbol * 100), (".strtab", _STRTAB, full)]
    path = sparse(tmp_path / "x", sections)
    with (
        path.open("rb") as file,
        mock.patch("sltrace.symbols.elf._MAX_SYMBOLS", 100),
        mock.patch.object(FileBytes, "find", autospec=True, side_effect=FileBytes.find) as find,
    ):
        elf = Elf.from_file(file)
        assert elf.symbol("f") is None
        assert elf.functions("f") == []
    assert 0 < find.call_count < 200


def test_relocations_are_looked_for_in_so_many_tables(tmp_path: Path) -> None:
    symbol = struct.pack("<IBBHQQ", 1, 2, 0, 1, 0, 0)
    relocation = struct.pack("<QQq", 7, 1 << 32 | 18, 0)
    full = [(f".rela{n}", _RELA, relocation * 1000) for n in range(30)]
    path = sparse(
        tmp_path / "x",
        [(".dynsym", _DYNSYM, bytes(24) + symbol), (".dynstr", _STRTAB, b"\0f\0"), *full],
    )
    with (
        path.open("rb") as file,
        mock.patch("sltrace.symbols.elf._MAX_SYMBOLS", 2),
        mock.patch("sltrace.symbols.elf._MAX_RELOCATIONS", 1000),
        mock.patch("sltrace.symbols.elf.MAX_SEARCHED", 3),
        mock.patch.object(Elf, "_array", autospec=True, side_effect=Elf._array) as array,
    ):
        found = Elf.from_file(file).relocations("f")
    assert array.call_count < 20
    assert {(r.address, r.type) for r in found} == {(7, 18)}
    assert 1000 < len(found) <= 4096


def test_an_interpreters_file_is_searched_up_to_a_limit(tmp_path: Path) -> None:
    """However many segments are of the same hole."""
    data = mock.Mock(spec=FileBytes)
    data.find.return_value = -1
    segments = [Segment(0, 0, 100 << 20)] * 4000
    assert list(statics._places(data, segments, "async_gen_asend")) == []
    searched = sum(
        end - start for _, start, end in (call.args for call in data.find.call_args_list)
    )
    assert searched == 256 << 20


def test_an_interpreters_file_and_memory_full_of_what_is_looked_for() -> None:
    """Each place in the file would be a search of memory, each place there a read of a type."""
    segments = [Segment(0, 0x1000, 4096)] * 1000
    assert len(list(statics._places(b"asend\0" * 600, segments, "asend"))) == 64

    memory = mock.Mock(spec=PythonMemory)
    memory.read.side_effect = lambda start, size: (0x1000).to_bytes(8, "little") * (size // 8)
    held = statics._read(memory, [(0x1000, 1 << 30)] * 4000)
    assert sum(len(read) for _, read in held) == 16 << 20

    objects = mock.Mock(spec=Objects)
    objects.type_name.return_value = "str"
    with pytest.raises(Unreadable):
        statics._static_type(objects, "asend", [0x1000], held)
    assert objects.type_name.call_count == 64


def test_memory_full_of_what_build_info_begins_with_is_left() -> None:
    """Each place would be a read of 64 KiB."""
    full = (MAGIC + b"\x08\x02") * (1 << 16)

    def read(_memory: Memory, _address: int, size: int) -> bytes:
        return full[:size]

    with (
        mock.patch.object(packed, "_mappings", return_value=iter([(1 << 20, 1 << 30)])),
        mock.patch.object(Memory, "read", autospec=True, side_effect=read) as reads,
        pytest.raises(packed.UnpackingError),
    ):
        packed.buildinfo_in_memory(os.getpid())
    assert reads.call_count < 100
