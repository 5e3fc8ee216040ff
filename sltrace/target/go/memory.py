"""Reads another process's memory: many pieces in one system call, nothing stopped, nothing written.

What is read is of a program that runs meanwhile, and may be hostile: every length is bounded by
the reader, never by what was read.
"""

from __future__ import annotations

import ctypes as c
import errno
import os
import struct
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sltrace.target.memory import TOP

_IOV_MAX = 1024
_MAX_FAULTS = 256
"""Pieces that could not be read before the whole is given up."""
_PIECE: np.dtype[Any] = np.dtype([("base", "<u8"), ("size", "<u8")])


class UnreadableError(Exception):
    """The process has ended, was replaced, or may not be read."""


@cache
def _readv() -> Any:
    function = c.CDLL(None, use_errno=True).process_vm_readv
    function.restype = c.c_ssize_t
    function.argtypes = (c.c_int, c.c_void_p, c.c_ulong, c.c_void_p, c.c_ulong, c.c_ulong)
    return function


class Memory:
    """Memory of a process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def read(self, address: int, size: int) -> bytes:
        """Bytes at an address.

        Raises:
            UnreadableError: Not all of them can be read.
        """
        buffer = c.create_string_buffer(size)
        piece = struct.pack("<QQ", address, size) if 0 <= address < TOP else b""
        if not piece or self._gather(c.addressof(buffer), size, piece, 1) != size:
            raise UnreadableError(f"{size} bytes at {address:#x} cannot be read")
        return buffer.raw

    def words(self, address: int, count: int) -> NDArray[np.uint64]:
        """64-bit words at an address."""
        return np.frombuffer(self.read(address, 8 * count), np.uint64)

    def pieces(
        self, addresses: NDArray[np.uint64], size: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """`size` bytes at each address, and which of them could be read; the others are zeros."""
        out = np.zeros((len(addresses), size), np.uint8)
        read = np.zeros(len(addresses), bool)
        pieces = np.empty(len(addresses), _PIECE)
        pieces["base"], pieces["size"] = addresses, size
        at = faults = 0
        flat = out.reshape(-1)
        while at < len(pieces) and faults <= _MAX_FAULTS:
            batch = pieces[at : at + _IOV_MAX]
            got = max(self._call(flat, at * size, batch), 0) // size if size else len(batch)
            read[at : at + got] = True
            at += got
            if got < len(batch):
                flat[at * size : (at + 1) * size] = 0
                at += 1
                faults += 1
        return out, read

    def _call(self, buffer: NDArray[np.uint8], offset: int, pieces: NDArray[Any]) -> int:
        beyond = pieces["base"] >= TOP
        if beyond.any():
            # The whole call would fail; what is before it is still good.
            pieces = pieces[: int(np.argmax(beyond))]
            if not len(pieces):
                return 0
        size = int(pieces["size"].sum())
        return self._gather(buffer.ctypes.data + offset, size, pieces.ctypes.data, len(pieces))

    def _gather(self, into: int, size: int, pieces: bytes | int, count: int) -> int:
        """Bytes read, up to the first piece that cannot be; negative if that is the first."""
        local = struct.pack("<QQ", into, size)
        got = int(_readv()(self.pid, local, 1, pieces, count, 0))
        if got < 0 and c.get_errno() != errno.EFAULT:
            raise UnreadableError(os.strerror(c.get_errno()))
        return got

    def string(self, header: bytes, longest: int) -> str:
        """A Go string by its header of pointer and length; empty where it is longer."""
        pointer, length = struct.unpack("<QQ", header)
        if not 0 < length <= longest:
            return ""
        return self.read(pointer, length).decode("utf-8", "replace")
