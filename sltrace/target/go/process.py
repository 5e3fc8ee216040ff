"""A Go process that can be looked into: recognised, located, verified."""

from __future__ import annotations

import zlib
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from itertools import count
from pathlib import Path
from weakref import WeakValueDictionary

from sltrace.symbols.elf import Elf, ElfError
from sltrace.target import memory as own
from sltrace.target.executable import exe_of
from sltrace.target.go import dwarf, locate, packed, verify
from sltrace.target.go.buildinfo import read_buildinfo
from sltrace.target.go.errors import DwarfError, NotGoError, RefusedError, UnknownError
from sltrace.target.go.histograms import GC_PAUSES, LATENCIES, STW_HISTOGRAMS
from sltrace.target.go.image import Image
from sltrace.target.go.inlining import Inlining
from sltrace.target.go.libraries import PLUGIN, Libraries
from sltrace.target.go.memory import Memory, UnreadableError
from sltrace.target.go.offsets import Offsets, offsets_of
from sltrace.target.go.pclntab import Pclntab

_MAX_LATEST = 8
_programs: WeakValueDictionary[tuple[int, ...], _Program] = WeakValueDictionary()
"""Those that any process here is of, however many: each is 0.3 to 3 MB."""
_latest: dict[tuple[int, ...], _Program] = {}
"""Those that the next is likely to be of."""
_DEAD = "it has ended, or was replaced"
_PLUGIN = "it has loaded a plugin, which has a copy of the runtime's code that no probe would be in"
_PACKED = "it is packed (UPX), so that its code is not in its file: run it unpacked (upx -d)"
_libraries = Libraries()
_numbers = count(1)


@dataclass(frozen=True)
class Identity:
    """What is known of a Go process before its runtime is looked at.

    Attributes:
        pid: Process id.
        exe: Path of its executable, as the kernel says.
        version: As `go1.26.6`.
        build_id: GNU build id, hex; empty if it has none.
    """

    pid: int
    exe: str
    version: str
    build_id: str


@dataclass(frozen=True)
class _Program:
    """What is the same in all processes of a program: see GoProcess.

    Attributes:
        file: Which file its executable is, and of when: see file_of.
    """

    file: tuple[int, ...]
    image: Image
    table: Pclntab
    inlining: Inlining
    offsets: Offsets
    offsets_from: str
    variables: locate.Variables
    sites: locate.Sites


@dataclass(frozen=True)
class GoProcess:
    """A Go process whose runtime is where and as it should be. Addresses are as loaded.

    What it becomes by exec is another, with the same pid.

    Attributes:
        identity: Who it is.
        image: Its executable.
        table: Its functions.
        inlining: Which of them were inlined into which.
        offsets: Of the runtime's structures.
        offsets_from: `dwarf` or `table`: where these are from.
        bias: Loaded minus linked address.
        variables: Where the runtime's variables are, linked.
        sites: Where to probe, linked.
        reasons: The runtime's words for wait reasons, by number.
        memory: Its memory, or that of what it has become.
        own_memory: Its memory, of which nothing is left once it has become another program.
        program: Number of its program, where that is loaded: addresses with the same are alike.
        shared: What others of its program are given as well, for as long as it is here.
        number: Tells it from all others that were looked into, above 0.
    """

    identity: Identity
    image: Image
    table: Pclntab
    inlining: Inlining
    offsets: Offsets
    offsets_from: str
    bias: int
    variables: locate.Variables
    sites: locate.Sites
    reasons: list[str]
    memory: Memory
    own_memory: own.Memory
    program: int
    shared: _Program
    number: int = field(default_factory=_numbers.__next__)

    @property
    def pid(self) -> int:
        """Process id."""
        return self.identity.pid

    @property
    def sched(self) -> int:
        """Address of runtime.sched."""
        return self.variables.sched + self.bias

    @property
    def histograms(self) -> dict[str, int]:
        """Addresses of those that the runtime keeps of durations, by its own names."""
        found = {LATENCIES: self.sched + self.offsets.s_time_to_run}
        if self.offsets.s_stw >= 0:
            first = self.sched + self.offsets.s_stw
            for number, name in enumerate(STW_HISTOGRAMS):
                found[name] = first + number * self.offsets.histogram.size
        elif self.variables.gc_pauses:
            found[GC_PAUSES] = self.variables.gc_pauses + self.bias
        return found

    def is_alive(self) -> bool:
        """Whether the process is still the same program."""
        try:
            self.own_memory.read(self.sched, 1)
        except own.Unreadable:
            return False
        return True

    def let_go(self) -> None:
        """Holds nothing of it any more; it counts as ended."""
        self.own_memory.close()


def file_of(path: Path) -> tuple[int, ...]:
    """Which file is there, and what is in it: another has other numbers.

    An inode's number is used again, and who copies a file over another may keep its size and time.

    Raises:
        OSError: None is there.
    """
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def started_at(pid: int) -> int:
    """When a process was started, in ticks since boot."""
    stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    return int(stat.rpartition(")")[2].split()[19])


def identify(pid: int) -> Identity:
    """Recognises a Go process.

    Raises:
        NotGoError: It is none; UnknownError if it has ended.
    """
    try:
        path, exe = Path(f"/proc/{pid}/exe"), exe_of(pid)
        if not packed.is_packed(Image.from_file(path)):
            return _identity(pid, path, exe)
        info = packed.buildinfo_in_memory(pid)
        return Identity(pid, exe, info.version, "")
    except OSError as err:
        raise UnknownError(str(err)) from err
    except ElfError as err:
        raise NotGoError(str(err)) from err


def program_of(path: str, pid: int) -> Identity | None:
    """Of an executable of Go's linker, what a process that is to run it will be; else None."""
    try:
        return _identity(pid, Path(path), path)
    except (OSError, ElfError, NotGoError):
        return None


def _identity(pid: int, file: Path, exe: str) -> Identity:
    image = Image.from_file(file)
    info = read_buildinfo(image)
    return Identity(pid, exe, info.version, Elf(image.data).build_id)


def look_into(identity: Identity) -> GoProcess:
    """Finds the runtime of a Go process and checks that it is what it should be.

    Raises:
        RefusedError: It is not, or the process cannot be read; the message says why.
    """
    try:
        with ExitStack() as opened:
            own_memory = own.Memory(identity.pid)
            opened.callback(own_memory.close)
            process = _looked_into(identity, own_memory)
            # It stays open for as long as the process is looked at.
            opened.pop_all()
            return process
    except ElfError as err:
        raise RefusedError(f"its executable cannot be read: {err}") from err
    except (own.Unreadable, UnreadableError) as err:
        raise RefusedError(f"its memory cannot be read: {err}") from err
    except OSError as err:
        raise RefusedError(f"{_DEAD}: {err.strerror}") from err


def _looked_into(identity: Identity, own_memory: own.Memory) -> GoProcess:
    """Likewise; raises also what reading its memory or its files does."""
    pid = identity.pid
    program = _program(identity)
    image, offsets, found = program.image, program.offsets, program.variables
    memory = Memory(pid)
    bias = _load_address(pid) - image.base if image.pie else 0
    process = GoProcess(
        identity=identity,
        image=image,
        table=program.table,
        inlining=program.inlining,
        offsets=offsets,
        offsets_from=program.offsets_from,
        bias=bias,
        variables=found,
        sites=_sites_in(pid, program.sites),
        reasons=verify.wait_reasons(memory, found.wait_reasons + bias),
        memory=memory,
        own_memory=own_memory,
        program=zlib.crc32(repr((program.file, bias)).encode()),
        shared=program,
    )
    verify.verify(
        memory,
        offsets,
        process.sched,
        found.allp + bias,
        found.allgs + bias,
        list(process.histograms.values()),
    )
    if not process.is_alive():
        raise RefusedError(_DEAD)
    return process


def _sites_in(pid: int, sites: locate.Sites) -> locate.Sites:
    """Where to probe: nowhere in a process whose runtime would be seen in part."""
    if not any(library.info.mode == PLUGIN for library in _libraries.of(pid)):
        return sites
    names = [f.name for f in fields(locate.Sites) if f.name != "why"]
    return locate.Sites(**dict.fromkeys(names), why=dict.fromkeys(names, _PLUGIN))


def _program(identity: Identity) -> _Program:
    """What a process runs. Decoding it takes 0.15 s, so that is done once for all of its kind.

    Raises:
        RefusedError: It is not what it should be.
    """
    path = Path(f"/proc/{identity.pid}/exe")
    file = file_of(path)
    known = _programs.get(file) or _decoded(path, file, identity.version)
    _programs[file] = known
    # The latest last.
    _latest.pop(file, None)
    _latest[file] = known
    while len(_latest) > _MAX_LATEST:
        del _latest[next(iter(_latest))]
    return known


def _decoded(path: Path, file: tuple[int, ...], version: str) -> _Program:
    image = Image.from_file(path)
    if packed.is_packed(image):
        raise RefusedError(_PACKED)
    table = Pclntab(image)
    offsets, source = find_offsets(image, version)
    variables = locate.variables(image, table, offsets)
    inlining = Inlining(image, table)
    sites = locate.sites(image, table, offsets, inlining)
    return _Program(file, image, table, inlining, offsets, source, variables, sites)


def find_offsets(image: Image, version: str) -> tuple[Offsets, str]:
    """What the compiler wrote, else what is known of the version; and which, `dwarf` or `table`.

    Raises:
        RefusedError: Neither is there.
    """
    trouble = "it has no DWARF that would tell"
    try:
        written = dwarf.offsets_of(image)
    except DwarfError as err:
        written, trouble = None, str(err)
    if written is not None:
        return written, "dwarf"
    try:
        return offsets_of(version), "table"
    except RefusedError as err:
        raise RefusedError(f"{err}; {trouble}") from err


def _load_address(pid: int) -> int:
    """Lowest address at which the executable is mapped."""
    status = Path(f"/proc/{pid}/exe").stat()
    with open(f"/proc/{pid}/maps", errors="replace") as maps:
        for line in maps:
            fields = line.split(maxsplit=5)
            if len(fields) >= 5 and fields[4] == str(status.st_ino) and int(fields[2], 16) == 0:
                return int(fields[0].partition("-")[0], 16)
    raise RefusedError("where its executable is mapped is not known")
