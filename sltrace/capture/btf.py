"""Structure layouts from BTF: the probes' C structs become NumPy dtypes, defined once, in C.

Format: Documentation/bpf/btf.rst in the kernel tree.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sltrace.errors import CannotRecord

_MAGIC = 0xEB9F
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF = range(1, 9)
_VOLATILE, _CONST, _RESTRICT, _FUNC, _FUNC_PROTO, _VAR, _DATASEC, _FLOAT = range(9, 17)
_DECL_TAG, _TYPE_TAG, _ENUM64 = range(17, 20)
_MODIFIERS = {_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG}
# Bytes that follow the 12-byte header: fixed, and per element of vlen.
_TRAILING = {
    _INT: (4, 0), _PTR: (0, 0), _ARRAY: (12, 0), _STRUCT: (0, 12), _UNION: (0, 12),
    _ENUM: (0, 8), _FWD: (0, 0), _TYPEDEF: (0, 0), _VOLATILE: (0, 0), _CONST: (0, 0),
    _RESTRICT: (0, 0), _FUNC: (0, 0), _FUNC_PROTO: (0, 8), _VAR: (4, 0), _DATASEC: (0, 12),
    _FLOAT: (0, 0), _DECL_TAG: (4, 0), _TYPE_TAG: (0, 0), _ENUM64: (0, 12),
}  # fmt: skip


@dataclass(frozen=True)
class _Type:
    name: str
    kind: int
    vlen: int
    size: int  # or the type referred to
    body: bytes


class Btf:
    """Types of one BTF blob."""

    def __init__(self, blob: bytes) -> None:
        magic, _version, _flags, header, type_off, type_len, str_off, str_len = struct.unpack_from(
            "<HBBIIIII", blob
        )
        if magic != _MAGIC:
            raise ValueError("not BTF")
        self._strings = blob[header + str_off : header + str_off + str_len]
        self._types = [_Type("", 0, 0, 0, b"")]
        data = blob[header + type_off : header + type_off + type_len]
        position = 0
        while position < len(data):
            name, info, size = struct.unpack_from("<III", data, position)
            kind, vlen = (info >> 24) & 0x1F, info & 0xFFFF
            fixed, each = _TRAILING[kind]
            end = position + 12 + fixed + each * vlen
            self._types.append(
                _Type(self._string(name), kind, vlen, size, data[position + 12 : end])
            )
            position = end
        self._by_name = {(t.kind, t.name): t for t in self._types if t.name}

    @classmethod
    def of_object(cls, path: Path) -> Btf:
        """The `.BTF` section of an ELF object this project built."""
        data = path.read_bytes()
        (section_offset,) = struct.unpack_from("<Q", data, 0x28)
        entry_size, count, names_index = struct.unpack_from("<HHH", data, 0x3A)
        headers = [
            struct.unpack_from("<IIQQQQ", data, section_offset + i * entry_size)
            for i in range(count)
        ]
        names = headers[names_index][4]
        for name, _type, _flags, _address, offset, size in headers:
            start = names + name
            if data[start : data.index(b"\0", start)] == b".BTF":
                return cls(data[offset : offset + size])
        raise CannotRecord(f"the probes {path} carry no BTF", "reinstall sltrace, or make probes")

    def dtype(self, name: str) -> np.dtype[Any]:
        """The struct `name` as a structured dtype with the C offsets and size."""
        return self._struct_dtype(self._by_name[_STRUCT, name])

    def variable_offset(self, section: str, name: str) -> int:
        """Offset of a global variable within its data section, e.g. `.rodata`."""
        body = self._by_name[_DATASEC, section].body
        for position in range(0, len(body), 12):
            type_id, offset, _size = struct.unpack_from("<III", body, position)
            if self._types[type_id].name == name:
                return int(offset)
        raise KeyError(name)

    def enumerators(self, name: str) -> dict[str, int]:
        """Names and values of an enum."""
        body = self._by_name[_ENUM, name].body
        return {
            self._string(n): int(v)
            for n, v in (struct.unpack_from("<Ii", body, i) for i in range(0, len(body), 8))
        }

    def _members(self, type_: _Type | None) -> list[tuple[str, int, int]]:
        if type_ is None or type_.kind not in (_STRUCT, _UNION):
            return []
        return [
            (self._string(n), t, (o & 0xFFFFFF) // 8)
            for n, t, o in (
                struct.unpack_from("<III", type_.body, i) for i in range(0, len(type_.body), 12)
            )
        ]

    def _resolve(self, type_id: int) -> _Type:
        found = self._types[type_id]
        while found.kind in _MODIFIERS:
            found = self._types[found.size]
        return found

    def _struct_dtype(self, type_: _Type) -> np.dtype[Any]:
        members = self._members(type_)
        return np.dtype(
            {
                "names": [name for name, _, _ in members],
                "formats": [self._format(self._resolve(t)) for _, t, _ in members],
                "offsets": [offset for _, _, offset in members],
                "itemsize": type_.size,
            }
        )

    def _format(self, type_: _Type) -> Any:
        if type_.kind == _STRUCT:
            return self._struct_dtype(type_)
        if type_.kind == _ARRAY:
            element, _index, count = struct.unpack("<III", type_.body)
            resolved = self._resolve(element)
            if resolved.name == "char":
                return f"S{count}"
            return (self._format(resolved), (count,))
        if type_.kind == _INT:
            (encoding,) = struct.unpack("<I", type_.body)
            signed = (encoding >> 24) & 1
            return f"{'i' if signed else 'u'}{type_.size}"
        if type_.kind in (_ENUM, _PTR):
            return "u4" if type_.kind == _ENUM else "u8"
        raise ValueError(f"no dtype for {type_.name or type_.kind}")

    def _string(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()
