"""Another process's memory, which is hostile and changes while it is read."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from sltrace.procfs import folder_of

MAX_READ = 16 << 20
TOP = 1 << 47
"""Where a process's addresses end on x86-64."""
_U64 = struct.Struct("<Q")
_U32 = struct.Struct("<I")
_I64 = struct.Struct("<q")


class Unreadable(Exception):
    """The memory is not mapped, the process is gone, or a size in it cannot be."""


class Memory:
    """The memory of one process.

    Args:
        pid: Process, as /proc numbers it.
        proc: Where /proc is.

    Raises:
        Unreadable: It is gone, or this process may not read it.
    """

    def __init__(self, pid: int, proc: Path = Path("/proc")) -> None:
        self.pid = pid
        try:
            self._fd = os.open(folder_of(pid, proc) / "mem", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as err:
            raise Unreadable(f"process {pid}: {err.strerror}") from err

    def read(self, address: int, size: int) -> bytes:
        """Exactly `size` bytes.

        Raises:
            Unreadable: Not all of them are mapped, or `size` is absurd.
        """
        if not (0 <= size <= MAX_READ and 0 < address < TOP):
            raise Unreadable(f"{size} bytes at {address:#x}")
        try:
            data = os.pread(self._fd, size, address)
        except OSError as err:
            raise Unreadable(f"{address:#x}: {err.strerror}") from err
        if len(data) != size:
            raise Unreadable(f"{address:#x}: {len(data)} of {size} bytes")
        return data

    def u64(self, address: int) -> int:
        """An unsigned number of 8 bytes, or a pointer."""
        value: int = _U64.unpack(self.read(address, 8))[0]
        return value

    def i64(self, address: int) -> int:
        """A signed number of 8 bytes."""
        value: int = _I64.unpack(self.read(address, 8))[0]
        return value

    def u32(self, address: int) -> int:
        """An unsigned number of 4 bytes."""
        value: int = _U32.unpack(self.read(address, 4))[0]
        return value

    def text(self, address: int, limit: int = 256) -> str:
        """A C string, at most `limit` bytes of it."""
        # Not over the end of the page: the next one may not be mapped.
        size = min(limit, 4096 - address % 4096)
        raw = self.read(address, size)
        if b"\0" not in raw and size < limit:
            raw += self.read(address + size, limit - size)
        return raw.partition(b"\0")[0].decode(errors="replace")

    def close(self) -> None:
        """Lets go of the process."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
