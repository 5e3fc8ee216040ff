"""Records of the scheduler's probes taken apart into waits: one for each part that is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sltrace.capture.ring import join

_MISSED_FROM = 16
"""enum kind in probes/wait_record.h: from here on waits that were not seen whole."""
_PIECE = 8192
"""Records taken apart at a time, 900 kB: a field then costs 0.6 ns, not 3.2 (measured), as the
one before has brought the records into the cache."""
_LENGTHS = ("runq_ns", "throttled_ns", "blocked_ns")
_NOT_SPREAD = {*_LENGTHS, "end_ns", "reserved"}
_ONLY_QUEUED = {
    *("wake_ns", "culprit_cgroup", "culprit_ns", "culprit_tid", "culprit_pid"),
    *("culprit_others", "culprit_known"),
}


@dataclass(frozen=True)
class Parts:
    """Waits by part: all those in queues, then the throttled ones, then the blocked ones.

    Attributes:
        wait_ns: How long each was.
        end_ns: When each ended.
        fields: The other fields of the records, with a value a wait. What only waits in queues
            have is 0 for the others.
        queued, throttled, blocked: Which waits are of that part.
        missed: The records that are no waits, but of some that were not seen whole.
    """

    wait_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    fields: dict[str, NDArray[Any]]
    queued: slice
    throttled: slice
    blocked: slice
    missed: NDArray[Any]

    @classmethod
    def of(cls, records: Sequence[NDArray[Any]], least_ns: int) -> Parts:
        """Takes records apart; parts under `least_ns` are left out.

        Args:
            records: At least one array; all of one type.
            least_ns: See above.
        """
        pieces = _pieces(records)
        cuts = [_Cut.of(piece, least_ns) for piece in pieces]
        sizes = np.array([[len(waits) for waits in cut.wait_ns] for cut in cuts])
        ends = np.cumsum(sizes.T).reshape(3, -1).T
        begins = ends - sizes
        fields = {
            name: (np.zeros if name in _ONLY_QUEUED else np.empty)(ends[-1, -1], kind)
            for name, (kind, *_) in (records[0].dtype.fields or {}).items()
            if name not in _NOT_SPREAD
        }
        for piece, cut, places in zip(pieces, cuts, begins.tolist(), strict=True):
            for name, column in fields.items():
                cut.spread(piece[name], column, places[:1] if name in _ONLY_QUEUED else places)
        queued, throttled, blocked = map(slice, begins[0].tolist(), ends[-1].tolist())
        return cls(
            np.concatenate([cut.wait_ns[part] for part in range(3) for cut in cuts]),
            np.concatenate([cut.end_ns[part] for part in range(3) for cut in cuts]),
            fields,
            queued,
            throttled,
            blocked,
            np.concatenate([piece[cut.missed] for piece, cut in zip(pieces, cuts, strict=True)]),
        )


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


@dataclass(frozen=True)
class _Cut:
    """How one piece of the records comes apart.

    Attributes:
        rows: Indices of the records, by part; a slice where it is all of them.
        wait_ns, end_ns: Of each wait, by part.
        missed: Indices of the records that are no waits.
    """

    rows: tuple[slice | NDArray[np.intp], ...]
    wait_ns: tuple[NDArray[np.int64], ...]
    end_ns: tuple[NDArray[np.int64], ...]
    missed: NDArray[np.intp]

    @classmethod
    def of(cls, piece: NDArray[Any], least_ns: int) -> _Cut:
        end, runq, throttled, blocked = (
            piece[name].astype(np.int64) for name in ("end_ns", *_LENGTHS)
        )
        whole = piece["kind"] < _MISSED_FROM
        queued = runq - throttled
        rows = tuple(
            slice(None) if chosen.all() else np.flatnonzero(chosen)
            for chosen in (
                whole & ((queued > 0) | (throttled == 0)) & (queued >= least_ns),
                whole & (throttled > 0) & (throttled >= least_ns),
                whole & (blocked > 0) & (blocked >= least_ns),
            )
        )
        return cls(
            rows,
            tuple(w[r] for w, r in zip((queued, throttled, blocked), rows, strict=True)),
            tuple(e[r] for e, r in zip((end, end - queued, end - runq), rows, strict=True)),
            np.flatnonzero(~whole),
        )

    def spread(self, values: NDArray[Any], into: NDArray[Any], places: Sequence[int]) -> None:
        """From one value a record to one a wait, from a place of each part on."""
        if values.dtype.names:
            # As plain bytes: structured values are copied one field at a time.
            values, into = (a.view(f"V{values.dtype.itemsize}") for a in (values, into))
        for rows, waits, place in zip(self.rows, self.wait_ns, places, strict=False):
            part = into[place : place + len(waits)]
            if isinstance(rows, slice):
                part[:] = values
                values = part
            elif len(rows):
                values = np.ascontiguousarray(values)
                # In this mode it needs no second buffer; the indices are within.
                values.take(rows, out=part, mode="clip")
