"""BPF maps and raw tracepoints by file descriptor: what needs no object file."""

from __future__ import annotations

import ctypes as c
import errno
import mmap
import os
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sltrace.capture import libbpf
from sltrace.errors import CannotRecord

HASH, ARRAY, PERCPU_ARRAY, ARRAY_OF_MAPS, RING = 1, 2, 6, 12, 27
"""enum bpf_map_type"""
MMAPABLE = 1024
"""BPF_F_MMAPABLE"""
NOEXIST, EXIST = 1, 2
"""BPF_NOEXIST, BPF_EXIST: only elements that are not there yet, or only those that are."""
_MAX_KEYS = 1 << 20
_MAP_INFO_BYTES = 88
"""Of struct bpf_map_info."""


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
        raise libbpf.refusal(f"create the table {name}", -fd)
    return fd


def update_map(fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
    """Sets one element.

    Raises:
        OSError: The kernel refused; FileExistsError and FileNotFoundError where `flags` did.
    """
    if libbpf.library().bpf_map_update_elem(fd, key, value, flags):
        raise _refused(c.get_errno())


def _refused(number: int) -> OSError:
    return OSError(number, f"BPF map: {os.strerror(number)}")


def lookup(fd: int, key: bytes, size: int) -> NDArray[np.uint8]:
    """Value of one element, as bytes; zeros where there is none.

    Raises:
        OSError: The kernel refused.
    """
    value = np.zeros(size, np.uint8)
    if libbpf.library().bpf_map_lookup_elem(fd, key, value.ctypes.data):
        number = c.get_errno()
        if number != errno.ENOENT:
            raise _refused(number)
    return value


def sum_over_cpus(fd: int, index: int, cpus: int) -> int:
    """Sum of a 64-bit counter of a per-CPU array."""
    return int(lookup(fd, index.to_bytes(4, "little"), 8 * cpus).view(np.uint64).sum())


def map_keys(fd: int, size: int) -> list[bytes]:
    """Keys of a map, of `size` bytes each; while others change it, about those that it has."""
    found: list[bytes] = []
    following = c.create_string_buffer(size)
    step = libbpf.library().bpf_map_get_next_key
    while not step(fd, found[-1] if found else None, following):
        found.append(following.raw)
        if len(found) > _MAX_KEYS:
            break
    return found


def delete_key(fd: int, key: bytes) -> None:
    """Deletes an element, if it is there."""
    libbpf.library().bpf_map_delete_elem(fd, key)


def map_info(fd: int) -> tuple[int, int, int, int]:
    """Type, id, bytes of a key and bytes of a value of a map; zeros where it is none."""
    info = c.create_string_buffer(_MAP_INFO_BYTES)
    size = c.c_uint32(_MAP_INFO_BYTES)
    if libbpf.library().bpf_obj_get_info_by_fd(fd, info, c.byref(size)):
        return 0, 0, 0, 0
    kind, number, key, value = struct.unpack_from("<4I", info)
    return kind, number, key, value


def view(fd: int, entries: int, dtype: np.dtype[Any], *, writable: bool = False) -> NDArray[Any]:
    """An mmapable array map as a NumPy array over the kernel's own memory."""
    pages = -(-entries * dtype.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    view = mmap.mmap(fd, pages, mmap.MAP_SHARED, access)
    return np.frombuffer(view, dtype, entries)
