"""Is this runtime laid out as its version says? Checked on the live process before any trust."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from itertools import takewhile

import numpy as np

from sltrace.target.go.errors import RefusedError
from sltrace.target.go.memory import Memory, UnreadableError
from sltrace.target.go.offsets import (
    G_M,
    G_STACK_LO,
    MAX_PS,
    P_BYTES,
    P_ID,
    P_STATUS,
    SCHED_BYTES,
    Offsets,
)

_ATTEMPTS = 5
"""The runtime changes while it is read, each P by itself: of a busy one with 16, 1 look in 100
found one that had just changed."""
_PAUSES_S = (0, 0.001, 0.004, 0.016, 0.064)
"""Before each look at the whole: a thread may lose its CPU in the midst of a change."""
_MAX_REASONS = 64
_MAX_REASON = 60
_STATUSES = frozenset({0, 1, 2, 3, 4, 6, 8, 9, 10, 11})
"""Of a goroutine, without the bit for a scan."""
_P_STATUSES = frozenset(range(5))
_MAX_WAITS = 1 << 56


def verify(
    memory: Memory, offsets: Offsets, sched: int, allp: int, allgs: int, histograms: Sequence[int]
) -> None:
    """Checks what can be checked.

    Args:
        memory: Of the process.
        offsets: As its version has them.
        sched: Address of runtime.sched; likewise the other two, all as loaded.
        allp: Slice header of all Ps.
        allgs: Pointer of the slice of all goroutines, followed by its length.
        histograms: Addresses of histograms.

    Raises:
        RefusedError: Something is not as it should be.
        UnreadableError: The process cannot be read.
    """
    problem = ""
    for pause_s in _PAUSES_S:
        time.sleep(pause_s)
        problem = _problem(memory, offsets, sched, allp, allgs, histograms)
        if not problem:
            return
    raise RefusedError(f"its runtime is not laid out as in the Go version it names: {problem}")


def _problem(
    memory: Memory, o: Offsets, sched: int, allp: int, allgs: int, histograms: Sequence[int]
) -> str:
    ps, count = (int(w) for w in memory.words(allp, 2))
    if not 0 < count <= MAX_PS:
        return f"{count} Ps"
    head = memory.read(sched, SCHED_BYTES)
    idle, spinning, idle_ms = (
        struct.unpack_from("<i", head, at)[0] for at in (o.s_npidle, o.s_nmspinning, o.s_nmidle)
    )
    if not (0 <= idle <= count and 0 <= spinning <= count and 0 <= idle_ms < 1 << 20):
        return "its counts of idle Ps and Ms make no sense"
    try:
        return (
            _problem_of_ps(memory, o, memory.words(ps, count))
            or next(filter(None, (_problem_of_histogram(memory, o, at) for at in histograms)), "")
            or _problem_of_goroutines(memory, o, allgs)
        )
    except UnreadableError as err:
        return str(err)


def _problem_of_ps(
    memory: Memory, o: Offsets, ps: np.ndarray[tuple[int], np.dtype[np.uint64]]
) -> str:
    for number, p in enumerate(ps.tolist()):
        looks = (_problem_of_p(memory, o, number, p) for _ in range(_ATTEMPTS))
        problems = list(takewhile(bool, looks))
        if len(problems) == _ATTEMPTS:
            return problems[-1]
    return ""


def _problem_of_p(memory: Memory, o: Offsets, number: int, p: int) -> str:
    head = memory.read(p, P_BYTES)
    found, status = struct.unpack_from("<iI", head, P_ID)
    if found != number or status not in _P_STATUSES or P_STATUS != 4:
        return f"P {number} is not one"
    (m,) = struct.unpack_from("<Q", head, o.p_m)
    top, tail = struct.unpack("<II", memory.read(p + o.p_runqhead, 8))
    if (tail - top) & 0xFFFFFFFF > 256:
        return f"the queue of P {number} makes no sense"
    if not m:
        return ""
    if int(memory.words(m + o.m_p, 1)[0]) not in (p, 0):
        return f"P {number} and its M disagree"
    curg = int(memory.words(m + o.m_curg, 1)[0])
    if curg:
        low, high = memory.words(curg + G_STACK_LO, 2).tolist()
        if int(memory.words(curg + G_M, 1)[0]) not in (m, 0) or not low < high:
            return f"the goroutine of P {number} and its M disagree"
    return ""


def _problem_of_histogram(memory: Memory, o: Offsets, at: int) -> str:
    before = memory.words(at, o.histogram.words)
    after = memory.words(at, o.histogram.words)
    if (after < before).any() or int(after.max()) > _MAX_WAITS:
        return "a histogram of it is none"
    return ""


def _problem_of_goroutines(memory: Memory, o: Offsets, allgs: int) -> str:
    start, count = memory.words(allgs, 2).tolist()
    if not 0 < count < 1 << 32:
        return f"{count} goroutines"
    seen = memory.words(start, min(count, 64))
    size = max(o.g_labels, o.g_startpc) + 8
    blocks, read = memory.pieces(seen, size)
    if not read.all():
        return "its goroutines cannot be read"
    for block in blocks:
        raw = block.tobytes()
        (status,) = struct.unpack_from("<I", raw, o.g_status)
        (goid,) = struct.unpack_from("<Q", raw, o.g_goid)
        low, high = struct.unpack_from("<QQ", raw, G_STACK_LO)
        dead = status & 0xFFF in (0, 6)
        if status & 0xFFF not in _STATUSES or raw[o.g_waitreason] >= _MAX_REASONS:
            return "a goroutine is in no known state"
        if not dead and (not 0 < goid < 1 << 48 or not low < high):
            return "a goroutine has no number or no stack"
    goids = {struct.unpack_from("<Q", b.tobytes(), o.g_goid)[0] for b in blocks} - {0}
    if not goids:
        return "no goroutine has a number"
    return ""


def wait_reasons(memory: Memory, table: int) -> list[str]:
    """The runtime's own words, by number: they are renumbered between versions."""
    reasons = []
    for i in range(_MAX_REASONS):
        header = memory.read(table + 16 * i, 16)
        pointer, length = struct.unpack("<QQ", header)
        if length > _MAX_REASON or (length and not pointer):
            break
        try:
            text = memory.string(header, _MAX_REASON)
        except UnreadableError:
            break
        if not text.isprintable():
            break
        reasons.append(text)
    if "chan receive" not in reasons or "select" not in reasons:
        raise RefusedError("its words for wait reasons were not found")
    return reasons
