"""Ids of traces and spans as the probes hold them, written as they are written elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sltrace.capture.tags import hex_ids


@pytest.mark.parametrize("size", [8, 16])
@given(st.data())
def test_ids_are_their_bytes_in_hex_and_zeros_are_none(size: int, data: st.DataObject) -> None:
    # Within larger records, as in the rings.
    records = np.zeros(4, np.dtype([("before", "u4"), ("id", "u1", size), ("after", "u2")]))
    kinds = st.one_of(
        st.just(bytes(size)),
        st.binary(min_size=size, max_size=size),
        st.integers(0, 8 * size - 1).map(lambda bit: (1 << bit).to_bytes(size, "big")),
    )
    ids = data.draw(st.lists(kinds, min_size=4, max_size=4))
    records["id"] = [list(some) for some in ids]
    assert hex_ids(records["id"]).to_pylist() == [some.hex() if any(some) else None for some in ids]
