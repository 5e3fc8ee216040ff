"""What is mapped where in the processes whose stacks were taken, kept after they are gone.

Files are opened through /proc/PID/map_files while the process lives: that reaches deleted files
and files in other mount namespaces alike, and needs no path.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from operator import attrgetter
from pathlib import Path

from sltrace.procfs import folder_of, read_proc
from sltrace.symbols.elf import Elf, ElfError
from sltrace.symbols.filebytes import Data, FileBytes, open_regular
from sltrace.symbols.perfmapfiles import PerfMapFile, PerfMapFiles

_EXECUTABLE = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) ..x. ([0-9a-f]+) ([0-9a-f]+:[0-9a-f]+) (\d+) *(.*)$", re.MULTILINE
)
_MAX_MAPS = 4 << 20
_MAX_MAPPINGS = 16384
_MAX_FILES = 1024
_MAX_VDSO = 1 << 20
_OF_KERNEL = {"[vdso]", "[vsyscall]", "[uprobes]"}
_SEVERAL = "[several]"
_MAX_KEPT = 128 << 20
"""Bytes of what is known of processes that are gone: 60,000 that have a few libraries."""
_MAPPING_BYTES = 200
_MAX_PROGRAMS = 64
"""That one process was before: each address of one is looked up in all of them."""
_AGAIN_NS, _MAX_AGAIN_NS = 1_000_000_000, 8_000_000_000
"""How soon mappings are read again, which takes 3 ms of a Python process: twice as late each time
that nothing was new. Without frame pointers stacks end in addresses that are nowhere."""
_LOOK_AGAIN_NS = 2_000_000_000
"""After a reading, whether what is mapped at known addresses is still the same."""
_REST = 100
"""Times as long as that took it is not done again, of whatever process."""
_LAST_LOOK_NS = 1_000_000_000
"""How long that may take, of all processes, when the recording has ended."""
_NAMING_NS, _NAMING_AT_LAST_NS = 5_000_000_000, 60_000_000_000
"""CPU time for perf maps of one user, one after another, in a recording and at its end."""


_start = attrgetter("start")


@dataclass(frozen=True, slots=True)
class Mapping:
    """An executable mapping."""

    start: int
    end: int
    offset: int
    path: str
    file: str
    """Key of the file: device and inode, as it itself says; or the path of a special mapping."""

    @property
    def is_made(self) -> bool:
        """Whether the process may have made the code itself, as a JIT does."""
        if self.path.startswith("/"):
            return self.path.startswith("/memfd:")
        return self.path not in _OF_KERNEL and not self.is_several

    @property
    def is_several(self) -> bool:
        """Whether the addresses were of one file, and later of another."""
        return self.file == _SEVERAL

    @property
    def place(self) -> tuple[str, int]:
        """What it is of: mappings that agree in this have the same at an address."""
        return ("", 0) if self.is_made else (self.file, self.start - self.offset)


@dataclass(slots=True)
class Process:
    """What is known of one process's address space."""

    pid: int
    addresses: set[int] | array[int] = field(default_factory=set)
    mapped: list[Mapping] = field(default_factory=list)
    """As of the last reading."""
    mappings: list[Mapping] = field(default_factory=list)
    """As of all; in order, and none of them overlap."""
    read_ns: int = 0
    again_ns: int = 0
    made: dict[int, str] = field(default_factory=dict)
    """Names of addresses of which a JIT made the code."""
    perf_map_file: PerfMapFile | None = None
    exited: bool = False

    def find(self, address: int) -> Mapping | None:
        """The mapping that holds an address, or held it: one that is several if several did."""
        return _at(self.mappings, address)

    def remap(self, mapped: list[Mapping]) -> list[Mapping]:
        """Takes what is mapped now; of that, what was not when it was read before."""
        known = set(self.mapped)
        fresh = [m for m in mapped if m not in known]
        self.mapped = sorted(mapped, key=_start)
        if fresh:
            self.mappings = _combined(self.mappings, sorted(fresh, key=_start))
        return fresh

    def end(self) -> int:
        """Nothing more comes; the bytes that it takes from here on."""
        self.exited = True
        self.mapped, self.perf_map_file = [], None
        self.addresses = array("Q", self.addresses)
        size = len(self.addresses) * self.addresses.itemsize
        return size + len(self.mappings) * _MAPPING_BYTES

    def forget(self) -> None:
        """Leaves only that it was there."""
        self.addresses, self.mappings, self.made = array("Q"), [], {}


class MappingRecorder:
    """Address spaces of the processes seen, and the files mapped in them.

    Args:
        proc: Where /proc is.
    """

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self.processes: dict[int, Process] = {}
        self.replaced: list[Process] = []
        """What processes were before they became another program."""
        self.files: dict[str, Elf | None] = {}
        self.refused_files = 0
        self.refused_processes = 0
        """Processes that are gone and were too many: their addresses have no names."""
        self.overwritten = 0
        """Addresses without names, as the files that they are in were written over."""
        self.perf_maps = PerfMapFiles(proc)
        self._doubted: dict[int, None] = {}
        """Processes with stacks since their mappings were read."""
        self._look_ns = 0
        self._kept = 0
        self._programs: Counter[int] = Counter()

    def observe(self, pid: int, addresses: list[int]) -> list[Mapping]:
        """Makes sure the mappings of these addresses are known, if they can be.

        Returns:
            Mappings that are new.
        """
        process = self.processes.setdefault(pid, Process(pid))
        if isinstance(process.addresses, set):
            process.addresses.update(addresses)
        if process.exited:
            return []
        now = time.monotonic_ns()
        known = all(_at(process.mapped, a) for a in addresses)
        if known or now - process.read_ns < process.again_ns:
            self._doubted[pid] = None
            return []
        fresh = self._read(process, now)
        again_ns = 0 if fresh else 2 * process.again_ns
        process.again_ns = min(max(again_ns, _AGAIN_NS), _MAX_AGAIN_NS)
        return fresh

    def look_again(self) -> Iterator[tuple[int, list[Mapping]]]:
        """Reads mappings of processes where others may be by now; to be called now and then.

        Nothing tells that a library was unloaded, and another loaded in its place.

        Returns:
            Of each process what is new.
        """
        for pid in list(self._doubted):
            now = time.monotonic_ns()
            if now < self._look_ns:
                return
            process = self.processes.get(pid)
            if process and now - process.read_ns < max(_LOOK_AGAIN_NS, process.again_ns):
                continue
            yield from self._look_at(pid)
            after = time.monotonic_ns()
            self._look_ns = after + _REST * (after - now)

    def last_look(self) -> Iterator[tuple[int, list[Mapping]]]:
        """The same when no more stacks come."""
        until = time.monotonic_ns() + _LAST_LOOK_NS
        for pid in list(self._doubted):
            if time.monotonic_ns() < until:
                yield from self._look_at(pid)

    def _look_at(self, pid: int) -> Iterator[tuple[int, list[Mapping]]]:
        del self._doubted[pid]
        process = self.processes.get(pid)
        if process and not process.exited:
            yield pid, self._read(process, time.monotonic_ns())

    def _read(self, process: Process, now: int) -> list[Mapping]:
        process.read_ns = now
        self._doubted.pop(process.pid, None)
        mapped = self.read_maps(process.pid)
        # Of one that has just ended nothing is mapped, and it had what it had.
        fresh = process.remap(mapped) if mapped else []
        for mapping in fresh:
            self._open(process.pid, mapping)
        if process.perf_map_file is None and any(m.is_made for m in fresh):
            process.perf_map_file = self.perf_maps.held_of(process.pid)
        return fresh

    def has_exited(self, pid: int) -> bool:
        """Whether a process whose mappings were read is gone."""
        process = self.processes.get(pid)
        return process is not None and process.exited

    def exited(self, pid: int) -> None:
        """The process, or the recording, has ended: keeps what its perf map tells."""
        process = self.processes.get(pid)
        if process and not process.exited:
            self._end(process, _NAMING_NS)

    def executed(self, pid: int) -> None:
        """The process is another program from now on, with other files at the same addresses."""
        before = self.processes.pop(pid, None)
        if before and before.addresses and self._programs[pid] >= _MAX_PROGRAMS:
            self.refused_processes += 1
            return
        if before and not before.exited:
            self._ended(before)
        if before and before.addresses:
            self._programs[pid] += 1
            self.replaced.append(before)

    def _end(self, process: Process, most_ns: int) -> None:
        process.made = self._names_made(process, most_ns)
        self._ended(process)

    def _ended(self, process: Process) -> None:
        size = process.end()
        if self._kept + size > _MAX_KEPT:
            process.forget()
            self.refused_processes += 1
        else:
            self._kept += size

    def finish(self) -> None:
        """Reads what only now is complete: perf maps of processes that are still there."""
        for process in self.processes.values():
            if not process.exited:
                self._end(process, _NAMING_AT_LAST_NS)

    def build_id(self, mapping: Mapping) -> str:
        """GNU build id of the mapped file; empty if unknown."""
        elf = self.files.get(mapping.file)
        return elf.build_id if elf else ""

    def read_maps(self, pid: int) -> list[Mapping]:
        """Executable mappings of a process now; empty if it is gone."""
        folder = folder_of(pid, self._proc)
        raw = read_proc(folder / "maps", _MAX_MAPS)
        found = []
        keys: dict[tuple[bytes, bytes, str], str] = {}
        for match in islice(_EXECUTABLE.finditer(raw), _MAX_MAPPINGS):
            first, after, offset, device, inode, name = match.groups()
            start, end = int(first, 16), int(after, 16)
            # The same in many processes.
            path = sys.intern(name.decode(errors="replace"))
            if int(inode):
                told = (device, inode, path)
                if told not in keys:
                    own = _identity(_ways(folder, start, end, path))
                    keys[told] = sys.intern(own or f"{device.decode()}/{inode.decode()}")
                key = keys[told]
            else:
                key = path
            found.append(Mapping(start, end, int(offset, 16), path, key))
        return found

    def _open(self, pid: int, mapping: Mapping) -> None:
        if mapping.file in self.files or not mapping.path:
            return
        if mapping.path == "[vdso]":
            if vdso := self._vdso(pid, mapping):
                self.files[mapping.file] = vdso
        elif mapping.path.startswith("/"):
            if len(self.files) >= _MAX_FILES:
                self.refused_files += 1
                return
            elf = self.open_elf(pid, mapping)
            # Of a process that has just ended nothing can be opened: others may have the file, too.
            if elf or self.open_file(pid, mapping):
                self.files[mapping.file] = elf

    def open_elf(self, pid: int, mapping: Mapping) -> Elf | None:
        """The file behind a mapping; None if it cannot be read or is no ELF file."""
        for data in self._opened(pid, mapping):
            with contextlib.suppress(ElfError, OSError):
                return Elf(data)
        return None

    def open_file(self, pid: int, mapping: Mapping) -> Data | None:
        """The bytes behind a mapping; None if they cannot be read."""
        return next(self._opened(pid, mapping), None)

    def _opened(self, pid: int, mapping: Mapping) -> Iterator[Data]:
        folder = folder_of(pid, self._proc)
        for path in _ways(folder, mapping.start, mapping.end, mapping.path):
            with contextlib.suppress(OSError), open_regular(path) as file:
                yield FileBytes(file)

    def _vdso(self, pid: int, mapping: Mapping) -> Elf | None:
        size = mapping.end - mapping.start
        try:
            with open(folder_of(pid, self._proc) / "mem", "rb", buffering=0) as memory:
                memory.seek(mapping.start)
                return Elf(memory.read(min(size, _MAX_VDSO)))
        except (OSError, ElfError, OverflowError, ValueError):
            return None

    def _names_made(self, process: Process, most_ns: int) -> dict[int, str]:
        file = process.perf_map_file or self.perf_maps.of(process.pid)
        if not file and not any(m.is_made for m in process.mappings):
            return {}
        asked = []
        for address in process.addresses:
            mapping = process.find(address - 1)
            if not mapping or not self.files.get(mapping.file):
                asked.append(address)
        # As `user_frames` looks them up.
        found = self.perf_maps.names(file, [a - 1 for a in asked], most_ns)
        return {a: found[a - 1] for a in asked if a - 1 in found}


def _ways(folder: Path, start: int, end: int, path: str) -> tuple[Path, Path]:
    """Where a file may be opened that a process has mapped; the first is surely it."""
    return folder / "map_files" / f"{start:x}-{end:x}", folder / "root" / path.lstrip("/")


def _identity(ways: tuple[Path, ...]) -> str:
    """Device and inode of what is opened; empty if nothing is.

    Not as /proc/PID/maps has them: the device there is the file system's, and in each subvolume of
    a btrfs, so in each container, inodes are numbered anew.
    """
    for way in ways:
        with contextlib.suppress(OSError):
            status = way.stat()
            device = status.st_dev
            return f"{os.major(device):02x}:{os.minor(device):02x}/{status.st_ino}"
    return ""


def _at(mappings: list[Mapping], address: int) -> Mapping | None:
    """That of an address; they are in order."""
    at = bisect_right(mappings, address, key=_start) - 1
    return mappings[at] if at >= 0 and address < mappings[at].end else None


def _combined(known: list[Mapping], fresh: list[Mapping]) -> list[Mapping]:
    """What was mapped and what is, without overlaps; both are in order, and so is this."""
    pieces: list[Mapping] = []
    edges = sorted({edge for m in (*known, *fresh) for edge in (m.start, m.end)})
    for start, end in pairwise(edges):
        before, now = _at(known, start), _at(fresh, start)
        held = now or before
        if not held:
            continue
        if before and now and before.place != now.place:
            held = Mapping(0, 1 << 64, 0, "", _SEVERAL)
        last = pieces[-1] if pieces else None
        if last and last.end == start and (last.file, last.place) == (held.file, held.place):
            pieces[-1] = replace(last, end=end)
        else:
            offset = held.offset + start - held.start
            pieces.append(replace(held, start=start, end=end, offset=offset))
    if len(pieces) > 2 * _MAX_MAPPINGS:
        return [Mapping(0, 1 << 64, 0, "", _SEVERAL)]
    return pieces
