"""Folded stacks, one `root;...;leaf value` a line: what flamegraph.pl and speedscope read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO, Literal

from sltrace.analysis.flame import flame
from sltrace.analysis.selection import EVERYTHING, Selection
from sltrace.analysis.sides import Side
from sltrace.analysis.stacks import Which
from sltrace.export.sink import Written
from sltrace.export.text import printable
from sltrace.trace.reader import Trace

Weight = Literal["ns", "count"]


def write_folded(
    trace: Trace,
    out: BinaryIO,
    selection: Selection = EVERYTHING,
    *,
    which: Which = "victim",
    weight: Weight = "ns",
    roots: Sequence[str] = ("comm",),
) -> Written:
    """Writes the selected waits' stacks.

    Args:
        trace: Where from.
        out: Where to.
        selection: Waits to write.
        which: The victim's stack or the waker's.
        weight: Value of each line: nanoseconds waited, or waits.
        roots: Dimensions whose values become the outermost frames.
    """
    folded = flame(trace, selection, which=which, roots=roots)
    names = [frame_text(name) for name in folded.names]
    values = folded.wait_ns if weight == "ns" else folded.counts
    for stack, value in zip(folded.stacks, values, strict=True):
        line = f"{';'.join(names[i] for i in stack)} {value}\n"
        out.write(line.encode("utf-8", "backslashreplace"))
    return Written(sum(folded.counts), sum(folded.wait_ns))


def write_folded_diff(out: BinaryIO, sides: tuple[Side, Side]) -> None:
    """Writes `stack A B` lines, ns of the victims' stacks below their thread names.

    flamegraph.pl draws them as a difference.

    Args:
        out: Where to.
        sides: A and B. B's numbers are scaled to A's length (or number of traces), so that equal
            behaviour gives equal numbers.
    """
    values: dict[str, list[float]] = {}
    for i, side in enumerate(sides):
        folded = flame(side.trace, side.selection, roots=("comm",))
        names = [frame_text(name) for name in folded.names]
        scale = sides[0].size / side.size
        for stack, ns in zip(folded.stacks, folded.wait_ns, strict=True):
            # Frames that differ in what cannot be printed become one.
            values.setdefault(";".join(names[j] for j in stack), [0, 0])[i] += ns * scale
    for line, (a, b) in sorted(values.items(), key=lambda v: (-abs(v[1][1] - v[1][0]), v[0])):
        out.write(f"{line} {a:.0f} {b:.0f}\n".encode("utf-8", "backslashreplace"))


def frame_text(name: str) -> str:
    """A frame's name without what the format gives a meaning to: `;` and line ends."""
    return printable(name).replace(";", ":") or "[unnamed]"
