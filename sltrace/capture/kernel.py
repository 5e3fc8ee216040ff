"""What the running kernel has, from its BTF (through libbpf: 5 MB of types take Python 0.3 s)."""

from __future__ import annotations

import contextlib
import ctypes as c
import platform
import re
from functools import cache
from pathlib import Path

from sltrace.capture.libbpf import library
from sltrace.errors import CannotRecord

BTF_FILE = Path("/sys/kernel/btf/vmlinux")

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NUMA_BALANCING = Path("/proc/sys/kernel/numa_balancing")
_SCHED_EXT = Path("/sys/kernel/sched_ext/root/ops")
"""The name of the sched_ext scheduler; there only while one runs."""
_KIND_STRUCT, _KIND_TYPEDEF = 4, 8
_MEMBER_BYTES = 12


class _Type(c.Structure):
    """struct btf_type (include/uapi/linux/btf.h)."""

    _fields_ = (("name", c.c_uint32), ("info", c.c_uint32), ("size_or_type", c.c_uint32))


@cache
def _btf() -> int:
    pointer = library().btf__load_vmlinux_btf()
    if not pointer or not BTF_FILE.exists():
        raise CannotRecord(
            f"this kernel has no BTF ({BTF_FILE})",
            "use a kernel with CONFIG_DEBUG_INFO_BTF, or --loader bcc with kernel headers",
        )
    return int(pointer)


def _type(type_id: int) -> _Type:
    return c.cast(library().btf__type_by_id(_btf(), type_id), c.POINTER(_Type)).contents


def tracepoint_arguments(name: str) -> int | None:
    """How many arguments a tracepoint has; None if this kernel has no such tracepoint."""
    found = library().btf__find_by_name_kind(_btf(), f"btf_trace_{name}".encode(), _KIND_TYPEDEF)
    if found < 0:
        return None
    pointer = _type(found).size_or_type
    prototype = _type(_type(pointer).size_or_type)
    # The first parameter is the probe's private data.
    return int(prototype.info & 0xFFFF) - 1


def has_field(struct_name: str, field: str) -> bool:
    """Whether a kernel struct has a field of that name (not within anonymous members)."""
    lib = library()
    found = lib.btf__find_by_name_kind(_btf(), struct_name.encode(), _KIND_STRUCT)
    if found < 0:
        return False
    base = lib.btf__type_by_id(_btf(), found)
    members = c.cast(base, c.POINTER(_Type)).contents.info & 0xFFFF
    for i in range(members):
        name = c.c_uint32.from_address(base + c.sizeof(_Type) + i * _MEMBER_BYTES).value
        if lib.btf__name_by_offset(_btf(), name) == field.encode():
            return True
    return False


def version() -> tuple[int, int]:
    """Major and minor of the running kernel."""
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    return (int(found[1]), int(found[2])) if found else (0, 0)


def boot_id() -> str | None:
    """The kernel's own random number of this boot, the same in every container; None if hidden."""
    try:
        return _BOOT_ID.read_text(encoding="ascii", errors="replace").strip() or None
    except OSError:
        return None


def limits() -> list[str]:
    """What this kernel cannot tell, one sentence each, for the trace and for doctor."""
    if not BTF_FILE.exists():
        return ["no BTF: what the probes could not attach to is named beside them"]
    found = []
    if not has_field("cfs_rq", "throttled_clock_pelt_time"):
        found.append("no CPU quota accounting: throttled waits are counted as run-queue waits")
    elif not has_field("cfs_rq", "throttled_clock_self_time"):
        found.append(
            "throttled time is kept on the PELT clock only (before 6.6): on a CPU below its full "
            "capacity it is too short, and the rest is counted as run-queue wait"
        )
    if tracepoint_arguments("sched_switch") == 3:
        found.append(
            "sched_switch does not carry the task state (before 5.18): it is read back, and a "
            "wakeup racing with the switch can make a block look like a preemption (0.5 %)"
        )
    if _NUMA_BALANCING.exists() and _NUMA_BALANCING.read_text().strip() != "0":
        found.append(
            "NUMA balancing hides pages of a process until it touches them again: user stacks "
            "can end early (sysctl kernel.numa_balancing=0)"
        )
    with contextlib.suppress(OSError):
        found.append(
            f"the sched_ext scheduler {_SCHED_EXT.read_text().strip()} runs: its queues may belong "
            "to no CPU, and culprits are then those of the CPU a task was last on"
        )
    return found
