"""What was seen before, against a plain set."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sltrace.capture.seen import Seen

_IDS = st.lists(st.one_of(st.integers(0, 9), st.integers(0, 2**64 - 1)), max_size=20)


@given(st.lists(_IDS, max_size=8), st.integers(0, 30))
def test_each_id_is_new_once_and_as_many_as_there_is_room_for(
    calls: list[list[int]], limit: int
) -> None:
    seen, known, refused = Seen(limit), set[int](), 0
    for call in calls:
        ids = np.array(call, np.uint64)
        told = ids[seen.new(ids)].tolist()
        fresh = set(call) - known
        assert len(told) == len(set(told)) == min(len(fresh), limit - len(known))
        assert fresh.issuperset(told)
        refused += len(fresh) - len(told)
        known.update(told)
        assert seen.refused == refused
