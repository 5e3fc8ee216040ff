"""What /proc has of a process, for all that look at one."""

from __future__ import annotations

from pathlib import Path

PROC = Path("/proc")
_STATUS_BYTES = 1 << 20
"""Of a process's groups, up to 65,536, all are in it, before what it is called in namespaces."""


def folder_of(pid: int, proc: Path = PROC) -> Path:
    """The folder of a process, with its memory and files.

    Where its first thread has ended and others go on, that of one of these: the first's own has
    neither maps nor executable then, and leads nowhere.
    """
    own = proc / str(pid)
    if _has_program(own):
        return own
    try:
        threads = [proc / task.name for task in (own / "task").iterdir()]
    except OSError:
        return own
    return next(filter(_has_program, threads), own)


def _has_program(folder: Path) -> bool:
    try:
        return bool((folder / "exe").readlink())
    except OSError:
        return False


def parent_of(pid: int, proc: Path = PROC) -> int:
    """The process's parent; 0 where it is gone, or has none."""
    # The name in parentheses may hold anything, also a parenthesis.
    fields = read_start(proc / str(pid) / "stat", 1024).rpartition(b")")[2].split()
    return int(fields[1]) if len(fields) > 1 else 0


def namespace_pids(folder: Path) -> list[int]:
    """What a process or thread is called in each pid namespace, that of /proc first."""
    return status_numbers(folder, b"NSpid:")


def status_numbers(folder: Path, name: bytes) -> list[int]:
    """The numbers in a line of a process's or thread's status; none where it is gone."""
    for line in read_proc(folder / "status", _STATUS_BYTES).splitlines():
        if line.startswith(name):
            return [int(p) for p in line.split()[1:]]
    return []


def read_start(path: Path, limit: int) -> bytes:
    """The first bytes of a /proc file, as many as come at once; empty where it is gone."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(limit)
    except OSError:
        return b""


def read_proc(path: Path, limit: int) -> bytes:
    """Up to `limit` bytes of a /proc file, which come a page at a time; empty if it is gone."""
    parts, size = [], 0
    try:
        with open(path, "rb", buffering=0) as file:
            while size < limit and (part := file.read(min(1 << 16, limit - size))):
                parts.append(part)
                size += len(part)
    except OSError:
        pass
    return b"".join(parts)
