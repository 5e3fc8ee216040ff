"""Attaches programs to user code by raw bpf(2): libbpf 1.1 has no call for uprobe_multi.

A probe is a file descriptor: closed, or its owner killed, the kernel takes it out again. Detaching
takes 29 ms where that of perf's uprobes takes 770 ms for 8 probes (measured).
"""

from __future__ import annotations

import ctypes as c
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

from sltrace.capture import kernel
from sltrace.errors import CannotRecord

UPROBE_MULTI = 48
"""BPF_TRACE_UPROBE_MULTI, in `enum bpf_attach_type`."""
_SYS_BPF = 321
_LINK_CREATE = 28
_ATTRIBUTES = struct.Struct("<IIII QQQQ III 4x")
# push %rbp; dec %edi; pop %rbp; jnz 0; ret: as many hits as its argument says.
_LOOP = bytes.fromhex("55ffcf5d75fac3")
_AT_RETURN = 1
"""BPF_F_UPROBE_MULTI_RETURN"""
_HITS = 4000
_CLOSERS = 32


@cache
def _syscall() -> Any:
    function = c.CDLL(None, use_errno=True).syscall
    function.restype = c.c_long
    return function


def supported() -> bool:
    """Whether this kernel has uprobe_multi (6.6)."""
    return kernel.has_field("bpf_uprobe", "ref_ctr_offset")


def attach(
    program: int,
    path: Path,
    offsets: Sequence[int],
    pid: int = 0,
    *,
    semaphores: Sequence[int] = (),
    at_return: bool = False,
) -> int:
    """Runs a program at places of a file.

    Args:
        program: File descriptor, loaded for UPROBE_MULTI.
        path: The file.
        offsets: Where in it an instruction begins.
        pid: Process in which it runs; 0 for every one that maps the file.
        semaphores: For each of the places, where in the file tracers are counted; 0 for nowhere.
        at_return: Run where the functions that begin there return.

    Returns:
        The link: closing it detaches.

    Raises:
        CannotRecord: The kernel refused.
    """
    where, counted = np.array(offsets, np.uint64), np.array(semaphores, np.uint64)
    name = c.create_string_buffer(os.fsencode(path))
    attributes = _ATTRIBUTES.pack(
        program,
        0,
        UPROBE_MULTI,
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
        raise CannotRecord(
            f"cannot probe {path}: {os.strerror(c.get_errno())}",
            "this needs Linux 6.6 or newer; --go-level 0 needs no probes",
        )
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
                link = attach(program, Path(f"/proc/self/fd/{fd}"), [0], os.getpid())
            except CannotRecord:
                return 0.0
            try:
                loop(_HITS // 4)
                start = time.thread_time_ns()
                loop(_HITS)
                return (time.thread_time_ns() - start) / _HITS
            finally:
                os.close(link)
    except (OSError, ValueError, BufferError):
        return 0.0
    finally:
        os.close(fd)
