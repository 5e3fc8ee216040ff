"""DWARF that a program made up: what reading it may take."""

from __future__ import annotations

import struct
from dataclasses import replace
from unittest import mock

import pytest

from sltrace.target.go.dwarf import _check_reach, _Reader
from sltrace.target.go.errors import DwarfError
from sltrace.target.go.offsets import offsets_of

_UNITS = 50


def test_one_table_of_abbreviations_is_read() -> None:
    """Each byte of one takes 70 bytes and a microsecond, and each unit may have its own."""
    abbreviation = bytes([1, 0x13, 0, 3, 8, 0, 0])  # a structure, its name as text
    entry = b"\x01runtime.g\0"
    units = b"".join(
        struct.pack("<IHIB", 7 + len(entry), 4, number * len(abbreviation), 8) + entry
        for number in range(_UNITS)
    )
    reader = _Reader(units, (abbreviation + b"\0") * _UNITS)
    read = reader._dwarf.get_abbrev_table
    with mock.patch.object(reader._dwarf, "get_abbrev_table", side_effect=read) as reading:
        assert reader.has("runtime.g", "DW_TAG_structure_type")
        assert not reader.has("runtime.g", "DW_TAG_typedef")
    assert {call.args for call in reading.call_args_list} == {(0,)}


def test_a_name_is_looked_for_in_so_many_places() -> None:
    with mock.patch("sltrace.target.go.dwarf._MAX_HITS", 100):
        reader = _Reader(b"\xffruntime.g\0" * 1000 + b"\x01runtime.g\0", b"")
        assert list(reader._places(b"runtime.g")) == []
    assert list(reader._places(b"runtime.g")) == [11_000]


@pytest.mark.parametrize(
    "wrong",
    [{"g_syscallsp": 129}, {"g_sched_bp": 60}, {"p_runqhead": 64_000}],
)
def test_places_that_cannot_be_read_are_not_believed(wrong: dict[str, int]) -> None:
    """Whoever builds a program writes them, and one process must not end what is told of others."""
    known = offsets_of("go1.24.1")
    _check_reach(known)
    with pytest.raises(DwarfError, match="larger than those known"):
        _check_reach(replace(known, **wrong))  # type: ignore[arg-type]
