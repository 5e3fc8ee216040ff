"""Folded stacks, one `root;...;leaf value` a line: what flamegraph.pl and speedscope read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO, Literal

from sltrace.analysis.flame import flame
from sltrace.analysis.selection import EVERYTHING, Selection
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


def frame_text(name: str) -> str:
    """A frame's name without what the format gives a meaning to: `;` and line ends."""
    return printable(name).replace(";", ":") or "[unnamed]"
