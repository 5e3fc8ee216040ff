"""A source whose own failure ends it alone: what else is recorded goes on.

Sources read what others' processes hold, and a defect that one of those brings to light must not
cost the scheduler's waits. The failure is told at the end, and kept in the trace.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from sltrace.capture import tags
from sltrace.capture.sources import Context, Rows, Source

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Failure:
    """What ended a source.

    Attributes:
        after_ns: How long after the recording began.
        why: The exception, in one line.
        where: Its traceback.
    """

    after_ns: int
    why: str
    where: str


class Guarded:
    """A source, until it fails; from then on it tells nothing, and its probes are taken out.

    Args:
        source: It. What its `attach` raises is not held back: nothing is recorded yet.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._detached = False
        self._described: dict[str, Any] = {}
        self._told: Sequence[pa.Table] = ()
        self._start_ns, self._tags_fd = 0, -1
        self.name, self.privileges = source.name, source.privileges
        self.failure: Failure | None = None

    def attach(self, context: Context) -> None:
        """Attaches the source, with what it asks to be told guarded as well."""
        self._start_ns, self._tags_fd = context.start_ns, context.tags_fd
        own = replace(
            context,
            watch_programs=lambda told: context.watch_programs(self._calling(told)),
            before_tasks=lambda learn: context.before_tasks(self._calling(learn)),
        )
        self._source.attach(own)

    def fill(self) -> float:
        """How full the fullest ring is; of a source that has failed, none is."""
        if self.failure:
            # Here, as only the reading thread may: failing is often the writing one's.
            if not self._detached:
                self.detach(time.monotonic_ns())
                # Nobody changes its tags any more: they would be those of all that comes.
                tags.clear(self._tags_fd)
            return 0.0
        with self._noting():
            return self._source.fill()
        return 0.0

    def drain(self) -> None:
        """Empties the source's rings, unless it has failed."""
        if not self.failure:
            with self._noting():
                self._source.drain()

    def rows(self) -> Rows:
        """The source's rows, up to where it fails."""
        if not self.failure:
            with self._noting():
                yield from self._source.rows()

    def detach(self, end_ns: int) -> None:
        """Takes its probes out, once."""
        if not self._detached:
            self._detached = True
            with self._noting():
                self._source.detach(end_ns)

    def finish(self) -> Rows:
        """The rest, also of one that has failed: what it knew before is true."""
        with self._noting():
            yield from self._source.finish()

    def targets(self) -> Sequence[pa.Table]:
        """The source's, or the last that it gave."""
        with self._noting():
            self._told = self._source.targets()
        return self._told

    def describe(self) -> dict[str, Any]:
        """The source's description, or the last that it gave; and how it failed, if it did."""
        with self._noting():
            self._described = self._source.describe()
        if not self.failure:
            return self._described
        return self._described | {"failed": asdict(self.failure)}

    def close(self) -> None:
        """Detaches everything."""
        with self._noting():
            self._source.close()

    def _calling(self, function: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            if not self.failure:
                with self._noting():
                    function(*arguments)

        return call

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except Exception as err:
            # The first says most; others may follow from it.
            if not self.failure:
                line = traceback.format_exception_only(err)[-1].strip()
                after_ns = time.monotonic_ns() - self._start_ns
                self.failure = Failure(after_ns, line, traceback.format_exc())
