"""Which functions were inlined into which: what the runtime itself has for its tracebacks.

It is there in stripped executables too. Each function that others were inlined into has a list of
those calls, and a table that tells of which of them an address is. Layout: runtime/symtabinl.go
and internal/abi/symtab.go in Go's source, the same since 1.20.
"""

from __future__ import annotations

import struct

import numpy as np

from sltrace.symbols.elf import ElfError
from sltrace.target.go.image import Image
from sltrace.target.go.pclntab import Pclntab

_CALL = struct.Struct("<4xii4x")
"""An inlined call: of which name, and where in the function it was."""
_NAME_AT = 4
_WHICH, _CALLS = 2, 3
"""Numbers of the table and of the list among those of a function (PCDATA, FUNCDATA)."""
_FIRST_WORD, _LAST_WORD = 36, 64
"""Of runtime.moduledata: between them is from where on the lists are (gofunc). Which one it is
differs between versions."""
_SAMPLE = 8
"""Functions whose lists must be whole for a place to be believed."""
_MAX_CALLS = 1 << 14
"""Inlined into one function: the largest of a large service has some thousands."""


class Inlining:
    """The inlined calls of one executable. Addresses are linked ones.

    Args:
        image: The executable.
        table: Its functions.

    Attributes:
        is_known: Whether they were found; else there seem to be none.
    """

    def __init__(self, image: Image, table: Pclntab) -> None:
        self._image, self._table = image, table
        self._lists = table.data(_CALLS).astype(np.int32)
        self._base = self._find()
        # Built with -gcflags=all=-l it has none.
        self.is_known = self._base > 0 or not (self._lists >= 0).any()

    def _find(self) -> int:
        """The address that offsets of lists are from; 0 for none."""
        having = np.flatnonzero(self._lists >= 0)[:_SAMPLE].tolist()
        try:
            words = self._image.read(self._table.module, 8 * _LAST_WORD)
        except ElfError:
            return 0
        for (base,) in struct.iter_unpack("<Q", words[8 * _FIRST_WORD :]):
            if base and having and all(self._is_list(i, base) for i in having):
                return int(base)
        return 0

    def _is_list(self, index: int, base: int) -> bool:
        low, high = self._table.bounds(index)
        calls = self._calls(base + int(self._lists[index]), self._count(index))
        return bool(calls) and all(
            self._table.name_at(name) and 0 <= place < high - low for name, place in calls
        )

    def _count(self, index: int) -> int:
        """How many calls were inlined into a function."""
        return max((value for value, _ in self._table.steps(index, _WHICH)), default=-1) + 1

    def _calls(self, at: int, count: int) -> list[tuple[int, int]]:
        """Name and place of each call of a list; none where it cannot be."""
        if not 0 < count <= _MAX_CALLS:
            return []
        try:
            return list(_CALL.iter_unpack(self._image.read(at, count * _CALL.size)))
        except ElfError:
            return []

    def innermost(self, address: int) -> str:
        """The function whose code is at an address, inlined or not; empty outside of all."""
        index = int(self._table.index_of(np.array([address]))[0])
        if index < 0:
            return ""
        which = next((v for v, end in self._table.steps(index, _WHICH) if address < end), -1)
        if self._base and which >= 0:
            at = self._base + int(self._lists[index]) + which * _CALL.size
            for name, _ in self._calls(at, 1):
                return self._table.name_at(name)
        return self._table.name(index)

    def holders(self, name: str) -> list[str]:
        """The functions that a function was inlined into, in order of address."""
        wanted = self._table.name_offset(name)
        begin = self._image.offset_of(self._base)
        if not self._base or wanted is None or begin is None:
            return []
        lists = np.unique(self._lists[self._lists >= 0])
        end = begin + int(lists[-1]) + _MAX_CALLS * _CALL.size
        pattern = wanted.to_bytes(4, "little")
        found: list[int] = []
        at = self._image.data.find(pattern, begin + int(lists[0]), end)
        while at >= 0:
            call = at - _NAME_AT - begin
            # Functions that the same was inlined into share a list; lists do not overlap.
            of_it = lists[max(int(np.searchsorted(lists, call, side="right")) - 1, 0)]
            number, misfit = divmod(call - int(of_it), _CALL.size)
            if number >= 0 and not misfit:
                holding = np.flatnonzero(self._lists == of_it).tolist()
                found += [index for index in holding if number < self._count(index)]
            at = self._image.data.find(pattern, at + 1, end)
        return [self._table.name(index) for index in sorted(set(found))]
