"""Where the running kernel keeps the fields the BCC probes read, from its BTF."""

from __future__ import annotations

import ctypes as c
import struct

from sltrace.capture.libbpf import library
from sltrace.errors import CannotRecord

_STRUCT, _UNION = 4, 5
_MODIFIERS = {8, 9, 10, 11, 18}  # typedef, volatile, const, restrict, type tag
_HEADER = struct.Struct("<III")  # name, info, size or type
_MEMBER = struct.Struct("<III")  # name, type, offset in bits

_ALWAYS = (
    "task_struct.pid",
    "task_struct.tgid",
    "task_struct.comm",
    "task_struct.policy",
    "task_struct.prio",
    "task_struct.static_prio",
    "task_struct.real_parent",
    "task_struct.cgroups",
    "task_struct.signal",
    "signal_struct.live",
    "task_struct.se.sum_exec_runtime",
    "task_struct.on_cpu",
    "css_set.dfl_cgrp",
    "cgroup.kn",
    "cgroup.root",
    "cgroup.self.parent",
    "cgroup_subsys_state.cgroup",
    "cgroup_root.hierarchy_id",
    "kernfs_node.id",
)
# The first that is there: 5.14 (2f064a59a11f) and 5.16 (bcf9033e5449) moved them.
_EITHER = (
    ("task_struct.__state", "task_struct.state"),
    ("task_struct.thread_info.cpu", "task_struct.cpu"),
)
# Depend on the kernel's version and configuration (CONFIG_CFS_BANDWIDTH, CONFIG_CGROUP_SCHED).
_PERHAPS = (
    "task_struct.sched_task_group",
    "task_struct.se.cfs_rq",
    "task_struct.scx.flags",
    "task_group.css.cgroup",
    "task_group.cfs_rq",
    "cfs_rq.rq",
    "cfs_rq.throttle_count",
    "cfs_rq.throttled_clock_self",
    "cfs_rq.throttled_clock_self_time",
    "cfs_rq.throttled_clock_pelt",
    "cfs_rq.throttled_clock_pelt_time",
    "rq.nr_switches",
    "rq.clock",
    "rq.clock_pelt",
    "rq.lost_idle_time",
)


def kernel_offsets() -> dict[str, int] | None:
    """Byte offsets by `struct_field`; None if this kernel has no BTF.

    Raises:
        CannotRecord: A field every known kernel has is not there.
    """
    lib = library()
    btf = lib.btf__load_vmlinux_btf()
    if not btf:
        return None
    try:
        return _offsets(_Types(btf))
    finally:
        # 6 MB
        lib.btf__free(btf)


def _offsets(types: _Types) -> dict[str, int]:
    found = {}
    for path in _ALWAYS:
        offset = types.offset(path)
        if offset is None:
            raise CannotRecord(f"this kernel has no {path}", "report the kernel version")
        found[_name(path)] = offset
    for choices in _EITHER:
        path, offset = next(
            ((p, o) for p in choices if (o := types.offset(p)) is not None), ("", None)
        )
        if offset is None:
            raise CannotRecord(f"this kernel has no {choices[0]}", "report the kernel version")
        found[_name(path)] = offset
    for path in _PERHAPS:
        offset = types.offset(path)
        if offset is not None:
            found[_name(path)] = offset
    return found


def _name(path: str) -> str:
    return path.replace(".", "_")


class _Types:
    def __init__(self, btf: int) -> None:
        self._btf = btf

    def offset(self, path: str) -> int | None:
        """Byte offset of `struct.field.field`, also through anonymous members."""
        name, *fields = path.split(".")
        type_id = library().btf__find_by_name_kind(self._btf, name.encode(), _STRUCT)
        bits = 0
        for field in fields:
            found = self._member(type_id, field.encode()) if type_id > 0 else None
            if found is None:
                return None
            type_id = found[0]
            bits += found[1]
        return bits // 8

    def _member(self, type_id: int, name: bytes) -> tuple[int, int] | None:
        lib = library()
        address, info, referred = self._type(type_id)
        while (info >> 24) & 0x1F in _MODIFIERS:
            address, info, referred = self._type(referred)
        if (info >> 24) & 0x1F not in (_STRUCT, _UNION):
            return None
        members = c.string_at(address + _HEADER.size, (info & 0xFFFF) * _MEMBER.size)
        for name_at, member_type, offset in _MEMBER.iter_unpack(members):
            # With the flag set, the top byte is the size of a bit field.
            bits = offset & 0xFFFFFF if info >> 31 else offset
            member_name = lib.btf__name_by_offset(self._btf, name_at)
            if member_name == name:
                return member_type, bits
            if not member_name and (inner := self._member(member_type, name)):
                return inner[0], inner[1] + bits
        return None

    def _type(self, type_id: int) -> tuple[int, int, int]:
        address = int(library().btf__type_by_id(self._btf, type_id))
        _name, info, referred = _HEADER.unpack(c.string_at(address, _HEADER.size))
        return address, info, referred
