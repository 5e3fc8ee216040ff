"""Attaches programs to user code: by uprobe_multi, for which libbpf 1.1 has no call, or by perf.

A probe is a file descriptor: closed, or its owner killed, the kernel takes it out again. Detaching
takes 29 ms where that of perf's uprobes takes 770 ms for 8 probes (measured).
"""

from __future__ import annotations

import contextlib
import ctypes as c
import fcntl
import mmap
import os
import struct
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sltrace.capture import kernel, libbpf
from sltrace.errors import CannotRecord

_UPROBE_MULTI = 48
"""BPF_TRACE_UPROBE_MULTI, in `enum bpf_attach_type`."""
_SYS_BPF = 321
_LINK_CREATE = 28
_ATTRIBUTES = struct.Struct("<IIII QQQQ III 4x")
# push %rbp; dec %edi; pop %rbp; jnz 0; ret: as many hits as its argument says.
_LOOP = bytes.fromhex("55ffcf5d75fac3")
_AT_RETURN = 1
"""BPF_F_UPROBE_MULTI_RETURN"""
_SYS_PERF_EVENT_OPEN = 298
_PERF = Path("/sys/bus/event_source/devices/uprobe/type")
_PERF_ATTRIBUTES = struct.Struct("<IIQ 40x QQ 56x")
"""struct perf_event_attr: type, size and config; uprobe_path and probe_offset."""
_SEMAPHORE_SHIFT = 32
_CLOSE_ON_EXEC = 8
_SET_PROGRAM, _ENABLE = 0x40042408, 0x2400
"""PERF_EVENT_IOC_SET_BPF and _ENABLE"""
_HITS = 4000
_CLOSERS = 32


@cache
def _syscall() -> Any:
    function = c.CDLL(None, use_errno=True).syscall
    function.restype = c.c_long
    return function


@cache
def _multi() -> bool:
    """Whether this kernel has uprobe_multi, and for all threads of a process.

    It came with 6.6; up to 6.9 one thread's hits were all there was (46ba0e49b642).
    """
    return kernel.version() >= (6, 10) and kernel.has_field("bpf_uprobe", "ref_ctr_offset")


def attach_type() -> int:
    """What a program must be loaded for (`Program.expect_attach`); 0 for nothing."""
    return _UPROBE_MULTI if _multi() else 0


def attach(
    program: int,
    path: Path,
    offsets: Sequence[int],
    pid: int = 0,
    *,
    semaphores: Sequence[int] = (),
    at_return: bool = False,
) -> list[int]:
    """Runs a program at places of a file.

    Args:
        program: File descriptor, loaded for `attach_type()`.
        path: The file.
        offsets: Where in it an instruction begins.
        pid: Process in which it runs; 0 for every one that maps the file.
        semaphores: For each of the places, where in the file tracers are counted; 0 for nowhere.
        at_return: Run where the functions that begin there return.

    Returns:
        The links: closing them detaches.

    Raises:
        CannotRecord: The kernel refused.
    """
    name = c.create_string_buffer(os.fsencode(path))
    links: list[int] = []
    try:
        if _multi():
            links.append(_attach_multi(program, name, offsets, semaphores, pid, at_return))
        else:
            for offset, semaphore in zip(offsets, semaphores or [0] * len(offsets), strict=True):
                links.append(_open_perf(name, offset, semaphore, pid, at_return))
                fcntl.ioctl(links[-1], _SET_PROGRAM, program)
                fcntl.ioctl(links[-1], _ENABLE, 0)
    except OSError as err:
        if links:
            detach(links)
        with contextlib.suppress(OSError):  # its process has ended: /proc/PID/root leads nowhere
            path = path.resolve()
        raise CannotRecord(f"cannot probe {path}: {err.strerror}", libbpf.ASK_DOCTOR) from err
    return links


def _attach_multi(
    program: int,
    name: c.Array[c.c_char],
    offsets: Sequence[int],
    semaphores: Sequence[int],
    pid: int,
    at_return: bool,
) -> int:
    where, counted = np.array(offsets, np.uint64), np.array(semaphores, np.uint64)
    attributes = _ATTRIBUTES.pack(
        program,
        0,
        _UPROBE_MULTI,
        0,
        c.addressof(name),
        where.ctypes.data,
        counted.ctypes.data if len(counted) else 0,
        0,
        len(where),
        _AT_RETURN if at_return else 0,
        pid,
    )
    fd = int(_syscall()(_SYS_BPF, _LINK_CREATE, attributes, len(attributes)))
    if fd < 0:
        raise OSError(c.get_errno(), os.strerror(c.get_errno()))
    return fd


def _open_perf(
    name: c.Array[c.c_char], offset: int, semaphore: int, pid: int, at_return: bool
) -> int:
    """A perf event at one place: it is told apart by memory, so it is of all threads of `pid`."""
    config = semaphore << _SEMAPHORE_SHIFT | at_return
    attributes = _PERF_ATTRIBUTES.pack(
        int(_PERF.read_text()), _PERF_ATTRIBUTES.size, config, c.addressof(name), offset
    )
    whose, cpu = (pid, -1) if pid else (-1, 0)
    fd = int(_syscall()(_SYS_PERF_EVENT_OPEN, attributes, whose, cpu, -1, _CLOSE_ON_EXEC))
    if fd < 0:
        raise OSError(c.get_errno(), os.strerror(c.get_errno()))
    return fd


def detach(links: list[int]) -> int:
    """Closes all links, which is left empty; the CPU time that took, ns.

    Each waits for the kernel to be done with its probe, 20 to 60 ms here; together they wait once.
    """
    with ThreadPoolExecutor(max_workers=min(len(links), _CLOSERS) or 1) as closers:
        used = sum(closers.map(_close, links))
    links.clear()
    return used


def _close(link: int) -> int:
    begin = time.thread_time_ns()
    os.close(link)
    return time.thread_time_ns() - begin


def hit_cost_ns(program: int) -> float:
    """What one hit on an emulated instruction costs here, with a program that does nothing more.

    Measured with a loop of this process's own: half of it is the breakpoint's exception, which
    differs between machines. 0 where it cannot be measured.
    """
    fd = os.memfd_create("sltrace-calibration")
    try:
        os.write(fd, _LOOP.ljust(mmap.PAGESIZE, b"\0"))
        with mmap.mmap(
            fd, mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC
        ) as code:
            at = np.frombuffer(code, np.uint8).ctypes.data
            loop = c.CFUNCTYPE(None, c.c_uint32)(at)
            try:
                links = attach(program, Path(f"/proc/self/fd/{fd}"), [0], os.getpid())
            except CannotRecord:
                return 0.0
            try:
                loop(_HITS // 4)
                start = time.thread_time_ns()
                loop(_HITS)
                return (time.thread_time_ns() - start) / _HITS
            finally:
                detach(links)
    except (OSError, ValueError, BufferError):
        return 0.0
    finally:
        os.close(fd)
