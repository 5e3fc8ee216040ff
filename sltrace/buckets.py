"""Log-linear latency buckets, the same function as `bucket_of` in probes/wait_machine.h.

Below 128 ns buckets are 16 ns wide; above, each power of two is cut into 8, so a bucket is at
most 12.5 % wide. The last bucket takes everything from 2^37 + 3 * 2^34 ns (189 s) up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

N_BUCKETS = 252
_SUB_BITS = 3
_LINEAR_BITS = 7


def bucket_of(wait_ns: ArrayLike) -> NDArray[np.int64]:
    """Bucket index, 0 to 251, of each wait (ns, not negative)."""
    wait = np.asarray(wait_ns, dtype=np.uint64)
    # frexp is exact for the exponent only below 2^53; a wait of 104 days is above every bucket.
    clipped = np.minimum(wait, np.uint64(1 << 50))
    octave = np.frexp(clipped.astype(np.float64))[1].astype(np.int64) - 1
    octave = np.maximum(octave, _LINEAR_BITS)
    sub = (clipped.astype(np.int64) >> (octave - _SUB_BITS)) & ((1 << _SUB_BITS) - 1)
    log = ((octave - _LINEAR_BITS + 1) << _SUB_BITS) + sub
    linear = clipped.astype(np.int64) >> (_LINEAR_BITS - _SUB_BITS)
    index = np.where(clipped < (1 << _LINEAR_BITS), linear, log)
    return np.minimum(index, N_BUCKETS - 1)


def lower_bounds() -> NDArray[np.int64]:
    """Smallest wait (ns) of each bucket; shape (252,)."""
    index = np.arange(N_BUCKETS, dtype=np.int64)
    octave = (index >> _SUB_BITS) + _LINEAR_BITS - 1
    sub = index & ((1 << _SUB_BITS) - 1)
    log = ((1 << _SUB_BITS) + sub) << np.maximum(octave - _SUB_BITS, 0)
    return np.where(index < (1 << _SUB_BITS), index << (_LINEAR_BITS - _SUB_BITS), log)
