"""The bytes of a file that belongs to whoever is recorded."""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import zlib
from pathlib import Path
from typing import IO, Any

_CHUNK = 1 << 20
_ENDS = 4096
"""Bytes at the begin and the end of a file that no two versions of a program have alike: build ids,
sizes and offsets of all else."""
MAX_SEARCHED = 1 << 30
"""No section that is searched is as large; holes of a file are as large as one likes."""


class FileBytes:
    """Slices of a file, read when they are asked for; shorter where the file has become so.

    Not a mapping: the owner can cut the file short at any time, and to touch what is gone from a
    mapping ends the process (SIGBUS).

    Args:
        file: A regular file; may be closed afterwards.
    """

    _fd = -1

    def __init__(self, file: IO[bytes]) -> None:
        self._fd = os.dup(file.fileno())
        status = os.fstat(self._fd)
        self._size, self._written_ns = status.st_size, status.st_mtime_ns
        self._changed_ns, self._sum = status.st_ctime_ns, self._sum_of_ends()

    def __del__(self) -> None:
        # Where too many files are open, there never was one.
        if self._fd >= 0:
            os.close(self._fd)

    @property
    def path(self) -> Path:
        """Of this very file, also where another has its name by now."""
        return Path(f"/proc/self/fd/{self._fd}")

    def __len__(self) -> int:
        """Bytes that there were when it was opened."""
        return self._size

    def is_unchanged(self) -> bool:
        """Whether there is in it what there was when it was opened: it may be written over."""
        with contextlib.suppress(OSError):
            now = os.fstat(self._fd)
            if (now.st_size, now.st_mtime_ns) != (self._size, self._written_ns):
                return False
            # So does who removes or renames it; who writes over it may set its time back.
            if now.st_ctime_ns != self._changed_ns:
                if self._sum_of_ends() != self._sum:
                    return False
                self._changed_ns = now.st_ctime_ns
        return True

    def _sum_of_ends(self) -> int:
        return zlib.crc32(self[:_ENDS] + self[max(self._size - _ENDS, 0) :])

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        parts = []
        # A file system that is gone, or broken, ends the file where it cannot be read any more.
        with contextlib.suppress(OSError):
            while start < stop and (read := os.pread(self._fd, min(stop - start, _CHUNK), start)):
                parts.append(read)
                start += len(read)
        return b"".join(parts)

    def find(self, wanted: bytes, start: int, end: int) -> int:
        """As `bytes.find`, in at most MAX_SEARCHED bytes."""
        end = min(end, self._size, start + MAX_SEARCHED)
        while start + len(wanted) <= end:
            chunk = self[start : min(start + _CHUNK, end)]
            at = chunk.find(wanted)
            if at >= 0:
                return start + at
            if len(chunk) < len(wanted):
                break
            start += len(chunk) - len(wanted) + 1
        return -1


Data = bytes | FileBytes
"""What the readers of executables take."""


def is_unchanged(data: Data) -> bool:
    """Whether what is read of them is what was there at first."""
    return not isinstance(data, FileBytes) or data.is_unchanged()


def unpack(layout: struct.Struct, data: Data, at: int) -> tuple[Any, ...]:
    """The values at an offset.

    Raises:
        struct.error: The data end before.
    """
    return layout.unpack(data[at : at + layout.size])


def open_regular(path: Path | str, folder: int | None = None) -> IO[bytes]:
    """Opens a regular file; never a pipe, which may block, nor a device that a target put there.

    A device is not even opened: a watchdog's would begin to count, a tape's to rewind.

    Args:
        path: Of the file.
        folder: A descriptor of the folder that a relative path is from.
    """
    place = os.open(path, os.O_PATH | os.O_CLOEXEC, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(place).st_mode):
            raise OSError("not a regular file")
        return open(f"/proc/self/fd/{place}", "rb", buffering=0)
    finally:
        os.close(place)
