"""Records of the scheduler's probes taken apart into waits: one for each part that is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sltrace.capture.ring import join

_MISSED_FROM = 16
"""enum kind in probes/wait_record.h: from here on waits that were not seen whole."""
_PIECE = 8192
"""Records taken apart at a time, 900 kB: a field then costs 0.6 ns, not 3.2 (measured), as the
one before has brought the records into the cache."""
_ONLY_QUEUED = {
    *("wake_ns", "culprit_cgroup", "culprit_ns", "culprit_tid", "culprit_pid"),
    *("culprit_others", "culprit_known"),
}


@dataclass(frozen=True)
class Parts:
    """Waits by part: all those in queues, then the throttled ones, then the blocked ones.

    Most records have two waits. What is the same for both is kept once a record: the records are
    in an order in which those that have a wait of one part are side by side.

    Attributes:
        wait_ns: How long each wait was.
        end_ns: When each ended.
        of_queues: What only waits in queues have, with a value a wait; 0 for the others.
        of_records: The other fields, with a value a record; a record with a throttled wait is
            there once more for it.
        queued, throttled, blocked: Which waits are of that part.
        records: Which records they are of, by part.
        missed: The records that are no waits, but of some that were not seen whole.
    """

    wait_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    of_queues: dict[str, NDArray[Any]]
    of_records: dict[str, NDArray[Any]]
    queued: slice
    throttled: slice
    blocked: slice
    records: tuple[slice, slice, slice]
    missed: NDArray[Any]

    @classmethod
    def of(cls, records: Sequence[NDArray[Any]], least_ns: int) -> Parts:
        """Takes records apart; parts under `least_ns` are left out.

        Args:
            records: At least one array; all of one type.
            least_ns: See above.
        """
        pieces = [_Piece.of(piece, least_ns) for piece in _pieces(records)]
        sizes = np.array([[len(indices) for indices in piece.classes] for piece in pieces])
        # Of each class those of one piece after the other.
        ends = np.cumsum(sizes.T).reshape(sizes.T.shape).T
        queued_only, both, blocked_only, throttled = ends[-1].tolist()
        by_part = slice(both), slice(blocked_only, throttled), slice(queued_only, blocked_only)
        in_part = [both, throttled - blocked_only, blocked_only - queued_only]
        queued, by_quota, asleep = (slice(*e) for e in pairwise(accumulate([0, *in_part])))
        of_queues, of_records = {}, {}
        for name, (kind, *_) in (records[0].dtype.fields or {}).items():
            if name in _ONLY_QUEUED:
                of_queues[name] = np.zeros(sum(in_part), kind)
            elif name != "reserved":
                of_records[name] = np.empty(throttled, kind)
        for piece, begins in zip(pieces, (ends - sizes).tolist(), strict=True):
            piece.spread(of_records, of_queues, begins)
        end, runq, held, sleep = (
            of_records.pop(name).view(np.int64)
            for name in ("end_ns", "runq_ns", "throttled_ns", "blocked_ns")
        )
        waited = (runq - held, held, sleep)
        ended = (end, end - waited[0], end - runq)
        return cls(
            np.concatenate([ns[part] for ns, part in zip(waited, by_part, strict=True)]),
            np.concatenate([ns[part] for ns, part in zip(ended, by_part, strict=True)]),
            of_queues,
            of_records,
            queued,
            by_quota,
            asleep,
            by_part,
            np.concatenate([piece.records[piece.missed] for piece in pieces]),
        )

    def a_wait(self, a_record: NDArray[Any]) -> NDArray[Any]:
        """From one value a record to one a wait."""
        return np.concatenate([a_record[part] for part in self.records])


@dataclass(frozen=True)
class _Piece:
    """Some of the records.

    Attributes:
        records: All of them.
        classes: Indices of those with a wait in a queue and no block, with both, with a block
            only, and, whatever else, with a throttled wait.
        missed: Indices of those that are no waits.
    """

    records: NDArray[Any]
    classes: tuple[NDArray[np.intp], ...]
    missed: NDArray[np.intp]

    @classmethod
    def of(cls, records: NDArray[Any], least_ns: int) -> _Piece:
        runq, throttled, blocked = (
            records[name].astype(np.int64) for name in ("runq_ns", "throttled_ns", "blocked_ns")
        )
        whole = records["kind"] < _MISSED_FROM
        queued = runq - throttled
        in_queue = whole & ((queued > 0) | (throttled == 0)) & (queued >= least_ns)
        by_quota = whole & (throttled > 0) & (throttled >= least_ns)
        asleep = whole & (blocked > 0) & (blocked >= least_ns)
        classes = (in_queue & ~asleep, in_queue & asleep, asleep & ~in_queue, by_quota)
        return cls(records, tuple(map(np.flatnonzero, classes)), np.flatnonzero(~whole))

    def spread(
        self,
        of_records: dict[str, NDArray[Any]],
        of_queues: dict[str, NDArray[Any]],
        begins: Sequence[int],
    ) -> None:
        """Puts the fields into their columns, each class from its place on."""
        plain = self.records.view(f"V{self.records.dtype.itemsize}")
        # In this mode it needs no second buffer; the indices are within.
        ordered = plain.take(np.concatenate(self.classes), mode="clip").view(self.records.dtype)
        cuts = [*pairwise(accumulate(map(len, self.classes), initial=0))]
        for columns, classes in ((of_records, cuts), (of_queues, cuts[:2])):
            for name, column in columns.items():
                values = ordered[name]
                if values.dtype.names:
                    # As plain bytes: structured values are copied one field at a time.
                    values, column = (a.view(f"V{a.dtype.itemsize}") for a in (values, column))
                for (first, end), begin in zip(classes, begins, strict=False):
                    if first < end:
                        column[begin : begin + end - first] = values[first:end]


def _pieces(records: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """The same records in arrays that are no larger than a piece, and not many."""
    gathered: list[list[NDArray[Any]]] = []
    room = 0
    for array in records:
        for at in range(0, max(len(array), 1), _PIECE):
            part = array[at : at + _PIECE]
            if not gathered or len(part) > room:
                gathered.append([])
                room = _PIECE
            gathered[-1].append(part)
            room -= len(part)
    return [join(parts) for parts in gathered]
