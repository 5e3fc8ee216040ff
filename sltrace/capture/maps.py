"""BPF maps and raw tracepoints by file descriptor: what needs no object file."""

from __future__ import annotations

import ctypes as c
import mmap
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sltrace.capture import libbpf
from sltrace.errors import CannotRecord

HASH, ARRAY, PERCPU_ARRAY, ARRAY_OF_MAPS, RING = 1, 2, 6, 12, 27
"""enum bpf_map_type"""
MMAPABLE = 1024
"""BPF_F_MMAPABLE"""


class _MapOptions(c.Structure):
    """struct bpf_map_create_opts (libbpf's bpf.h)."""

    _fields_ = (
        ("size", c.c_size_t),
        ("btf_fd", c.c_uint32),
        ("btf_key_type", c.c_uint32),
        ("btf_value_type", c.c_uint32),
        ("btf_vmlinux_value_type", c.c_uint32),
        ("inner_map_fd", c.c_uint32),
        ("map_flags", c.c_uint32),
        ("map_extra", c.c_uint64),
        ("numa_node", c.c_uint32),
        ("ifindex", c.c_uint32),
    )


def open_raw_tracepoint(name: str, program: int) -> int:
    """Attaches a program to a tracepoint for as long as the descriptor returned is open.

    Raises:
        CannotRecord: The kernel refused; the message says why.
    """
    fd = int(libbpf.library().bpf_raw_tracepoint_open(name.encode(), program))
    if fd < 0:
        raise CannotRecord(
            f"cannot attach {name}: {os.strerror(-fd)}",
            libbpf.ASK_DOCTOR,
        )
    return fd


def create_map(
    name: str, kind: int, key: int, value: int, entries: int, flags: int = 0, inner: int = 0
) -> int:
    """Makes a BPF map; its file descriptor.

    Args:
        name: For bpftool; the kernel keeps 15 characters.
        kind: `enum bpf_map_type`.
        key: Bytes of a key.
        value: Bytes of a value.
        entries: How many at most; of a ring, its bytes.
        flags: `BPF_F_*`.
        inner: Of a map of maps, a map like those it will hold.

    Raises:
        CannotRecord: The kernel refused; the message says why.
    """
    options = _MapOptions(size=c.sizeof(_MapOptions), map_flags=flags, inner_map_fd=inner)
    fd = int(
        libbpf.library().bpf_map_create(kind, name.encode(), key, value, entries, c.byref(options))
    )
    if fd < 0:
        raise CannotRecord(
            f"cannot create the table {name}: {os.strerror(-fd)}",
            "run as root (sudo sltrace record ...); sltrace doctor says what is missing",
        )
    return fd


def view(fd: int, entries: int, dtype: np.dtype[Any], *, writable: bool = False) -> NDArray[Any]:
    """An mmapable array map as a NumPy array over the kernel's own memory."""
    pages = -(-entries * dtype.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    view = mmap.mmap(fd, pages, mmap.MAP_SHARED, access)
    return np.frombuffer(view, dtype, entries)
