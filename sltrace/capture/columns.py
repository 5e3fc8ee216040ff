"""Arrays as Arrow columns, without a copy and with nulls that several columns share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa


class Nulls:
    """Where a column is null; made once for all columns that are null in the same places.

    Args:
        mask: True for null.
    """

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        import pyarrow as pa

        self.count = int(np.count_nonzero(mask))
        self.buffer = pa.py_buffer(np.packbits(~mask, bitorder="little"))


def numbers(values: NDArray[Any], nulls: Nulls | None = None) -> pa.Array:
    """A column of numbers, without a copy."""
    import pyarrow as pa

    if nulls is None:
        return pa.array(values)
    buffers = [nulls.buffer, pa.py_buffer(values)]
    return pa.Array.from_buffers(
        pa.from_numpy_dtype(values.dtype), len(values), buffers, nulls.count
    )


def nonzero(values: NDArray[Any]) -> pa.Array:
    """A column of numbers in which 0 stands for none: null there."""
    return numbers(values, Nulls(values == 0))


def named(indices: NDArray[np.int32], names: list[str], nulls: Nulls | None = None) -> pa.Array:
    """Indices into a list of names as a dictionary-encoded column."""
    import pyarrow as pa

    # Unchecked: that costs a pass over the indices, and they are ours.
    return pa.DictionaryArray.from_arrays(
        numbers(indices, nulls), pa.array(names, pa.string()), safe=False
    )
