"""The folder of a trace: whose it is, and on which disk."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from functools import partial
from pathlib import Path

from sltrace.errors import OutputError
from sltrace.trace.disk import Disk

_SPARE = 64 << 20
"""Bytes of the disk that are left to others, and to the end of a recording: names of addresses,
segments joined. Where there are not 4 times as many at its begin, a quarter of those that are."""
_ROOM, _ROOM_BYTES = ".room", 1 << 14
"""A file that takes the room of what is said when the disk is full all the same, and its size
before that is known."""


class TraceFolder:
    """A folder that is there. What is put into it is 0600, and belongs to the user behind sudo.

    It is locked until it is closed, or the process ends.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._locked = _open(path)
        with contextlib.suppress(BlockingIOError):
            _lock(self._locked)
        self.disk = Disk(self._cannot_write)
        """On which all of it is written."""
        self._at_most = self._room = 0
        self._spare = min(_SPARE, _free(path) // 4)
        self.is_filling = False
        """Whether the disk has no more than is to be left."""
        self.failure = ""
        """What the system said where it could not be written."""
        self._owner = _invoking_user()
        self.disk.do(partial(self.own, path))
        self.disk.do(partial(self.reserve, _ROOM_BYTES))

    def reserve(self, size: int) -> None:
        """Keeps at least so many bytes for what is said when the disk is full."""
        if size > self._room:
            # Longer, not anew: others would take what was let go of.
            with open(self.path / _ROOM, "ab", opener=private) as file:
                file.write(bytes(size - self._room))
            self._room = size
            self.own(self.path / _ROOM)

    def close(self) -> None:
        """From here on another may replace it."""
        with contextlib.suppress(OSError):
            (self.path / _ROOM).unlink(missing_ok=True)
        if self._locked >= 0:
            os.close(self._locked)
            self._locked = -1

    def make(self, folder: Path) -> None:
        """Makes a folder within."""
        folder.mkdir(mode=0o700)
        self.own(folder)

    def replace(self, file: Path, text: bytes) -> None:
        """Puts a file there in one step: whoever reads finds the old one or the new one."""
        beside = file.with_name(f".{file.stem}")
        with open(beside, "wb", opener=private) as out:
            out.write(text)
        self.put(beside, file)

    def put(self, beside: Path, file: Path) -> None:
        """Gives a file that is complete its name."""
        self.own(beside)
        self._at_most += beside.stat().st_size
        beside.rename(file)
        self.is_filling = _free(self.path) < self._spare

    def clear(self) -> None:
        """Removes what has not become a file of the trace, so that there is room."""
        for beside in (*self.path.glob(".[!.]*"), *self.path.glob("*/.writing")):
            if beside.is_file():
                beside.unlink()

    def holds(self, size: int) -> bool:
        """Whether there are so many bytes of segments in it."""
        # What was put there: looking takes long where there are many, and is rarely needed.
        if self._at_most >= size:
            self._at_most = sum(map(_size, self.path.glob("*/*.parquet")))
        return self._at_most >= size

    def has_room(self, size: int) -> bool:
        """Whether its disk has so many bytes besides those that are left; not all disks say so."""
        return not self._spare or _free(self.path) - self._spare >= size

    def own(self, path: Path) -> None:
        """Hands a file or folder to the user behind sudo."""
        if self._owner:
            os.chown(path, *self._owner, follow_symlinks=False)

    def _cannot_write(self, err: OSError) -> OutputError:
        self.failure = err.strerror or str(err)
        hint = "what was recorded so far is readable"
        if err.errno == errno.ENOSPC:
            hint = f"free some space; {hint}"
        if not self.path.is_dir():
            hint = "it was removed or renamed meanwhile; where it is still there, it is readable"
        return OutputError(f"cannot write {self.path}: {err.strerror}", hint)


def is_locked(path: Path) -> bool:
    """Whether another writes to the folder."""
    try:
        folder = _open(path)
    except OSError:
        return False
    try:
        # Shared, so that two who look do not take each other for one who writes.
        _lock(folder, fcntl.LOCK_SH)
    except BlockingIOError:
        return True
    finally:
        os.close(folder)
    return False


def private(path: str, flags: int) -> int:
    """An opener for files that only their owner may read."""
    return os.open(path, flags | os.O_NOFOLLOW, mode=0o600)


def _invoking_user() -> tuple[int, int] | None:
    """The user behind sudo, who is to own the trace."""
    if os.geteuid() != 0:
        return None
    try:
        return int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"])
    except (KeyError, ValueError):
        return None


def _size(file: Path) -> int:
    """Bytes; none where a reader of the live trace has removed it."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _free(path: Path) -> int:
    """Bytes that its disk has for everybody."""
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _lock(folder: int, how: int = fcntl.LOCK_EX) -> None:
    """Locks it, where there are locks: NFS has none of folders.

    Raises:
        BlockingIOError: Another has locked it.
    """
    try:
        fcntl.flock(folder, how | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return
