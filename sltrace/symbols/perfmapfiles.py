"""Where the perf maps of processes are, which JITs write for whoever profiles them."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from weakref import WeakValueDictionary

from sltrace.procfs import folder_of, namespace_pids, status_numbers
from sltrace.symbols.filebytes import FileBytes, open_regular
from sltrace.symbols.perfmap import names_in

_MAX_FOLDERS = 512
"""Of processes that are there: each is an open file, and the same for all of one container."""
_MAX_BYTES = 64 << 20
"""That are looked into, at the end of each: 1.4 million functions, in 1 s."""
_MAX_NAMES, _MAX_NAMES_OF_USER = 64 << 20, 16 << 20
"""Bytes of names that are kept."""
_NAME_BYTES = 150
"""Of each beside its text."""
_REST = 10
"""Times as long as reading took is until it is forgotten again."""
_MAX_USERS = 1024
"""Of which each has a share of its own; all others have one together."""


class _Folder:
    """An open folder, whatever becomes of the mount that it is in."""

    _fd = -1

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        status = os.fstat(self._fd)
        return status.st_dev, status.st_ino

    def open(self, name: str) -> IO[bytes]:
        """Opens a regular file in it.

        Raises:
            OSError: There is none, or it cannot be read.
        """
        return open_regular(name, folder=self._fd)


@dataclass(frozen=True)
class PerfMapFile:
    """Where a process's perf map is, or would be; for as long as this is kept."""

    folder: _Folder
    name: str
    user: int
    """Of the process; no user can take what another needs."""

    def open(self) -> IO[bytes]:
        """As `_Folder.open`."""
        return self.folder.open(self.name)


@dataclass(slots=True)
class _Share:
    """What has been done for a user."""

    names: int = 0
    spent_ns: int = 0
    as_of_ns: int = 0

    def rested_ns(self) -> int:
        """CPU time spent not long ago."""
        now = time.monotonic_ns()
        self.spent_ns = max(self.spent_ns - (now - self.as_of_ns) // _REST, 0)
        self.as_of_ns = now
        return self.spent_ns


class PerfMapFiles:
    """Finds them while the processes are there, which is too late when they are told to have ended.

    Args:
        proc: Where /proc is.
    """

    def __init__(self, proc: Path) -> None:
        self.missed = 0
        """Of processes that are gone: what they made has no names."""
        self.cut = 0
        """Of which only the end was looked into, and not all was found."""
        self.refused = 0
        """That were too large or too many for one user."""
        self._names = 0
        self._shares: dict[int, _Share] = {}
        self._proc = proc
        self._folders: WeakValueDictionary[tuple[int, int], _Folder] = WeakValueDictionary()

    def of(self, pid: int) -> PerfMapFile | None:
        """/tmp/perf-PID.map in the process's own mount and pid namespaces; None if it is gone."""
        try:
            folder = _Folder(folder_of(pid, self._proc) / "root" / "tmp")
            folder = self._folders.setdefault(folder.identity, folder)
        except OSError:
            return None
        own = self._proc / str(pid)
        (inner,) = namespace_pids(own)[-1:] or [pid]
        (user,) = status_numbers(own, b"Uid:")[:1] or [-1]
        return PerfMapFile(folder, f"perf-{inner}.map", user)

    def held_of(self, pid: int) -> PerfMapFile | None:
        """The same, to be kept until it ends; None also where there are too many folders."""
        file = self.of(pid)
        return file if len(self._folders) <= _MAX_FOLDERS else None

    def names(
        self, file: PerfMapFile | None, addresses: Collection[int], most_ns: int
    ) -> dict[int, str]:
        """What it tells of addresses; counted if it cannot be known, as with None.

        Args:
            file: Where it is.
            addresses: Any.
            most_ns: CPU time for one user, one after another.
        """
        try:
            if file:
                with file.open() as opened:
                    return self._names_in(FileBytes(opened), addresses, file.user, most_ns)
        except FileNotFoundError:
            return {}
        except OSError:
            pass
        self.missed += 1
        return {}

    def _names_in(
        self, data: FileBytes, addresses: Collection[int], user: int, most_ns: int
    ) -> dict[int, str]:
        share = self._share_of(user)
        if share.rested_ns() > most_ns:
            self.refused += 1
            return {}
        since = max(len(data) - _MAX_BYTES, 0)
        began = time.thread_time_ns()
        found = names_in(data, addresses, since)
        share.spent_ns += time.thread_time_ns() - began
        size = sum(map(len, found.values())) + _NAME_BYTES * len(found)
        if share.names + size > _MAX_NAMES_OF_USER or self._names + size > _MAX_NAMES:
            self.refused += 1
            return {}
        share.names += size
        self._names += size
        if since and len(found) < len(addresses):
            self.cut += 1
        return found

    def _share_of(self, user: int) -> _Share:
        if user not in self._shares and len(self._shares) >= _MAX_USERS:
            user = -1
        return self._shares.setdefault(user, _Share())
