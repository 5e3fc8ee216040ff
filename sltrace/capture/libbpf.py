"""The part of libbpf.so.1 that loads and attaches a prebuilt CO-RE object, through ctypes."""

from __future__ import annotations

import ctypes as c
import errno
import os
import re
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from sltrace.errors import MORE_FILES, CannotRecord

_P = c.c_void_p
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "libbpf_set_print": (_P, (_P,)),
    "bpf_object__open_file": (_P, (c.c_char_p, _P)),
    "bpf_object__load": (c.c_int, (_P,)),
    "bpf_object__close": (None, (_P,)),
    "bpf_object__next_program": (_P, (_P, _P)),
    "bpf_object__next_map": (_P, (_P, _P)),
    "bpf_program__name": (c.c_char_p, (_P,)),
    "bpf_program__set_autoload": (c.c_int, (_P, c.c_bool)),
    "bpf_program__attach": (_P, (_P,)),
    "bpf_program__attach_iter": (_P, (_P, _P)),
    "bpf_program__attach_perf_event": (_P, (_P, c.c_int)),
    "bpf_program__fd": (c.c_int, (_P,)),
    "bpf_program__set_expected_attach_type": (c.c_int, (_P, c.c_int)),
    "bpf_link__fd": (c.c_int, (_P,)),
    "bpf_link__destroy": (c.c_int, (_P,)),
    "bpf_iter_create": (c.c_int, (c.c_int,)),
    "bpf_map__name": (c.c_char_p, (_P,)),
    "bpf_map__fd": (c.c_int, (_P,)),
    "bpf_map__set_max_entries": (c.c_int, (_P, c.c_uint32)),
    "bpf_map__max_entries": (c.c_uint32, (_P,)),
    "bpf_map__reuse_fd": (c.c_int, (_P, c.c_int)),
    "bpf_map__initial_value": (_P, (_P, c.POINTER(c.c_size_t))),
    "bpf_map_create": (
        c.c_int,
        (c.c_int, c.c_char_p, c.c_uint32, c.c_uint32, c.c_uint32, _P),
    ),
    "bpf_map_lookup_elem": (c.c_int, (c.c_int, _P, _P)),
    "bpf_map_update_elem": (c.c_int, (c.c_int, _P, _P, c.c_uint64)),
    "bpf_map_delete_elem": (c.c_int, (c.c_int, _P)),
    "bpf_map_get_next_key": (c.c_int, (c.c_int, _P, _P)),
    "bpf_obj_get_info_by_fd": (c.c_int, (c.c_int, _P, c.POINTER(c.c_uint32))),
    "bpf_obj_get": (c.c_int, (c.c_char_p,)),
    "bpf_obj_pin": (c.c_int, (c.c_int, c.c_char_p)),
    "bpf_enable_stats": (c.c_int, (c.c_int,)),
    "bpf_raw_tracepoint_open": (c.c_int, (c.c_char_p, c.c_int)),
    "btf__load_vmlinux_btf": (_P, ()),
    "btf__free": (None, (_P,)),
    "btf__find_by_name_kind": (c.c_int, (_P, c.c_char_p, c.c_uint32)),
    "btf__type_by_id": (_P, (_P, c.c_uint32)),
    "btf__name_by_offset": (c.c_char_p, (_P, c.c_uint32)),
    "libbpf_num_possible_cpus": (c.c_int, ()),
}


@cache
def library() -> c.CDLL:
    """libbpf with its functions typed.

    Raises:
        CannotRecord: It is not installed, or is older than 1.0.
    """
    try:
        lib = c.CDLL("libbpf.so.1", use_errno=True)
    except OSError as err:
        raise CannotRecord(
            "libbpf.so.1 is not installed",
            "apt install libbpf1 (Debian, Ubuntu), dnf install libbpf (Fedora, RHEL)",
        ) from err
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(lib, name)
        function.restype = result
        function.argtypes = arguments
    lib.libbpf_set_print(c.cast(_PRINT, _P))
    return lib


_messages: list[str] = []
_MAX_MESSAGES = 400
_DEBUG = 2
"""enum libbpf_print_level"""


def _keep_message(level: int, text: bytes, arguments: int) -> int:
    # 2,300 messages for whoever debugs libbpf take 40 ms of a start (measured).
    if level >= _DEBUG:
        return 0
    buffer = c.create_string_buffer(2048)
    c.CDLL(None).vsnprintf(buffer, len(buffer), c.c_char_p(text), _P(arguments))
    _messages.append(buffer.value.decode(errors="replace").rstrip())
    del _messages[:-_MAX_MESSAGES]
    return 0


_PRINT = c.CFUNCTYPE(c.c_int, c.c_int, c.c_char_p, _P)(_keep_message)


def messages() -> str:
    """What libbpf and the verifier said last."""
    return "\n".join(_messages)


def possible_cpus() -> int:
    """CPUs the kernel could ever have: the size of tables indexed by CPU."""
    return int(library().libbpf_num_possible_cpus())


class Map:
    """A BPF map: by file descriptor once the object is loaded."""

    def __init__(self, pointer: int) -> None:
        self._pointer = pointer

    @property
    def fd(self) -> int:
        """File descriptor; only after loading."""
        return int(library().bpf_map__fd(self._pointer))

    def resize(self, entries: int) -> None:
        """Sets the number of entries; only before loading."""
        library().bpf_map__set_max_entries(self._pointer, entries)

    @property
    def entries(self) -> int:
        """Number of entries."""
        return int(library().bpf_map__max_entries(self._pointer))

    def reuse(self, fd: int) -> None:
        """Takes a map that exists in place of a new one; only before loading."""
        code = library().bpf_map__reuse_fd(self._pointer, fd)
        if code:
            raise refusal("share a map", -code)

    def write_initial(self, offset: int, data: bytes) -> None:
        """Writes into a data section (.rodata, .bss) before loading."""
        size = c.c_size_t()
        base = library().bpf_map__initial_value(self._pointer, c.byref(size))
        if not base or offset + len(data) > size.value:
            raise ValueError("outside of the section")
        c.memmove(base + offset, data, len(data))


class Program:
    """A BPF program of an object."""

    def __init__(self, pointer: int) -> None:
        self._pointer = pointer
        self.name: str = library().bpf_program__name(pointer).decode()

    @property
    def fd(self) -> int:
        """File descriptor; only after loading."""
        return int(library().bpf_program__fd(self._pointer))

    def autoload(self, wanted: bool) -> None:
        """Whether loading the object loads this program."""
        library().bpf_program__set_autoload(self._pointer, wanted)

    def expect_attach(self, kind: int) -> None:
        """Sets what it will be attached to, `enum bpf_attach_type`; only before loading."""
        library().bpf_program__set_expected_attach_type(self._pointer, kind)

    def attach(self) -> int:
        """Attaches by the program's section; the link."""
        link = library().bpf_program__attach(self._pointer)
        if not link:
            raise refusal(f"attach {self.name}", c.get_errno())
        return int(link)

    def attach_perf_event(self, fd: int) -> int:
        """Attaches to a perf event, which belongs to the link from then on; the link."""
        link = library().bpf_program__attach_perf_event(self._pointer, fd)
        if not link:
            raise refusal(f"attach {self.name}", c.get_errno())
        return int(link)

    def run_iterator(self) -> None:
        """Runs an iterator program over everything it iterates, once."""
        lib = library()
        link = lib.bpf_program__attach_iter(self._pointer, None)
        if not link:
            raise refusal(f"attach {self.name}", c.get_errno())
        try:
            fd = lib.bpf_iter_create(lib.bpf_link__fd(link))
            if fd < 0:
                raise refusal(f"run {self.name}", -fd)
            with open(fd, "rb", buffering=0) as stream:
                while stream.read(1 << 16):
                    pass
        finally:
            lib.bpf_link__destroy(link)


class Object:
    """An opened object: settle its maps and programs, load it, attach it, close it."""

    def __init__(self, path: Path) -> None:
        lib = library()
        _messages.clear()
        self._pointer = lib.bpf_object__open_file(os.fsencode(path), None)
        if not self._pointer:
            raise CannotRecord(
                f"cannot open the probes {path}: {os.strerror(c.get_errno())}",
                "reinstall sltrace, or run make probes",
            )
        self.programs = {p.name: p for p in map(Program, self._walk(lib.bpf_object__next_program))}
        self.maps: dict[str, Map] = {}
        for pointer in self._walk(lib.bpf_object__next_map):
            name = lib.bpf_map__name(pointer).decode()
            # Data sections are called OBJECT.rodata and the like.
            self.maps[re.sub(r"^[^.]+(?=\.)", "", name)] = Map(pointer)
        self._links: list[int] = []
        self._sampled: set[int] = set()
        self._not_sampled: set[int] = set()

    @property
    def is_open(self) -> bool:
        """Whether it was not closed yet."""
        return bool(self._pointer)

    def _walk(self, following: Callable[[int, int | None], int | None]) -> list[int]:
        found: list[int] = []
        while pointer := following(self._pointer, found[-1] if found else None):
            found.append(pointer)
        return found

    def load(self) -> None:
        """Hands everything to the kernel.

        Raises:
            CannotRecord: The kernel refused; the message says why.
        """
        code = library().bpf_object__load(self._pointer)
        if code:
            raise refusal("load the probes", -code)

    def attach(self, name: str) -> None:
        """Attaches one program for as long as the object is open."""
        self._links.append(self.programs[name].attach())

    def detach(self) -> None:
        """Detaches what was attached; the maps stay."""
        self._detach(self._links)

    def attach_sampler(self, name: str, hertz: int) -> None:
        """Runs one program on every CPU so many times a second, while the object is open.

        Raises:
            CannotRecord: The kernel refused that of a CPU; then it runs on none.
        """
        links: list[int] = []
        cpus = online_cpus()
        try:
            for cpu in cpus:
                fd = _open_cpu_clock(cpu, hertz)
                try:
                    links.append(self.programs[name].attach_perf_event(fd))
                except BaseException:
                    os.close(fd)
                    raise
        except BaseException:
            self._detach(links)
            raise
        self._links += links
        self._sampled.update(cpus)

    def cpus_not_sampled(self) -> int:
        """CPUs on which a sampler runs no more, as they came online since, or came back.

        A CPU's timer goes with it, and to attach another needs privileges that are given up. To be
        asked each second: one that is away for less is not noticed.
        """
        online = set(online_cpus())
        if self._sampled:
            self._not_sampled |= online - self._sampled
            self._sampled &= online
        return len(self._not_sampled)

    @staticmethod
    def _detach(links: list[int]) -> None:
        while links:
            library().bpf_link__destroy(links.pop())

    def close(self) -> None:
        """Detaches and unloads."""
        self.detach()
        if self._pointer:
            library().bpf_object__close(self._pointer)
            self._pointer = None


# perf_event_open(2): number on x86-64; type and event of the software clock; flags.
_SYS_PERF_EVENT_OPEN = 298
_SOFTWARE, _CPU_CLOCK, _BY_FREQUENCY, _CLOSE_ON_EXEC = 1, 0, 1 << 10, 8
_ATTR_BYTES = 128


def _open_cpu_clock(cpu: int, hertz: int) -> int:
    """A timer of a CPU that counts while something runs on it; its file descriptor."""
    attributes = struct.pack(
        "<IIQQQQQ", _SOFTWARE, _ATTR_BYTES, _CPU_CLOCK, hertz, 0, 0, _BY_FREQUENCY
    ).ljust(_ATTR_BYTES, b"\0")
    libc = c.CDLL(None, use_errno=True)
    fd = int(libc.syscall(_SYS_PERF_EVENT_OPEN, attributes, -1, cpu, -1, _CLOSE_ON_EXEC))
    if fd < 0:
        raise refusal(f"sample CPU {cpu}", c.get_errno())
    return fd


def online_cpus() -> list[int]:
    """CPUs that run now."""
    with open("/sys/devices/system/cpu/online", encoding="ascii") as file:
        parts = [p.split("-") for p in file.read().strip().split(",")]
    return [cpu for p in parts for cpu in range(int(p[0]), int(p[-1]) + 1)]


ASK_DOCTOR = "sltrace doctor says what this kernel lacks"
"""What to do where nothing better is known."""

_HINTS = {
    errno.EPERM: "run as root (sudo sltrace record ...); sltrace doctor says what is missing",
    errno.EMFILE: MORE_FILES,
    errno.ENFILE: MORE_FILES,
    errno.ENOMEM: "free some memory, or record with smaller buffers: --buffer 64k",
    errno.ENOENT: "this kernel has no such tracepoint; sltrace doctor says what it lacks",
}


def refusal(what: str, number: int) -> CannotRecord:
    """What to say where the kernel refused, with an errno, to do something."""
    reason = os.strerror(number) if number else "unknown reason"
    said = next((m for m in reversed(_messages) if "BTF" in m and "vmlinux" in m), "")
    hint = _HINTS.get(number, ASK_DOCTOR)
    if said and number not in (errno.EPERM, errno.EACCES):
        hint = "this kernel has no BTF: try --loader bcc (needs kernel headers)"
    return CannotRecord(f"cannot {what}: {reason}", hint)
