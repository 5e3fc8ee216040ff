"""Offsets of the runtime's structures as the compiler wrote them: DWARF, where it was not stripped.

Go's linker puts every type of the program into one unit, so its entries are not walked: a structure
is found by its name, which lies in the section as text, and only its members are read. The file is
hostile: sizes and counts are bounded, and whatever pyelftools stumbles on makes a DwarfError.
"""

from __future__ import annotations

import io
import struct
from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from sltrace.target.go import offsets as fixed
from sltrace.target.go.debugsections import section_of
from sltrace.target.go.errors import DwarfError
from sltrace.target.go.histograms import SINCE_1_20
from sltrace.target.go.image import Image
from sltrace.target.go.offsets import Offsets

if TYPE_CHECKING:
    from elftools.dwarf.compileunit import CompileUnit
    from elftools.dwarf.die import DIE
    from elftools.dwarf.dwarfinfo import DWARFInfo

_MAX_UNITS = 1 << 16
_MAX_CANDIDATES = 64
_MAX_HITS = 1 << 12
"""Of a name, at the end of whatever."""
_MAX_ABBREV = 1 << 16
"""Go's are 600 bytes; linkers put them before those of C."""
_MAX_MEMBERS = 512
_STRUCTURE, _TYPEDEF, _MEMBER = "DW_TAG_structure_type", "DW_TAG_typedef", "DW_TAG_member"
_LABEL_LIST_BYTES = 24

_STRUCTURES = ("g", "m", "p", "schedt", "gobuf", "timeHistogram")
_FIELDS = {
    "g_syscallsp": ("g", "syscallsp"),
    "g_status": ("g", "atomicstatus"),
    "g_goid": ("g", "goid"),
    "g_waitreason": ("g", "waitreason"),
    "g_tracking": ("g", "tracking"),
    "g_startpc": ("g", "startpc"),
    "g_lockedm": ("g", "lockedm"),
    "g_labels": ("g", "labels"),
    "m_curg": ("m", "curg"),
    "m_p": ("m", "p"),
    "p_m": ("p", "m"),
    "p_runqhead": ("p", "runqhead"),
    "s_nmidle": ("schedt", "nmidle"),
    "s_pidle": ("schedt", "pidle"),
    "s_npidle": ("schedt", "npidle"),
    "s_nmspinning": ("schedt", "nmspinning"),
    "s_gcwaiting": ("schedt", "gcwaiting"),
    "s_time_to_run": ("schedt", "timeToRun"),
}
_STW = ("stwStoppingTimeGC", "stwStoppingTimeOther", "stwTotalTimeGC", "stwTotalTimeOther")


Layout = dict[str, int]
"""Offset in bytes by member; "" is the size of the whole."""


def offsets_of(image: Image) -> Offsets | None:
    """What an executable's DWARF says; None where it has none.

    Raises:
        DwarfError: It cannot be read, or the runtime is not built as those known.
    """
    info, abbrev = section_of(image, "info"), section_of(image, "abbrev")
    if not info or not abbrev:
        return None
    try:
        reader = _Reader(info, abbrev[:_MAX_ABBREV])
        layouts = {name: reader.structure(f"runtime.{name}") for name in _STRUCTURES}
        return _offsets(layouts, _labels_are_map(reader))
    except DwarfError:
        raise
    except Exception as err:
        raise DwarfError(f"its DWARF cannot be read: {type(err).__name__}: {err}") from err


def _offsets(layouts: dict[str, Layout], labels_are_map: bool) -> Offsets:
    def at(structure: str, member: str) -> int:
        found = layouts[structure].get(member)
        if found is None:
            raise DwarfError(f"its runtime.{structure} has no {member}")
        return found

    _check_fixed(at)
    schedt, g = layouts["schedt"], layouts["g"]
    stw = schedt.get(_STW[0], -1)
    if stw >= 0 and any(at("schedt", n) != stw + i * SINCE_1_20.size for i, n in enumerate(_STW)):
        raise DwarfError("its histograms of stopped worlds do not follow each other")
    found = Offsets(
        g_sched_bp=at("g", "sched") + at("gobuf", "bp"),
        g_syscallbp=g.get("syscallbp", -1),
        # Since 1.25 the queue counts itself: two goroutines, first and last, then the count.
        s_runqsize=schedt["runqsize"] if "runqsize" in schedt else at("schedt", "runq") + 16,
        s_stw=stw,
        labels_are_map=labels_are_map,
        histogram=SINCE_1_20,
        **{name: at(*place) for name, place in _FIELDS.items()},
    )
    _check_reach(found)
    return found


def _check_reach(o: Offsets) -> None:
    """Of a goroutine the first bytes are read at once, and words of these; of the rest likewise."""
    words = (o.g_goid, o.g_waitreason, o.g_startpc, o.g_lockedm, o.g_labels)
    calls = [at for at in (o.g_sched_bp, o.g_syscallsp, o.g_syscallbp) if at != -1]
    before = (*calls, o.g_status, o.g_goid, o.g_waitreason)
    counts = (o.s_npidle, o.s_nmspinning, o.s_nmidle, o.s_runqsize, o.s_gcwaiting)
    if (
        any(at % 8 or at > fixed.G_BYTES - 8 for at in words)
        or any(at % 8 for at in calls)
        or max(before) >= o.g_startpc
        or o.p_runnext >= 1 << 16
        or max(counts) > fixed.SCHED_BYTES - 8
        or o.p_m > fixed.P_BYTES - 8
    ):
        raise DwarfError("its runtime's structures are larger than those known")


def _check_fixed(at: Any) -> None:
    """What all versions have had in common, and is written down once, must be so here too."""
    sched, runq = at("g", "sched"), at("p", "runqhead")
    for found, wanted in (
        (at("g", "stack"), fixed.G_STACK_LO),
        (at("g", "m"), fixed.G_M),
        (sched + at("gobuf", "sp"), fixed.G_SCHED_SP),
        (sched + at("gobuf", "pc"), fixed.G_SCHED_PC),
        (at("g", "syscallpc"), at("g", "syscallsp") + 8),
        (at("g", "goid"), at("g", "atomicstatus") + 8),
        (at("p", "id"), fixed.P_ID),
        (at("p", "status"), fixed.P_STATUS),
        (at("p", "schedtick"), fixed.P_SCHEDTICK),
        (at("p", "syscalltick"), fixed.P_SYSCALLTICK),
        (at("p", "runqtail"), runq + 4),
        (at("p", "runq"), runq + 8),
        (at("p", "runnext"), runq + 8 + 2048),
        (at("timeHistogram", ""), SINCE_1_20.size),
    ):
        if found != wanted:
            raise DwarfError("its runtime's structures are built in a way that is not known")


def _labels_are_map(reader: _Reader) -> bool:
    """How pprof labels are kept. A program without runtime/pprof has none, in either form."""
    name = "runtime/pprof.labelMap"
    if not reader.has(name, _STRUCTURE):
        # Of a structure there is one too.
        return reader.has(name, _TYPEDEF)
    if reader.structure(name).get("") != _LABEL_LIST_BYTES:
        raise DwarfError("its pprof labels are kept in a way that is not known")
    return False


class _Reader:
    """Structures by name.

    Args:
        info: The section of all entries.
        abbrev: The abbreviations; Go's units have one table of them, and no strings elsewhere.
    """

    def __init__(self, info: bytes, abbrev: bytes) -> None:
        self._info = info
        self._dwarf = _dwarf_info({"info": info, "abbrev": abbrev})
        self._units = list(_unit_starts(info))
        self._table: int | None = None

    def structure(self, name: str) -> Layout:
        """Members of a structure.

        Raises:
            DwarfError: There is none of that name.
        """
        for unit, die in self._named(name, _STRUCTURE):
            return self._members(unit, die)
        raise DwarfError(f"its DWARF has no {name}")

    def has(self, name: str, tag: str) -> bool:
        """Whether there is such an entry."""
        return next(self._named(name, tag), None) is not None

    def _named(self, name: str, tag: str) -> Iterator[tuple[CompileUnit, DIE]]:
        """Entries of that name."""
        text = name.encode()
        for at in islice(self._places(text), _MAX_CANDIDATES):
            unit = self._unit_at(at)
            # To read a table takes a hundred times its bytes.
            self._table = unit["debug_abbrev_offset"] if self._table is None else self._table
            if unit["debug_abbrev_offset"] != self._table:
                continue
            try:
                die = unit.get_DIE_from_refaddr(at)
                said = die.attributes.get("DW_AT_name")
            except Exception:
                # No entry begins there: the pointer types of the same name have a * before it.
                continue
            if die.tag == tag and said is not None and said.value == text:
                yield unit, die

    def _places(self, text: bytes) -> Iterator[int]:
        """Where an entry may be: the number of its abbreviation, below 128, and its name."""
        at = 0
        for _ in range(_MAX_HITS):
            at = self._info.find(text + b"\0", at + 1)
            if at < 0:
                return
            if 0 < self._info[at - 1] < 128:
                yield at - 1

    def _unit_at(self, offset: int) -> CompileUnit:
        at = bisect_right(self._units, offset) - 1
        return self._dwarf.get_CU_at(self._units[at] if at >= 0 else 0)

    def _members(self, unit: CompileUnit, die: DIE) -> Layout:
        size = die.attributes.get("DW_AT_byte_size")
        found: Layout = {"": size.value if size else -1}
        at = die.offset + die.size
        for _ in range(_MAX_MEMBERS):
            member = unit.get_DIE_from_refaddr(at)
            if member.is_null():
                break
            where = member.attributes.get("DW_AT_data_member_location")
            name = member.attributes.get("DW_AT_name")
            if member.tag != _MEMBER or member.has_children or where is None or name is None:
                raise DwarfError("a structure in its DWARF has something else than members")
            if not isinstance(where.value, int) or not 0 <= where.value < 1 << 16:
                raise DwarfError("a member in its DWARF has no offset")
            found.setdefault(name.value.decode(errors="replace"), where.value)
            at += member.size
        return found


def _unit_starts(info: bytes) -> Iterator[int]:
    at = 0
    for _ in range(_MAX_UNITS):
        if at + 12 > len(info):
            return
        yield at
        (length,) = struct.unpack_from("<I", info, at)
        if length == 0xFFFFFFFF:
            (length,) = struct.unpack_from("<Q", info, at + 4)
            length += 8
        at += 4 + length


def _dwarf_info(raw: dict[str, bytes]) -> DWARFInfo:
    # Only here: it takes a tenth of a second, and few processes need it.
    from elftools.dwarf.dwarfinfo import DebugSectionDescriptor, DwarfConfig, DWARFInfo

    sections: dict[str, Any] = dict.fromkeys(
        (
            "debug_info", "debug_aranges", "debug_abbrev", "debug_frame", "eh_frame", "debug_str",
            "debug_loc", "debug_ranges", "debug_line", "debug_pubtypes", "debug_pubnames",
            "debug_addr", "debug_str_offsets", "debug_line_str", "debug_loclists",
            "debug_rnglists", "debug_sup", "debug_types",
        )
    )  # fmt: skip
    for name, data in raw.items():
        sections[f"debug_{name}"] = DebugSectionDescriptor(
            io.BytesIO(data), name, None, len(data), 0
        )
    return DWARFInfo(
        DwarfConfig(little_endian=True, machine_arch="x64", default_address_size=8),
        gnu_debugaltlink_sec=None,
        **{f"{name}_sec": section for name, section in sections.items()},
    )
