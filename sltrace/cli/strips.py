"""A thread's time as a line of letters, one a column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sltrace.analysis.timeline import Wait

LETTERS = {
    "runq": "r",
    "quota": "q",
    "goroutine": "g",
    "gil": "G",
    "stw": "S",
    "blocked": "b",
}
"""For each cause its letter; a capital for what holds up a whole process."""

_FREE = "."


def strip(waits: Sequence[Wait], start_ns: int, end_ns: int, columns: int) -> str:
    """What a lane waited for in each of `columns` equal parts of a stretch of time.

    A column has the letter of what most time was lost to, then `b` where the lane was blocked,
    then `.`: a short wait must not vanish in a long sleep.
    """
    length = max(1, end_ns - start_ns)
    taken: list[dict[str, int]] = [{} for _ in range(columns)]
    for wait in waits:
        if wait.cause is None:
            continue
        first = (wait.start_ns - start_ns) * columns // length
        last = (wait.end_ns - 1 - start_ns) * columns // length
        for column in range(max(0, first), min(columns - 1, max(first, last)) + 1):
            begins = start_ns + column * length // columns
            ends = start_ns + (column + 1) * length // columns
            time = min(wait.end_ns, ends) - max(wait.start_ns, begins)
            taken[column][wait.cause] = taken[column].get(wait.cause, 0) + max(time, 1)
    return "".join(map(_letter, taken))


def _letter(column: dict[str, int]) -> str:
    lost = {cause: ns for cause, ns in column.items() if cause != "blocked"}
    if lost:
        return LETTERS[max(lost, key=lost.__getitem__)]
    return LETTERS["blocked"] if "blocked" in column else _FREE
