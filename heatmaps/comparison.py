"""The difference of two sides as one HTML file (`sltrace diff -o`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heatmaps.assemble import assemble
from heatmaps.encode import ColumnBlock, bounded, said
from heatmaps.facts import notice
from heatmaps.trie import Trie
from sltrace.model import LOST_KINDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sltrace.analysis.confidence import Band
    from sltrace.analysis.diff import Diff
    from sltrace.analysis.sideprofiles import Running

MAX_STACKS = 20_000
"""Of each class of waits on each side; the time of the others is summed."""

_SCRIPTS = (
    "text.js",
    "theme.js",
    "skip.js",
    "tip.js",
    "decode.js",
    "trie.js",
    "flametree.js",
    "flame.js",
    "table.js",
    "flametable.js",
    "changes.js",
    "curves.js",
    "comparison.js",
)
"""In the order of their dependence."""


def build_comparison(result: Diff, ran: tuple[Running, Running] | None = None) -> bytes:
    """Makes the page of a comparison.

    Args:
        result: It.
        ran: What ran on each side, to stand beside what waited.

    Raises:
        TraceError: A trace is damaged.
    """
    from sltrace.analysis.distributions import distributions
    from sltrace.analysis.flame import REST

    block = ColumnBlock()
    data: dict[str, Any] = _plain(result.to_json())
    data["lost_kinds"] = LOST_KINDS
    data["notes"] = [said(n) for n in result.notes]
    data["losses"] = [notice(lost) for lost in result.losses]
    data["hosts"] = [bounded(s.trace.meta.get("host")) for s in (result.a, result.b)]
    data["curves"] = {
        bounded(name): {"at": found.at_ns, "a": _band(found.a), "b": _band(found.b)}
        for name, found in distributions((result.a, result.b), result.classes).items()
    }
    data |= _stacks(result, ran, block)
    if REST in data["frames"]:
        data["notes"].append(f"of stacks the {MAX_STACKS:,} with most time are kept on each side")
    title = f"sltrace: {bounded(result.a.name)[:80]} against {bounded(result.b.name)[:80]}"
    return assemble("comparison.html", _SCRIPTS, title, data, block)


def _stacks(
    result: Diff, ran: tuple[Running, Running] | None, block: ColumnBlock
) -> dict[str, Any]:
    """Both sides' stacks as one tree, with what ran; times by stack become columns.

    They are below their threads, unless something ran: not every profile knows those.
    """
    from sltrace.analysis.blocks import of_class
    from sltrace.analysis.flame import flame

    names: dict[str, int] = {}
    stacks: dict[tuple[int, ...], int] = {}
    some = ran if ran and any(r.stacks for r in ran) else None
    roots = () if some else ("comm",)
    for i, name in enumerate(result.classes):
        for column, whole in ((f"a{i}", result.a), (f"b{i}", result.b)):
            side = of_class(whole, name)
            folded = flame(side.trace, side.selection, roots=roots, limit=MAX_STACKS)
            number = [names.setdefault(frame, len(names)) for frame in folded.names]
            own = [tuple(number[i] for i in stack) for stack in folded.stacks]
            block.add(f"{column}.stack", [stacks.setdefault(s, len(stacks)) for s in own])
            block.add(f"{column}.ns", folded.wait_ns)
    for column, side_ran in zip(("ran_a", "ran_b"), some or (), strict=False):
        own = [tuple(names.setdefault(f, len(names)) for f in s) for s in side_ran.stacks]
        block.add(f"{column}.stack", [stacks.setdefault(s, len(stacks)) for s in own])
        block.add(f"{column}.ns", side_ran.stacks.values())
    Trie.of(stacks).pack(block)
    return {
        "frames": [bounded(n) for n in names],
        "frame_kinds": ["other"] * len(names),
        "ran": bool(some),
        "profiles": [[said(s) for s in r.sentences] for r in ran or ()],
    }


def _band(band: Band) -> dict[str, list[float] | None]:
    return {"value": _list(band.value), "low": _list(band.low), "high": _list(band.high)}


def _list(values: NDArray[Any] | None) -> list[float] | None:
    return None if values is None else [float(v) for v in values]


def _plain(value: Any) -> Any:
    """The same with every text in it bounded."""
    if isinstance(value, dict):
        return {bounded(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return bounded(value) if isinstance(value, str) else value
