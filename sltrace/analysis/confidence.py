"""How far two measurements differ, and how sure that is: a bootstrap over blocks of time.

Waits come in bursts, so they are no independent draws: taken one by one, an interval would be
several times too narrow. Each side's time is cut into blocks much longer than a burst, and the
blocks are drawn again and again, with replacement; the spread of the difference over these draws
is the spread it would have had at another time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCKS = 40
"""Blocks of a side, if it is long enough."""
SHORTEST_BLOCK_NS = 100_000_000
FEWEST_BLOCKS = 10
"""Blocks with waits in them, of a group those with its own; from fewer no interval is made."""
BEYOND = 10
"""Waits that must lie beyond a percentile, on each side; from fewer no interval is made."""
DRAWS = 500
LEVEL = 0.95

STEPS = 64
"""Grid points per octave of the redrawn percentiles: 1.1 % apart."""
RESOLUTION = 2 ** (1 / STEPS) - 1
"""Share of the larger figure that an interval reaches to each side at least: redrawn percentiles
tell no less, and less matters of no figure."""
GRID = 63 * STEPS + 1
GRID_SQL = f"(CASE WHEN wait_ns < 1 THEN 0 ELSE floor(log2(wait_ns) * {STEPS})::BIGINT + 1 END)"


@dataclass(frozen=True)
class Spread:
    """How far below and above the measured difference the true one lies, to LEVEL."""

    low: float
    high: float


@dataclass(frozen=True)
class Blocks:
    """One side's waits by block of time.

    Attributes:
        counts: Waits by block and grid point; shape (blocks, GRID).
        totals: Their time by block and group; shape (blocks, groups), ns.
        sizes: What totals and counts are per, by block: seconds, or traces; or by block and group
            what the totals of each are per.
    """

    counts: NDArray[np.float64]
    totals: NDArray[np.float64]
    sizes: NDArray[np.float64]

    @property
    def used(self) -> int:
        """Blocks with waits in them."""
        return int((self.counts.sum(1) > 0).sum())

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Whether enough blocks have a size, by column of sizes: one without has no mean."""
        return np.atleast_1d((self.sizes > 0).sum(0)) >= FEWEST_BLOCKS


@dataclass(frozen=True)
class Band:
    """A curve, and between what it lies, to LEVEL; None where that cannot be said."""

    value: NDArray[np.float64]
    low: NDArray[np.float64] | None
    high: NDArray[np.float64] | None


def blocks_of(span_ns: int) -> int:
    """How many blocks a side of this length is cut into."""
    return max(1, min(BLOCKS, span_ns // SHORTEST_BLOCK_NS))


class Redrawn:
    """Two sides, drawn again DRAWS times; the same draws every time, so results repeat."""

    def __init__(self, a: Blocks, b: Blocks) -> None:
        self._sides = (a, b)
        used = (a.used, b.used)
        long_enough = min(len(a.sizes), len(b.sizes)) >= FEWEST_BLOCKS
        # No waits at all on one side is a result; a few blocks with waits on both are none.
        self._summable = long_enough and max(used) >= FEWEST_BLOCKS
        self._rankable = long_enough and min(used) >= FEWEST_BLOCKS
        rng = np.random.default_rng(20_260_101)
        self._weights = [
            rng.multinomial(len(s.sizes), np.full(len(s.sizes), 1 / len(s.sizes)), DRAWS)
            for s in (a, b)
        ]

    def totals(self) -> list[Spread | None]:
        """Of the difference of each group's time per size."""
        groups = self._sides[0].totals.shape[1]
        if not self._summable:
            return [None] * groups
        a, b = self._sides
        seen = np.maximum((a.totals > 0).sum(0), (b.totals > 0).sum(0)) >= FEWEST_BLOCKS
        enough = seen & a.measured & b.measured
        spreads = self._per_size([s.totals for s in self._sides])
        return [s if known else None for s, known in zip(spreads, enough, strict=True)]

    def count(self) -> Spread | None:
        """Of the difference of the number of waits per size."""
        if not self._summable or not all(s.measured.all() for s in self._sides):
            return None
        (spread,) = self._per_size([s.counts.sum(1, keepdims=True) for s in self._sides])
        return spread

    def quantiles(self, quantiles: Sequence[Decimal]) -> list[Spread | None]:
        """Of the difference of each percentile, in ns."""
        found: list[Spread | None] = []
        # The grid points that have waits, which are few: everywhere else the sums stand still.
        points = [np.flatnonzero(s.counts.any(0)) for s in self._sides]
        counts = [s.counts[:, p] for s, p in zip(self._sides, points, strict=True)]
        whole = [c.sum(0, keepdims=True).cumsum(1) for c in counts]
        drawn = [(w @ c).cumsum(1) for w, c in zip(self._weights, counts, strict=True)]
        for quantile in quantiles:
            beyond = [float(s.counts.sum()) * float(1 - quantile) for s in self._sides]
            if not self._rankable or min(beyond) < BEYOND:
                found.append(None)
                continue
            once, often = (
                [_grid_quantile(c, p, quantile) for c, p in zip(sums, points, strict=True)]
                for sums in (whole, drawn)
            )
            found.append(_spread(often[1] - often[0], float(once[1][0] - once[0][0])))
        return found

    def at_least(self, points: NDArray[np.int64]) -> list[Band]:
        """Of both sides, waits per size at these grid points or above."""
        bands = []
        for side, weights in zip(self._sides, self._weights, strict=True):
            # From the end: waits at a point or above.
            beyond = side.counts[:, ::-1].cumsum(1)[:, ::-1][:, points]
            value = beyond.sum(0) / max(float(side.sizes.sum()), 1e-9)
            if not self._summable or not side.measured.all():
                bands.append(Band(value, None, None))
                continue
            size = np.maximum(weights @ side.sizes, 1e-9)
            drawn = (weights @ beyond) / size[:, None]
            low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
            bands.append(Band(value, low, high))
        return bands

    def _per_size(self, values: list[NDArray[np.float64]]) -> list[Spread | None]:
        means, points = [], []
        for value, side, weights in zip(values, self._sides, self._weights, strict=True):
            # A draw without any size has no mean; it is as rare as it is empty.
            sizes = side.sizes.reshape(len(side.sizes), -1)
            means.append((weights @ value) / np.maximum(weights @ sizes, 1e-9))
            points.append(value.sum(0) / np.maximum(sizes.sum(0), 1e-9))
        difference, point = means[1] - means[0], points[1] - points[0]
        return [_spread(difference[:, i], point[i]) for i in range(difference.shape[1])]


def _spread(draws: NDArray[Any], point: float) -> Spread:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Spread(float(low - point), float(high - point))


def _grid_quantile(
    cumulative: NDArray[np.float64], points: NDArray[np.int64], quantile: Decimal
) -> NDArray[np.float64]:
    """Nearest-rank percentile of each row of cumulative counts, as the middle of its grid point.

    Args:
        cumulative: Of shape (rows, points).
        points: The grid points that the columns are of.
        quantile: 0 to 1.
    """
    share, of = quantile.as_integer_ratio()
    ranks = -(-cumulative[:, -1].astype(np.int64) * share // of)
    index = points[(cumulative >= np.maximum(ranks, 1)[:, None]).argmax(1)]
    return np.where(index == 0, 0.0, np.exp2((index - 0.5) / STEPS))
