"""Processes and threads as /proc has them now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path

from sltrace.errors import TargetError
from sltrace.procfs import PROC, namespace_pids, parent_of, read_start, status_numbers


def resolve_pid(pid: int, proc: Path = PROC) -> int:
    """Checks a pid the user typed, as this process's pid namespace numbers it.

    Raises:
        TargetError: There is no such process, but a thread of it; names the process that has it,
            or the one a container calls by that pid.
    """
    if (proc / str(pid)).is_dir() and pid > 0:
        # A thread's number has a folder too, which is only not listed.
        process = process_of(pid, proc)
        if process not in (0, pid):
            raise TargetError(
                f"{pid} is no process, but a thread of {process}", f"use --pid {process}"
            )
        return pid
    inside = [p for p in numbers_in(proc) if namespace_pids(proc / str(p))[-1:] == [pid]]
    if inside:
        hint = f"a container calls {', '.join(map(str, inside[:3]))} that: use --pid {inside[0]}"
    else:
        near = get_close_matches(str(pid), [str(p) for p in numbers_in(proc)], n=3)
        hint = f"similar: {', '.join(near)}" if near else "pgrep -a NAME finds processes"
    raise TargetError(f"there is no process {pid}", hint)


def with_children(pids: Iterable[int]) -> tuple[int, ...]:
    """The processes, and below them those that are there already; each once, parents first."""
    children: dict[int, list[int]] = {}
    for pid in all_processes():
        children.setdefault(parent_of(pid), []).append(pid)
    found: dict[int, None] = {}
    wanted = list(pids)
    while wanted:
        pid = wanted.pop(0)
        if pid not in found:
            found[pid] = None
            wanted += sorted(children.get(pid, ()))
    return tuple(found)


def thread_names(pid: int) -> set[bytes]:
    """Names that threads of a process have now."""
    tasks = PROC / str(pid) / "task"
    return {read_start(tasks / str(tid) / "comm", 64).rstrip(b"\n") for tid in numbers_in(tasks)}


def all_processes() -> tuple[int, ...]:
    """Every process that is there."""
    return tuple(numbers_in(PROC))


def process_of(tid: int, proc: Path = PROC) -> int:
    """The process that a thread is of; 0 where it is gone."""
    return next(iter(status_numbers(proc / str(tid), b"Tgid:")), 0)


def numbers_in(folder: Path) -> Iterator[int]:
    """Processes in /proc, or threads in the `task` folder of one; none where it is gone."""
    try:
        entries = [entry.name for entry in folder.iterdir()]
    except OSError:
        return
    yield from (int(e) for e in entries if e.isdigit())
