"""Reads objects of CPython: types, strings, dicts, attributes. All reads are bounded."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from sltrace.target.memory import Memory, Unreadable
from sltrace.target.python.layout import Layout

MAX_TEXT = 4096
MAX_ENTRIES = 1 << 16
_MAX_SLOTS = 64
_SPLIT_KEYS = 2  # DICT_KEYS_SPLIT


class Objects:
    """Objects of one process.

    Args:
        memory: Its memory.
        layout: Of its CPython.
    """

    def __init__(self, memory: Memory, layout: Layout) -> None:
        self._memory = memory
        self._minor = layout.minor
        self._text = layout.text

    def type_of(self, address: int) -> int:
        """Address of an object's type."""
        return self._memory.u64(address + 8)

    def type_name(self, address: int) -> str:
        """Name of the type of the object, as `code`."""
        return self.name_of_type(self.type_of(address))

    def name_of_type(self, type_: int) -> str:
        """Name of a type object."""
        return self._memory.text(self._memory.u64(type_ + 24), 64)

    def text(self, address: int, limit: int = MAX_TEXT) -> str:
        """A str, the first `limit` characters; compact ones only, as all made from source are.

        Raises:
            Unreadable: Not a str that can be.
        """
        head = self._memory.read(address, 40)
        return self._text_after(address, head, limit)

    def _text_after(self, address: int, head: bytes, limit: int) -> str:
        """As `text`, where the first 40 bytes have been read."""
        length = _length(head)
        state = head[32] >> 2  # after `interned`
        kind, compact, ascii_ = state & 7, state >> 3 & 1, state >> 4 & 1
        if not compact or kind not in (1, 2, 4) or length > 1 << 24:
            raise Unreadable("not a compact str")
        count = min(length, limit)
        start = address + self._text + (0 if ascii_ else self._more_head)
        raw = self._memory.read(start, count * kind) if count else b""
        return raw.decode({1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}[kind], errors="replace")

    @property
    def _more_head(self) -> int:
        """PyCompactUnicodeObject after PyASCIIObject: 3.12 dropped the wchar_t members."""
        return 16 if self._minor >= 12 else 24

    def bytes(self, address: int, limit: int) -> bytes:
        """A bytes object; of one that is longer than `limit`, nothing."""
        size = self._memory.u64(address + 16)
        return self._memory.read(address + 32, size) if 0 < size <= limit else b""

    def dict_items(self, address: int) -> Iterator[tuple[int, int]]:
        """Addresses of keys and values of a dict; at most MAX_ENTRIES."""
        keys, values = struct.unpack("<QQ", self._memory.read(address + 32, 16))
        pairs = self._keys(keys)
        if not values:
            yield from ((k, v) for k, v in pairs if k and v)
            return
        if self._minor >= 13:
            values += 8
        for i, (key, _) in enumerate(pairs[:_MAX_SLOTS]):
            value = self._memory.u64(values + 8 * i)
            if key and value:
                yield key, value

    def dict_state(self, address: int) -> tuple[int, ...]:
        """What of a dict is another where keys were added to it or taken away: its size, its
        version up to 3.12, where its keys are, and how many were put there."""
        head: tuple[int, ...] = struct.unpack("<3Q", self._memory.read(address + 16, 24))
        return *head, self._memory.u64(head[-1] + (32 if self._minor == 10 else 24))

    def _keys(self, keys: int) -> list[tuple[int, int]]:
        """Entries of a PyDictKeysObject in order."""
        if self._minor == 10:
            size, count = struct.unpack_from("<Q16xQ", self._memory.read(keys, 40), 8)
            width = 1 if size <= 0xFF else 2 if size <= 0xFFFF else 4
            start, each = keys + 40 + size * width, 24
        else:
            head = self._memory.read(keys, 32)
            (count,) = struct.unpack_from("<Q", head, 24)
            start, each = keys + 32 + (1 << (head[9] & 31)), 16 if head[10] else 24
        if count > MAX_ENTRIES:
            raise Unreadable("dict too large")
        raw = self._memory.read(start, count * each) if count else b""
        first = each - 16
        return [struct.unpack_from("<QQ", raw, i * each + first) for i in range(count)]

    def dict_get(self, address: int, name: str) -> int:
        """Address of the value for a str key.

        Raises:
            Unreadable: There is none.
        """
        found = self.dict_find(address, (name,))
        if name not in found:
            raise Unreadable(f"no {name}")
        return found[name]

    def dict_find(self, address: int, names: Iterable[str]) -> dict[str, int]:
        """Addresses of the values for those of some str keys that there are.

        Raises:
            Unreadable: It cannot be a dict.
        """
        found: dict[str, int] = {}
        wanted = {name: len(name) for name in names}
        lengths = set(wanted.values())
        for key, value in self.dict_items(address):
            try:
                head = self._memory.read(key, 40)
                # Most are told by that alone, for half of the reads.
                if _length(head) not in lengths:
                    continue
                name = self._text_after(key, head, max(lengths))
            except Unreadable:
                continue
            if name in wanted:
                found.setdefault(name, value)
                if len(found) == len(wanted):
                    break
        return found

    def attribute(self, address: int, name: str) -> int:
        """Address of an instance's attribute, wherever the version keeps it.

        Raises:
            Unreadable: There is none, or it is not in a plain instance's place.
        """
        if self._minor == 10:
            return self.dict_get(self._memory.u64(address + 16), name)
        values, dictionary = self._instance(address)
        if not values:
            return self.dict_get(dictionary, name)
        slot = self._slot(self.type_of(address), name)
        found = self._memory.u64(values + 8 * slot)
        if not found:
            raise Unreadable(f"no {name}")
        return found

    def _instance(self, address: int) -> tuple[int, int]:
        """Address of an instance's values in the order of its type's keys, or of its dict."""
        if self._minor == 11:
            dictionary, values = self._memory.u64(address - 24), self._memory.u64(address - 32)
            return values, dictionary
        word = self._memory.u64(address - 24)
        if self._minor == 12:
            return (word + 1, 0) if word & 1 else (0, word)
        valid = self._memory.read(address + 16, 4)[3]
        return (address + 24, 0) if valid else (0, word)

    def _slot(self, type_: int, name: str) -> int:
        """Position of an attribute in the shared keys of a class (ht_cached_keys)."""
        # Its offset depends on the build; a split table is told by its own fields.
        for offset in range(800, 1000, 8):
            try:
                keys = self._memory.u64(type_ + offset)
                if keys & 7 or self._memory.read(keys, 11)[10] != _SPLIT_KEYS:
                    continue
                for i, (key, _) in enumerate(self._split(keys)):
                    if self.text(key, len(name) + 1) == name:
                        return i
            except Unreadable:
                continue
        raise Unreadable(f"no {name}")

    def _split(self, keys: int) -> list[tuple[int, int]]:
        head = self._memory.read(keys, 32)
        count = min(struct.unpack_from("<Q", head, 24)[0], _MAX_SLOTS)
        raw = self._memory.read(keys + 32 + (1 << (head[9] & 31)), count * 16)
        return [struct.unpack_from("<QQ", raw, i * 16) for i in range(count)]


def _length(head: bytes) -> int:
    """Of a str, in characters."""
    length: int = struct.unpack_from("<Q", head, 16)[0]
    return length
