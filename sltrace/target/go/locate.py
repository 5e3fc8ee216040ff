"""Where the runtime's variables are, and where to probe: found in its code, without symbols.

Variables are operands of functions that are in every program. Each is found by decoding the
function from its start, and the ones that matter most in two functions that must agree.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from sltrace.symbols.elf import ElfError
from sltrace.target.go.errors import RefusedError
from sltrace.target.go.image import Image
from sltrace.target.go.inlining import Inlining
from sltrace.target.go.offsets import Offsets
from sltrace.target.go.pclntab import Pclntab
from sltrace.target.go.x86 import Instruction, decode, is_emulated

_MOV, _LEA, _CALL, _JUMP = 0x8B, 0x8D, 0xE8, 0xE9
_PUSH_RBP = b"\x55"
_TEST_RBX = b"\x48\x85\xdb"
# lea -N(%rsp),%r12; cmp 0x10(%r14),%r12 or %rsp; jbe
_CHECKS = (b"\x4c\x8d\x64\x24", b"\x4c\x8d\xa4\x24", b"\x4d\x3b\x66", b"\x49\x3b\x66",
           b"\x76", b"\x0f\x86")  # fmt: skip
_FRAME = (b"\x55", b"\x48\x89\xe5")
_RUNNABLE, _WAITING = 1, 4
"""States of a goroutine (runtime/runtime2.go)."""
_MAX_CODE = 1 << 16
SPAN_BEGIN = "go.opentelemetry.io/otel/sdk/trace.(*tracer).newRecordingSpan"
SPAN_END = "go.opentelemetry.io/otel/sdk/trace.(*recordingSpan).End"
RECORD = "runtime.(*timeHistogram).record"
CASGSTATUS = "runtime.casgstatus"
EXECUTE = "runtime.execute"


@dataclass(frozen=True)
class Variables:
    """Linked addresses of variables of the runtime.

    Attributes:
        sched: `runtime.sched`.
        allp: The slice header of all Ps.
        allgs: The pointer of the slice of all goroutines.
        allgs_len: Its length.
        wait_reasons: Table of the words for why a goroutine waits.
        tls: Offset of the current goroutine from the thread pointer.
        gc_pauses: The histogram of the collector's stopped worlds, before 1.22; 0 for none.
    """

    sched: int
    allp: int
    allgs: int
    allgs_len: int
    wait_reasons: int
    tls: int
    gc_pauses: int


@dataclass(frozen=True)
class Sites:
    """Linked addresses to probe; None with the reason in `why` where there is none.

    Attributes:
        record: The runtime notes a wait: histogram in RAX, nanoseconds in RBX.
        tracked: A goroutine that is tracked changes its state, but for one that was runnable:
            arguments in the caller's frame.
        every: Any goroutine changes its state: goroutine, old and new state in RAX, RBX, RCX.
        span_begin: OpenTelemetry's SDK begins a span: two contexts on the stack; none without SDK.
        span_end: It ends one, in RAX.
        why: Reasons by name.
    """

    record: int | None
    tracked: int | None
    every: int | None
    span_begin: int | None
    span_end: int | None
    why: dict[str, str]


def code_of(image: Image, table: Pclntab, name: str) -> list[Instruction]:
    """A function, decoded from its start.

    Raises:
        RefusedError: It has no such function.
    """
    found = table.function(name)
    if found is None or not 0 < found[1] - found[0] <= _MAX_CODE:
        raise RefusedError(f"its runtime has no {name}")
    try:
        return list(decode(image.read(found[0], found[1] - found[0]), found[0]))
    except ElfError as err:
        raise RefusedError(f"{name} cannot be read: {err}") from err


def variables(image: Image, table: Pclntab, offsets: Offsets) -> Variables:
    """Finds them.

    Raises:
        RefusedError: One is not where it is known to be.
    """

    def operands(name: str, *opcodes: int) -> list[int]:
        return [
            i.target
            for i in code_of(image, table, name)
            if i.target is not None and i.opcode in opcodes
        ]

    sched = _first(operands("runtime.pidleget", _MOV), "runtime.sched") - offsets.s_pidle
    if sched + offsets.s_nmspinning not in operands("runtime.resetspinning", _LEA):
        raise RefusedError("its runtime.sched is not laid out as in the Go version it names")
    if sched + offsets.s_time_to_run not in operands(CASGSTATUS, _LEA):
        raise RefusedError("its histogram of waits is not where it is in the Go version it names")
    allp = operands("runtime.preemptall", _MOV)
    if len(allp) < 2 or allp[1] != allp[0] + 8:
        raise RefusedError("its runtime.allp was not found")
    allgs = operands("runtime.forEachG", _MOV)
    if len(allgs) < 2:
        raise RefusedError("its runtime.allgs was not found")
    reasons = operands("runtime.waitReason.String", _LEA)
    if len(reasons) < 2:
        raise RefusedError("its words for wait reasons were not found")
    return Variables(
        sched,
        allp[0],
        allgs[0],
        allgs[1],
        reasons[1],
        _tls(code_of(image, table, "runtime.stackcheck")),
        _gc_pauses(image, table, offsets) if offsets.s_stw < 0 else 0,
    )


def _first(found: list[int], what: str) -> int:
    if not found:
        raise RefusedError(f"its {what} was not found")
    return found[0]


def _gc_pauses(image: Image, table: Pclntab, offsets: Offsets) -> int:
    """What is handed to the function that notes a duration where a collection ends.

    Where that is inlined, its first count, and its last behind the others.
    """
    record, _ = table.function(RECORD) or (0, 0)
    found = 0
    seen: set[int] = set()
    for instruction in code_of(image, table, "runtime.gcMarkTermination"):
        if instruction.opcode == _LEA and instruction.target is not None:
            found = instruction.target
            seen.add(found)
        elif instruction.opcode == _CALL and record and instruction.target == record:
            return found
    behind = 8 * offsets.histogram.buckets
    return next((at for at in sorted(seen) if at + behind in seen), 0)


def _tls(code: list[Instruction]) -> int:
    """From `mov %fs:OFFSET,%rax`, or `mov $OFFSET,%rcx; mov %fs:(%rcx),%rax`."""
    for first, second in pairwise(code):
        if first.code[:5] == b"\x64\x48\x8b\x04\x25" or first.code[:5] == b"\x64\x4c\x8b\x34\x25":
            return int(struct.unpack_from("<i", first.code, 5)[0])
        if first.code[:3] == b"\x48\xc7\xc1" and second.code[:1] == b"\x64":
            return int(struct.unpack_from("<i", first.code, 3)[0])
    raise RefusedError("where a thread keeps its goroutine was not found")


def sites(image: Image, table: Pclntab, offsets: Offsets, inlining: Inlining) -> Sites:
    """Finds the places to probe; none is within an instruction or on one that is single-stepped.

    None is in a function that was inlined elsewhere: what goes through the copies would be missed.
    """
    why: dict[str, str] = {}

    def found(
        name: str,
        function: str,
        find: Callable[[list[Instruction]], Instruction],
        holders: Callable[[str], list[str]] = inlining.holders,
    ) -> int | None:
        try:
            _refuse_copies(function, holders(function))
            site = find(code_of(image, table, function))
            if not inlining.is_known:
                raise RefusedError(f"whether {function} was inlined elsewhere is not known")
        except RefusedError as err:
            why[name] = str(err)
            return None
        if not is_emulated(site):
            why[name] = f"the instruction at {site.address:#x} cannot be probed cheaply"
            return None
        return site.address

    def span(name: str, function: str) -> int | None:
        if table.function(function) is None and not inlining.holders(function):
            return None
        return found(name, function, _after_check)

    return Sites(
        found("record", RECORD, _record, partial(_unseen, image, table, inlining)),
        found("tracked", CASGSTATUS, partial(_tracked, offsets=offsets)),
        found("every", CASGSTATUS, _entry),
        span("span_begin", SPAN_BEGIN),
        span("span_end", SPAN_END),
        why,
    )


def _refuse_copies(function: str, holders: list[str]) -> None:
    if holders:
        more = f" and {len(holders) - 1} more" if len(holders) > 1 else ""
        raise RefusedError(
            f"{function} was inlined into {holders[0]}{more}, as where it was built with a profile "
            "(PGO): its probe would miss what goes through there"
        )


def _unseen(image: Image, table: Pclntab, inlining: Inlining, function: str) -> list[str]:
    """What `runtime.(*timeHistogram).record` was inlined into, and notes waits or stopped worlds.

    Waits of more than 0 ns are noted where a goroutine begins to run, in runtime.execute. So its
    copy in runtime.casgstatus notes none if that was inlined there; coroutines in a bubble of
    testing/synctest aside.
    """
    holders = inlining.holders(function)
    if CASGSTATUS in holders:
        called, _ = table.function(CASGSTATUS) or (0, 0)
        beginning = [n for n in (EXECUTE, *inlining.holders(EXECUTE)) if table.function(n)]
        if not any(
            i.opcode in (_CALL, _JUMP) and i.target == called
            for name in beginning
            for i in code_of(image, table, name)
        ):
            holders.remove(CASGSTATUS)
    return holders


def _record(code: list[Instruction]) -> Instruction:
    """The first instruction, or the branch after `test %rbx,%rbx`: no argument is lost yet."""
    if code and code[0].code == _PUSH_RBP:
        return code[0]
    if len(code) > 1 and code[0].code == _TEST_RBX and code[1].opcode in (0x7C, 0x0F8C):
        return code[1]
    raise RefusedError(f"{RECORD} begins in an unknown way")


def _entry(code: list[Instruction]) -> Instruction:
    if tuple(i.code for i in code[:2]) != _FRAME:
        raise RefusedError(f"{CASGSTATUS} begins in an unknown way")
    return code[0]


def _after_check(code: list[Instruction]) -> Instruction:
    """The `push %rbp` after the check for room on the stack, which may call and begin anew.

    Arguments are all in place there: the check uses no register but r12, and leaves rsp alone.
    """
    for instruction in code[:4]:
        if instruction.code == _PUSH_RBP:
            return instruction
        if not instruction.code.startswith(_CHECKS):
            break
    raise RefusedError("it begins in an unknown way")


def _tracked(code: list[Instruction], offsets: Offsets) -> Instruction:
    """A branch on the old state that only tracked goroutines reach, and none that was runnable.

    `cmp $1,STATE; je; cmp $4,STATE; jne`: the last. Who was runnable runs now, of which the
    histogram is told as well.
    """
    _entry(code)
    _check_spills(code[:12])
    tracking = b"\x80\xbf" + struct.pack("<I", offsets.g_tracking) + b"\0"  # cmpb $0,...(%rdi)
    for at, instruction in enumerate(code):
        if instruction.code != tracking:
            continue
        for first in range(at + 1, min(at + 12, len(code) - 3)):
            runnable, leave, waiting, site = code[first : first + 4]
            if (
                runnable.opcode == waiting.opcode == 0x83
                and runnable.code[-2] & 0xF8 == 0xF8
                and (runnable.code[-1], waiting.code[-1]) == (_RUNNABLE, _WAITING)
                and runnable.code[:-1] == waiting.code[:-1]
                and leave.opcode in (0x74, 0x0F84)
                and site.opcode in (0x75, 0x0F85)
            ):
                return site
    raise RefusedError(
        f"{CASGSTATUS} does not track goroutines in the known way (built with -gcflags=-N it has "
        "level 3 instead)"
    )


def _check_spills(code: list[Instruction]) -> None:
    """The probe reads the arguments from the caller's frame: they must have been stored there."""
    frame = next((i.code[-1] for i in code if i.code[:3] == b"\x48\x83\xec"), None)
    if frame is None:
        raise RefusedError(f"{CASGSTATUS} has an unknown frame")
    # From the stack pointer: over the frame, the saved frame pointer and the return address.
    first = frame + 16
    wanted = {
        b"\x48\x89\x44\x24" + bytes([first]),
        b"\x89\x5c\x24" + bytes([first + 8]),
        b"\x89\x4c\x24" + bytes([first + 12]),
    }
    if first + 12 > 127 or not wanted <= {i.code for i in code}:
        raise RefusedError(f"{CASGSTATUS} does not store its arguments in the known way")
