"""How often waits of at least each length happen on two sides, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sltrace.analysis.blocks import of_class, side_blocks
from sltrace.analysis.confidence import STEPS, Band, Redrawn
from sltrace.analysis.sides import Side

_PER_OCTAVE = 8


@dataclass(frozen=True)
class Distribution:
    """Of one class of waits.

    Attributes:
        at_ns: Lengths, 8 to an octave; from the longest that all waits have to one that none has.
        a: Waits per second (or trace) of at least these lengths on side A.
        b: On side B.
    """

    at_ns: list[float]
    a: Band
    b: Band


def distributions(sides: tuple[Side, Side], classes: Iterable[str]) -> dict[str, Distribution]:
    """Of classes of `sltrace.analysis.diff`: runq, and other kinds."""
    return {name: _distribution(sides, name) for name in classes}


def _distribution(sides: tuple[Side, Side], name: str) -> Distribution:
    blocks = [side_blocks(of_class(side, name)) for side in sides]
    used = np.flatnonzero(sum(b.counts.sum(0) for b in blocks))
    step = STEPS // _PER_OCTAVE
    # Point 1 + k is 2^(k / STEPS) ns.
    first, last = ((used[0] - 1) // step, used[-1] // step + 1) if len(used) else (0, 0)
    octaves = np.arange(max(0, first), last + 1)
    points = np.minimum(1 + octaves * step, blocks[0].counts.shape[1] - 1)
    a, b = Redrawn(*blocks).at_least(points)
    return Distribution(np.exp2(octaves / _PER_OCTAVE).tolist(), a, b)
