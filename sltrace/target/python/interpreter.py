"""Finds CPython in a process and checks on the live process that its structures are as expected."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from sltrace.procfs import namespace_pids, parent_of
from sltrace.symbols.elf import Elf
from sltrace.symbols.mappings import Mapping, MappingRecorder
from sltrace.target.executable import exe_of
from sltrace.target.memory import Memory, Unreadable
from sltrace.target.python.layout import (
    DEBUG_OFFSETS_BYTES,
    Layout,
    UnknownLayout,
    is_free_threaded,
    layout_for,
)
from sltrace.target.python.objects import Objects

MAX_THREADS = 1 << 14
_MAX_INTERPRETERS = 64
_MAX_FOREIGN = 1 << 12
_MAX_FILES = 16
_MAX_SEARCH_NS = 1_000_000_000
_FRAMES_CHECKED = 8
_ATTEMPTS = 5
_PYTHON = re.compile(r"(lib)?python(\d)\.(\d+)")
_OTHERS = {"pypy": "PyPy", "graalpy": "GraalPy", "jython": "Jython", "micropython": "MicroPython"}
_OTHER = re.compile(rf"(lib)?({'|'.join(_OTHERS)})")


class NotPython(Exception):
    """There is no CPython in the process."""


class Refused(Exception):
    """There is a Python that is not looked into; the message says why."""


class Unrecognised(Refused):
    """Its structures are not as expected; they may have changed while they were read."""


class NotReady(Exception):
    """CPython has not begun, or does not hold still: worth another try."""


@dataclass(frozen=True)
class Interpreter:
    """A recognised CPython.

    Attributes:
        version: As `3.11.7`; `3.10` where the process does not say more.
        exe: Executable of the process.
        build_id: Of the file that holds the interpreter.
        path: Of that file.
        bias: What to add to its linked addresses.
        layout: Its structures.
        runtime: Address of `_PyRuntime`.
        main: Address of the main interpreter's state.
        gil: Address of the main interpreter's GIL.
        interpreters: How many there were.
        code_type: Address of the type `code`; 0 if no thread was in Python code.
        mapped: Name below /proc/PID/map_files of that file, also where another has its place.
    """

    version: str
    exe: str
    build_id: str
    path: str
    bias: int
    layout: Layout
    runtime: int
    main: int
    gil: int
    interpreters: int
    code_type: int
    mapped: str = ""


def find(pid: int, memory: Memory, foreign: set[str], proc: Path = Path("/proc")) -> Interpreter:
    """Looks for CPython in a process.

    Args:
        pid: The process.
        memory: Its memory.
        foreign: Executables in which there was none; added to.
        proc: Where /proc is.

    Raises:
        NotPython: There is none.
        Refused: There is one that cannot be looked into.
        Unrecognised: Likewise, unless another try shows otherwise.
        NotReady: Ask again.
        Unreadable: The process is gone.
    """
    maps = MappingRecorder(proc)
    mappings = maps.read_maps(pid)
    exe = _exe(pid, proc)
    # In the middle of its exec(): Linux shows [vsyscall] in any address space.
    if not any(mapping.path.startswith("/") for mapping in mappings):
        raise NotReady("no file is mapped in it yet, or it is gone")
    for mapping in mappings:
        if other := _OTHER.match(_name(mapping.path)):
            raise Refused(f"{_OTHERS[other[2]]} is not CPython")
    mapping, elf = _file(pid, mappings, maps, foreign)
    symbol = elf.symbol("_PyRuntime")
    if symbol is None:
        raise Refused(f"{_name(mapping.path)} has no symbol _PyRuntime")
    bias = elf.bias(mapping.start, mapping.offset) or 0
    version, minor = _version(memory, elf, bias, mapping.path)
    runtime = symbol.value + bias
    head = memory.read(runtime, DEBUG_OFFSETS_BYTES)
    if is_free_threaded(head):
        raise Refused(
            f"Python {version} is a free-threaded build: it has no GIL, its stacks are not read; "
            "the kernel's view of it works"
        )
    try:
        layout = layout_for(minor, head)
    except UnknownLayout as err:
        raise Refused(str(err)) from err
    main, gil, count, code_type = _checked(pid, memory, layout, runtime, version, proc)
    return Interpreter(
        version,
        exe,
        elf.build_id,
        mapping.path,
        bias,
        layout,
        runtime,
        main,
        gil,
        count,
        code_type,
        f"{mapping.start:x}-{mapping.end:x}",
    )


def threads(memory: Memory, layout: Layout, interpreter: int) -> Iterator[int]:
    """Addresses of the thread states of an interpreter; at most MAX_THREADS.

    Raises:
        Unreadable: The list changed while it was read.
    """
    state = memory.u64(interpreter + layout.threads)
    for _ in range(MAX_THREADS):
        if not state:
            return
        yield state
        state = memory.u64(state + layout.thread_next)


def _name(path: str) -> str:
    return path.removesuffix(" (deleted)").rpartition("/")[2]


def _exe(pid: int, proc: Path) -> str:
    try:
        return exe_of(pid, proc)
    except OSError:
        return ""


def _file(
    pid: int, mappings: list[Mapping], maps: MappingRecorder, foreign: set[str]
) -> tuple[Mapping, Elf]:
    """The mapping of the file that holds the interpreter."""
    named = [m for m in mappings if _PYTHON.match(_name(m.path))]
    # The executable is a shim where there is a library.
    named.sort(key=lambda m: not _name(m.path).startswith("lib"))
    # Whoever embeds CPython statically exports its symbols: extension modules need them.
    first = next((m for m in mappings if m.path.startswith("/")), None)
    key = f"{first.file} {first.path}" if first else ""
    if not named and first and key not in foreign:
        named = [first]
    # A file is mapped in several pieces; a hostile one could be mapped thousands of times, and each
    # of its tables be a hole that takes a second to search.
    by_file: dict[str, Mapping] = {}
    for mapping in named:
        by_file.setdefault(mapping.file, mapping)
    enough_ns = time.thread_time_ns() + _MAX_SEARCH_NS
    for mapping in islice(by_file.values(), _MAX_FILES):
        if time.thread_time_ns() > enough_ns:
            raise Refused("its files take too long to be searched for an interpreter")
        elf = maps.open_elf(pid, mapping)
        if elf and elf.symbol("_PyRuntime"):
            return mapping, elf
        # Up to 3.6 there is no such symbol.
        found = _PYTHON.match(_name(mapping.path))
        if elf and found and elf.symbol("Py_Initialize"):
            version = int(found[2]), int(found[3])
            if version < (3, 7):
                raise Refused(_too_old("{}.{}".format(*version)))
        # Of a process that has just ended it could not be read.
        if elf and mapping is first and len(foreign) < _MAX_FOREIGN:
            foreign.add(key)
    raise NotPython("no mapped file has _PyRuntime")


def _version(memory: Memory, elf: Elf, bias: int, path: str) -> tuple[str, int]:
    symbol = elf.symbol("Py_Version")
    if symbol:  # 3.11 and later
        number = memory.u32(symbol.value + bias)
        major, minor, micro = number >> 24, number >> 16 & 0xFF, number >> 8 & 0xFF
        version = f"{major}.{minor}.{micro}"
    else:
        found = _PYTHON.match(_name(path))
        if not found:
            raise Refused("an embedded CPython older than 3.11 does not say its version")
        major, minor = int(found[2]), int(found[3])
        version = f"{major}.{minor}"
    if major != 3 or minor < 10:
        raise Refused(_too_old(version))
    return version, minor


def _too_old(version: str) -> str:
    return f"Python {version} is older than 3.10"


def _checked(
    pid: int, memory: Memory, layout: Layout, runtime: int, version: str, proc: Path
) -> tuple[int, int, int, int]:
    """Main interpreter, GIL, number of interpreters, type of code objects.

    The process runs meanwhile, so a check that fails is tried again.
    """
    error: Exception | None = None
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(0.002)
        try:
            return _check(pid, memory, layout, runtime, proc)
        except (Unreadable, ValueError) as err:
            error = err
    raise Unrecognised(f"layout of Python {version} not recognised: {error}")


def _check(
    pid: int, memory: Memory, layout: Layout, runtime: int, proc: Path
) -> tuple[int, int, int, int]:
    head = memory.u64(runtime + layout.interpreters)
    if not head:
        raise NotReady("no interpreter yet")
    interpreters = _interpreters(memory, layout, head)
    main = interpreters.get(0)
    if not main:
        raise ValueError("no main interpreter")
    states = list(threads(memory, layout, main))
    if not states:
        raise NotReady("no thread yet")
    _check_threads(pid, memory, layout, states, proc)
    code_type = _check_frames(memory, layout, states)
    gil = memory.u64(main + layout.gil) if layout.gil_is_pointer else runtime + layout.gil
    holder, locked = memory.u64(gil + 8), memory.u32(gil + 16)
    if locked not in (0, 1, 0xFFFFFFFF):
        raise ValueError("the GIL is neither locked nor free")
    if holder and locked == 1 and holder not in states:
        # Those that share the GIL are not told apart here.
        every = chain.from_iterable(threads(memory, layout, i) for i in interpreters.values())
        if holder not in islice(every, MAX_THREADS):
            raise ValueError("the GIL is held by no thread")
    return main, gil, len(interpreters), code_type


def _interpreters(memory: Memory, layout: Layout, state: int) -> dict[int, int]:
    """Addresses of interpreters by their numbers, from one on."""
    found: dict[int, int] = {}
    while state and len(found) < _MAX_INTERPRETERS:
        number = memory.u64(state + layout.interpreter_id)
        if number in found:
            break
        found[number] = state
        state = memory.u64(state + layout.interpreter_next)
    return found


def _check_threads(pid: int, memory: Memory, layout: Layout, states: list[int], proc: Path) -> None:
    """At least one thread state must be that of a thread there is."""
    numbers: dict[int, int] = {}
    for state in states[:64]:
        address = memory.u64(state + layout.thread_id)
        try:
            # A thread's own structure begins with its address, in glibc and in musl.
            is_thread = address != 0 and memory.u64(address) == address
        except Unreadable:
            continue
        if is_thread:
            numbers[memory.u64(state + layout.native_id) if layout.native_id else 0] = state
    # Whom C forked, as uWSGI does, CPython was not told of: it keeps the number of its parent.
    owners = (pid, parent_of(pid, proc)) if layout.native_id else ()
    there = chain.from_iterable(_there(owner, numbers, proc) for owner in owners)
    fitting = next(there if layout.native_id else iter(numbers), None)
    if fitting is None:
        raise ValueError("no thread state fits a thread")
    _check_context(memory, layout, numbers[fitting])


def _check_context(memory: Memory, layout: Layout, state: int) -> None:
    context = memory.u64(state + layout.context)
    if context and "Context" not in Objects(memory, layout).type_name(context):
        raise ValueError("a thread's context is none")


def _check_frames(memory: Memory, layout: Layout, states: list[int]) -> int:
    """The frames of the first thread that has some must have code objects; their type."""
    objects = Objects(memory, layout)
    for state in states[:64]:
        frame = memory.u64(state + layout.frame)
        if layout.cframe and frame:
            frame = memory.u64(frame + layout.cframe_current)
        found = 0
        for _ in range(_FRAMES_CHECKED):
            if not frame:
                break
            owner = memory.read(frame + layout.owner, 1)[0] if layout.owner else 0
            code = memory.u64(frame + layout.frame_code)
            if layout.tagged:
                code &= ~3
            if not layout.skip_from or owner < layout.skip_from:
                if objects.type_name(code) != "code":
                    raise ValueError("a frame has no code object")
                found = objects.type_of(code)
            frame = memory.u64(frame + layout.back)
        if found:
            return found
    return 0


def _there(pid: int, wanted: Collection[int], proc: Path) -> Iterator[int]:
    """Those numbers that threads of a process have in its own pid namespace."""
    tasks = proc / str(pid) / "task"
    try:
        if len(namespace_pids(tasks.parent)) == 1:
            yield from (number for number in wanted if (tasks / str(number)).exists())
        else:
            each = (namespace_pids(task)[-1:] for task in islice(tasks.iterdir(), MAX_THREADS))
            yield from (number for last in each for number in last if number in wanted)
    except OSError:
        return
