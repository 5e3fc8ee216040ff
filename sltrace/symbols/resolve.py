"""Names for the distinct addresses of a recording."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from sltrace.model import UNKNOWN_NAME
from sltrace.symbols.demangle import readable
from sltrace.symbols.kernel import KernelSymbols
from sltrace.symbols.mappings import Mapping, MappingRecorder, Process

Frame = dict[str, Any]
_AT_ONCE = 1 << 10
"""Processes whose addresses are looked up together: what is read of a file is so for all."""


def kernel_frames(addresses: Iterable[int], symbols: KernelSymbols) -> list[Frame]:
    """A row of the frames table for each kernel address."""
    ordered = sorted(addresses)
    frames = []
    for address, found in zip(ordered, symbols.names(np.array(ordered, np.uint64)), strict=True):
        name, module = found or (UNKNOWN_NAME, "")
        frames.append(_frame("kernel", 0, address, name, module=module, language="kernel"))
    return frames


def user_frames(recorder: MappingRecorder) -> Iterator[Frame]:
    """A row of the frames table for each address of each process that was seen.

    A return address is that of the instruction after the call, so the byte before it is looked
    up: a call at the very end of a function returns into the next one. For the innermost frame
    that is one byte too low, which only matters at a function's first instruction, where no
    task waits. What two programs of one process have at the same address has no name, nor what one
    had there after another: a stack does not tell which of them it is of.
    """
    of_pid: dict[int, list[Process]] = defaultdict(list)
    for process in (*recorder.replaced, *recorder.processes.values()):
        of_pid[process.pid].append(process)
    pids = iter(of_pid.items())
    while some := list(islice(pids, _AT_ONCE)):
        yield from _frames_of(some, recorder)


def _frames_of(of_pid: list[tuple[int, list[Process]]], recorder: MappingRecorder) -> list[Frame]:
    frames: list[Frame] = []
    by_file: dict[str, list[tuple[int, int, Mapping]]] = defaultdict(list)
    for pid, programs in of_pid:
        for address, processes in sorted(_programs(programs).items()):
            found = [process.find(address - 1) for process in processes]
            if _is_doubtful(found):
                frames.append(_frame("user", pid, address, UNKNOWN_NAME, language="native"))
                continue
            mapping = found[-1]
            if mapping and recorder.files.get(mapping.file):
                by_file[mapping.file].append((pid, address, mapping))
            else:
                frames.append(_jit_frame(pid, address, processes[-1], mapping))
    for key, wanted in by_file.items():
        frames.extend(_file_frames(key, wanted, recorder))
    return frames


def _is_doubtful(found: list[Mapping | None]) -> bool:
    """Whether what programs, or one of them in its time, had at an address was not all the same."""
    if any(m.is_several for m in found if m):
        return True
    if len(found) > 1 and any(m.is_made for m in found if m):
        return True
    return len({m.place if m else None for m in found}) > 1


def _programs(of_one: list[Process]) -> dict[int, list[Process]]:
    """By address: the programs of one pid that it may be of.

    A stack that two have alike is handed over once, so that only the first is known to have it.
    """
    return {
        address: [p for p in of_one if p is process or p.find(address - 1)]
        for process in of_one
        for address in process.addresses
    }


def _file_frames(
    key: str, wanted: list[tuple[int, int, Mapping]], recorder: MappingRecorder
) -> list[Frame]:
    elf = recorder.files[key]
    assert elf is not None
    offsets = [address - 1 - m.start + m.offset for _, address, m in wanted]
    # The vdso is not mapped from a file: its "offset" is already the linked address.
    linked = [elf.address_of(o) for o in offsets]
    names = elf.names(np.array([a or 0 for a in linked], np.uint64))
    # Asked when they are there: it may be written over while they are read.
    if not elf.is_unchanged():
        names = [None] * len(wanted)
        recorder.overwritten += len(wanted)
    frames = []
    for (pid, address, mapping), offset, at, name in zip(
        wanted, offsets, linked, names, strict=True
    ):
        module = module_name(mapping.path)
        shown = readable(name) if name and at is not None else f"{module}+{offset + 1:#x}"
        frames.append(
            _frame(
                "user", pid, address, shown, module=module, build_id=elf.build_id, language="native"
            )
        )
    return frames


def _jit_frame(pid: int, address: int, process: Process, mapping: Mapping | None) -> Frame:
    if name := process.made.get(address):
        return _frame("user", pid, address, readable(name), language="jit")
    if mapping and mapping.path:
        module = module_name(mapping.path)
        shown = f"{module}+{address - mapping.start + mapping.offset:#x}"
        return _frame("user", pid, address, shown, module=module, language="native")
    return _frame("user", pid, address, UNKNOWN_NAME, language="native")


def module_name(path: str) -> str:
    """A mapped file's name for people."""
    return readable(PurePosixPath(path.removesuffix(" (deleted)")).name or path)


def _frame(
    space: str,
    pid: int,
    address: int,
    name: str,
    *,
    module: str = "",
    build_id: str = "",
    language: str,
) -> Frame:
    return {
        "space": space,
        "pid": pid,
        "address": address,
        "name": name,
        "module": module,
        "build_id": build_id,
        "language": language,
    }
