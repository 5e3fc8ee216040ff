"""Names of threads over time: who had a tid when, also after it is gone."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sltrace.model import COMM_BYTES
from sltrace.names.proc import numbers_in
from sltrace.procfs import PROC, folder_of, namespace_pids, parent_of, read_start

FORK, EXEC, RENAME, EXIT, SEEN, EXEC_RECORDED, EXIT_LAST = 1, 2, 3, 4, 5, 6, 7
"""enum task_event_kind in probes/wait_record.h"""

_MAX_CMDLINE = 4096
_MAX_NAMES = 1 << 18
_MAX_OF_THREAD = 1 << 10
"""Names of one thread that are kept for as long as waits may need them."""
_MAX_FORMER = 1 << 17
"""The same of all threads that had several, at 0.2 kB each."""
_ENOUGH = 1 << 12
"""Names and processes from which on those that are gone are let go."""
_KEEP_DEAD_NS = 5_000_000_000
_IDLE = "idle"


@dataclass(slots=True)
class _Name:
    """One name of one thread, from a time on."""

    tid: int
    pid: int
    ppid: int
    comm: str
    from_ns: int
    until_ns: int | None = None
    process: tuple[str, int | None] | None = None
    """Command line and innermost pid as they were when it ended."""


class ProcessNames:
    """Timeline of names per tid, fed with the probes' task events.

    Args:
        proc: Where /proc is.
    """

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._comms: list[str] = ["", _IDLE]
        self._comm_index = {"": 0, _IDLE: 1}
        # The latest name of each tid, by tid; tids whose name changed lately are in _several too.
        self._latest = np.zeros(1 << 16, np.int32)
        self._latest[0] = 1
        self._current: dict[int, _Name] = {}
        self._dead: dict[int, _Name] = {}
        self._newest_ns = 0
        self._several: dict[int, list[_Name]] = {}
        self._in_several = 0
        self._has_several = np.zeros(len(self._latest), bool)
        self._pending: list[_Name] = []
        self._cmdlines: dict[int, tuple[str, int | None]] = {}
        self._enough_comms = self._enough_cmdlines = _ENOUGH
        self._scan()

    def feed(self, events: NDArray[Any]) -> None:
        """Takes structured task events: fields ns, tid, pid, ppid, kind, comm."""
        fields = (events[f].tolist() for f in ("ns", "tid", "pid", "ppid", "kind", "comm"))
        for ns, tid, pid, ppid, kind, comm in zip(*fields, strict=True):
            if kind in (EXIT, EXIT_LAST):
                self._exited(ns, tid, pid, ppid, comm)
            elif kind == SEEN:
                if tid not in self._current:
                    self._named(0, tid, pid, ppid, comm)
            else:
                # A number may be another process's now. And an exec renames first, so that what
                # was read then may be of before.
                if kind in (EXEC, EXEC_RECORDED) or (kind == FORK and tid == pid):
                    self._cmdlines.pop(pid, None)
                    self._process(pid)
                self._named(ns, tid, pid, ppid, comm)

    def comms_for(
        self, tids: NDArray[np.int32], times_ns: NDArray[np.int64]
    ) -> tuple[NDArray[np.int32], list[str]]:
        """Name of each thread at a time, as index into a list; "" where unknown."""
        outside = None
        if tids.size and not 0 <= int(tids.min()) <= int(tids.max()) < len(self._latest):
            outside = (tids < 0) | (tids >= len(self._latest))
            tids = np.where(outside, 0, tids)
        indices = self._latest.take(tids)
        if self._several:
            several = np.flatnonzero(self._has_several.take(tids))
            self._name_by_time(several, tids, times_ns, indices)
        if outside is not None:
            indices[outside] = 0
        return indices, self._comms

    def _name_by_time(
        self,
        rows: NDArray[np.intp],
        tids: NDArray[np.int32],
        times_ns: NDArray[np.int64],
        indices: NDArray[np.int32],
    ) -> None:
        """Corrects the names in rows whose tids had several: a search per tid, not per row."""
        if not len(rows):
            return
        rows = rows[np.argsort(tids[rows], kind="stable")]
        present, first = np.unique(tids[rows], return_index=True)
        for tid, group in zip(present.tolist(), np.split(rows, first[1:]), strict=True):
            names = self._several[tid]
            held = np.searchsorted([n.from_ns for n in names], times_ns[group], side="right") - 1
            by_name = np.array([self._comm_index.get(n.comm, 0) for n in names], np.int32)
            indices[group] = by_name[np.maximum(held, 0)]

    def rows(self, *, final: bool = False) -> list[dict[str, Any]]:
        """Rows of the tasks table for names that have ended; with `final`, for all."""
        names = self._pending
        self._pending = []
        if final:
            names = names + list(self._current.values())
        self._forget()
        return [self._row(name) for name in names]

    def _row(self, name: _Name) -> dict[str, Any]:
        cmdline, ns_pid = name.process or self._process(name.pid)
        return {
            "pid": name.pid,
            "tid": name.tid,
            "comm": name.comm,
            "from_ns": name.from_ns,
            "until_ns": name.until_ns,
            "ppid": name.ppid,
            "ns_pid": ns_pid,
            "cmdline": cmdline,
        }

    def _named(self, ns: int, tid: int, pid: int, ppid: int, comm: bytes | str) -> None:
        text = comm if isinstance(comm, str) else comm.decode(errors="replace")
        name = _Name(tid, pid, ppid, text, ns)
        self._newest_ns = max(self._newest_ns, ns)
        before = self._current.get(tid)
        if before is not None:
            if before.comm == text and before.pid == pid:
                return
            if before.pid == pid and self._is_flooded(tid):
                before.comm = text
                self._remember(tid, text)
                return
            before.until_ns, before.process = ns, self._cmdlines.get(before.pid)
            self._pending.append(before)
        before = before or self._dead.pop(tid, None)
        self._current[tid] = name
        self._remember(tid, text)
        if before is not None:
            self._several.setdefault(tid, [before]).append(name)
            self._in_several += 1
            self._has_several[tid] = True
        if pid not in self._cmdlines:
            self._process(pid)

    def _is_flooded(self, tid: int) -> bool:
        """Whether a new name of a thread takes the place of its last one, to take no memory."""
        own = len(self._several.get(tid, ()))
        return own >= _MAX_OF_THREAD or self._in_several >= _MAX_FORMER

    def _remember(self, tid: int, comm: str) -> None:
        index = self._comm_index.get(comm)
        if index is None:
            # Past the bound, a flood of names costs their text but no memory.
            if len(self._comms) >= _MAX_NAMES:
                comm = "..."
            index = self._comm_index.setdefault(comm, len(self._comms))
            if index == len(self._comms):
                self._comms.append(comm)
        if tid >= len(self._latest):
            more = (1 << tid.bit_length()) - len(self._latest)
            self._latest = np.pad(self._latest, (0, more))
            self._has_several = np.pad(self._has_several, (0, more))
        self._latest[tid] = index

    def _exited(self, ns: int, tid: int, pid: int, ppid: int, comm: bytes) -> None:
        if tid not in self._current:
            self._named(0, tid, pid, ppid, comm)
        name = self._current.pop(tid)
        name.until_ns, name.process = ns, self._cmdlines.get(pid)
        self._pending.append(name)
        self._dead[tid] = name
        self._newest_ns = max(self._newest_ns, ns)

    def _forget(self) -> None:
        """Lets go of old names whose waits have all been written."""
        old = self._newest_ns - _KEEP_DEAD_NS
        # What one was called at that time is its last name from before it.
        self._several = {
            tid: names[max(bisect_right(names, old, key=attrgetter("from_ns")) - 1, 0) :]
            for tid, names in self._several.items()
            if names[-1].from_ns >= old
        }
        self._in_several = sum(map(len, self._several.values()))
        self._has_several[:] = False
        self._has_several[[*self._several]] = True
        self._dead = {t: n for t, n in self._dead.items() if (n.until_ns or 0) >= old}
        if len(self._cmdlines) > self._enough_cmdlines:
            there = {name.pid for name in self._current.values()}
            self._cmdlines = {pid: told for pid, told in self._cmdlines.items() if pid in there}
            self._enough_cmdlines = _ENOUGH + 2 * len(self._cmdlines)
        if len(self._comms) > self._enough_comms:
            self._forget_comms()

    def _forget_comms(self) -> None:
        """Lets go of what nobody is called any more, or was lately.

        One that is named later, as the culprit of a long wait, has no name then.
        """
        before = self._comms
        several = (name for names in self._several.values() for name in names)
        names = (*self._current.values(), *self._dead.values(), *several)
        # Anew: arrays that were made of the list go by which list it is.
        self._comms = list(dict.fromkeys(("", _IDLE, *(name.comm for name in names))))
        self._comm_index = {comm: index for index, comm in enumerate(self._comms)}
        moved = np.array([self._comm_index.get(comm, 0) for comm in before], np.int32)
        self._latest = moved[self._latest]
        self._enough_comms = _ENOUGH + 2 * len(self._comms)

    def _scan(self) -> None:
        for pid in numbers_in(self._proc):
            ppid = parent_of(pid, self._proc)
            for tid in numbers_in(self._proc / str(pid) / "task"):
                comm = read_start(self._proc / str(pid) / "task" / str(tid) / "comm", 64)
                if comm:
                    self._named(0, tid, pid, ppid, comm.rstrip(b"\n")[:COMM_BYTES])

    def _process(self, pid: int) -> tuple[str, int | None]:
        """Command line and innermost pid of a process; read once."""
        found = self._cmdlines.get(pid)
        if found is None:
            own = self._proc / str(pid)
            raw = read_start(own / "cmdline", _MAX_CMDLINE)
            # Of most that have none, as the kernel's, no thread has one either.
            raw = raw or read_start(folder_of(pid, self._proc) / "cmdline", _MAX_CMDLINE)
            text = raw.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
            pids = namespace_pids(own)
            found = self._cmdlines[pid] = text, pids[-1] if pids else None
        return found
