"""Where /proc has what the threads of a process share."""

from __future__ import annotations

from pathlib import Path


def folder_of(pid: int, proc: Path = Path("/proc")) -> Path:
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
