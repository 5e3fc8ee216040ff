"""Arrays as Arrow columns, without a copy and with nulls that several columns share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sltrace.model import POLICIES, Kind

if TYPE_CHECKING:
    import pyarrow as pa

_LISTS = 8
_MANY = 1 << 10
"""Names from which on a column has those that it uses, not all: Parquet writes all that it has."""


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


def named(
    indices: NDArray[np.int32], names: Sequence[str] | pa.Array, nulls: Nulls | None = None
) -> pa.Array:
    """Indices into names as a dictionary-encoded column."""
    import pyarrow as pa

    if not isinstance(names, pa.Array):
        if len(names) > _MANY:
            indices, names = _used(indices, names)
        names = pa.array(names, pa.string())
    # Unchecked: that costs a pass over the indices, and they are ours.
    return pa.DictionaryArray.from_arrays(numbers(indices, nulls), names, safe=False)


def _used(indices: NDArray[np.int32], names: Sequence[str]) -> tuple[NDArray[np.int32], list[str]]:
    """The same without the names that are not used."""
    used = np.zeros(len(names), np.bool_)
    used[indices] = True
    moved = np.cumsum(used, dtype=np.int32) - np.int32(1)
    return moved[indices], [names[index] for index in np.flatnonzero(used).tolist()]


def words(texts: Iterable[str | None]) -> pa.Array:
    """A few texts as a dictionary-encoded column; None is null.

    Where pyarrow is to find equal ones itself it imports all it can compute: 0.47 s of CPU while
    something is recorded (measured).
    """
    import pyarrow as pa

    numbers_of: dict[str, int] = {}
    indices = [None if t is None else numbers_of.setdefault(t, len(numbers_of)) for t in texts]
    names = pa.array(list(numbers_of), pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), names, safe=False)


def same(text: str, rows: int) -> pa.Array:
    """One text in all rows."""
    return named(np.zeros(rows, np.int32), [text])


def chosen(rows: pa.Table, wanted: NDArray[np.bool_]) -> pa.Table:
    """Rows that are wanted, without what `words` avoids, too: a slice for each run of them."""
    import pyarrow as pa

    ends = np.flatnonzero(np.diff(wanted, prepend=False, append=False)).reshape(-1, 2)
    slices = [rows.slice(begin, end - begin) for begin, end in ends.tolist()]
    return pa.concat_tables(slices) if slices else rows.slice(0, 0)


class Labels:
    """Small numbers as names; a number without a name stays a number.

    Args:
        names: Of each number that has one.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = {int(number): name for number, name in names.items()}
        self._all = [self._name(number) for number in range(max(self._names) + 1)]

    def column(self, values: NDArray[Any], nulls: Nulls | None = None) -> pa.Array:
        """A dictionary-encoded column."""
        if int(values.max(initial=0)) < len(self._all):
            return named(values.astype(np.int32), self._dictionary, nulls)
        present, indices = np.unique(values, return_inverse=True)
        return named(indices.astype(np.int32), [*map(self._name, present.tolist())], nulls)

    def _name(self, number: int) -> str:
        return self._names.get(number, str(number))

    @cached_property
    def _dictionary(self) -> pa.Array:
        import pyarrow as pa

        return pa.array(self._all, pa.string())


KINDS = Labels({kind: kind.label for kind in Kind})
POLICY_NAMES = Labels(POLICIES)


class Dictionaries:
    """Arrow arrays of lists that only grow: one is made anew when its list has grown."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[list[str], pa.Array]] = {}

    def of(self, names: list[str]) -> list[str] | pa.Array:
        """The names as an array; where they are many, as they are."""
        import pyarrow as pa

        if len(names) > _MANY:
            return names
        known, array = self._made.get(id(names), ([], None))
        if known is not names or len(array) != len(names):
            # A list that is not in use any more stays until here, so that its id is not another's.
            if len(self._made) >= _LISTS:
                self._made.clear()
            array = pa.array(names, pa.string())
            self._made[id(names)] = names, array
        return array
