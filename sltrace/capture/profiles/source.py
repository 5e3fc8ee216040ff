"""The source of a recording that takes in profiles: pushed to it, and from files at its end."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sltrace.capture.profiles.receiver import Receiver, Refusal, Request
from sltrace.capture.sources import Context, Rows
from sltrace.profiles.push import MAX_PUSH, Pushed, from_ingest, from_push, of_file
from sltrace.profiles.source import ProfileError
from sltrace.trace.schema import arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

MAX_STORED = 256 << 20
"""Bytes of profiles in one trace."""
MAX_PENDING = 64 << 20
"""Bytes that wait to be written."""
_MAX_REASONS = 32
_PUSH, _INGEST = "/push.v1.PusherService/Push", "/ingest"
_PROTO = "application/proto"
"""What Connect's clients, as Grafana Alloy, want an empty message to be called."""


class ProfileSource:
    """Profiles that others made.

    Args:
        listen: Address and port to receive them on; None for not at all.
        files: Files to read when the recording ends.
    """

    name = "profiles"
    privileges: frozenset[int] = frozenset()

    def __init__(self, listen: tuple[str, int] | None, files: Sequence[Path]) -> None:
        self._listen = listen
        self._files = tuple(files)
        self._receiver: Receiver | None = None
        # The receiver's thread puts in what the writing thread takes out.
        self._lock = threading.Lock()
        self._pending: list[dict[str, Any]] = []
        self._pending_bytes = self._stored_bytes = 0
        self._received: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()

    def attach(self, context: Context) -> None:
        """Starts to listen, and looks at the files that are there already.

        Raises:
            OutputError: The address or port cannot be had.
            ProfileError: A file is something else.
        """
        for path in self._files:
            # Whoever makes it may have opened it by now.
            if path.is_file() and not path.stat().st_size:
                continue
            if path.exists():
                of_file(path)
            else:
                context.say(f"{path} is not there yet: it is read when the recording ends")
        if self._listen:
            host, port = self._listen
            self._receiver = Receiver(host, port, MAX_PUSH, self._take, self._refuse)

    def fill(self) -> float:
        """There is no ring."""
        return 0.0

    def drain(self) -> None:
        """Nothing."""

    def rows(self) -> Rows:
        """What was received since the last call."""
        import pyarrow as pa

        with self._lock:
            taken, self._pending, self._pending_bytes = self._pending, [], 0
        if taken:
            yield "profiles", pa.Table.from_pylist(taken, schema=arrow_schema("profiles"))

    def detach(self, end_ns: int) -> None:
        """Nothing: there are no probes."""

    def finish(self) -> Rows:
        """Stops to listen and reads the files."""
        self.close()
        yield from self.rows()
        for path in self._files:
            try:
                for pushed in of_file(path):
                    self._keep("file", pushed)
            except ProfileError as err:
                self._refuse(err.message)
            except Refusal as err:
                self._refuse(f"{path}: {err}")
            # One at a time, so that no more than that is in memory.
            yield from self.rows()

    def targets(self) -> Sequence[pa.Table]:
        """None: profiles come from anywhere."""
        return ()

    def describe(self) -> dict[str, Any]:
        """Where it listens, and what was received and refused."""
        with self._lock:
            described: dict[str, Any] = {
                "received": dict(self._received),
                "bytes": self._stored_bytes,
                "refused": dict(self._refusals),
            }
        if self._receiver and self._listen:
            described["listened"] = [self._listen[0], self._receiver.port]
        return described

    def close(self) -> None:
        """Stops to listen."""
        if self._receiver:
            self._receiver.close()

    def _take(self, request: Request) -> str:
        if request.path not in (_PUSH, _INGEST):
            raise Refusal(HTTPStatus.NOT_FOUND, "not a path that profiles are pushed to")
        try:
            if request.path == _INGEST:
                self._keep("ingest", from_ingest(request.query, request.body))
                return ""
            found, refused = from_push(request.body)
        except ProfileError as err:
            raise Refusal(HTTPStatus.BAD_REQUEST, err.message) from err
        for error in refused:
            self._refuse(error.message)
        for pushed in found:
            self._keep("push", pushed)
        return _PROTO

    def _keep(self, source: str, pushed: Pushed) -> None:
        now, size = time.monotonic_ns(), len(pushed.data)
        began = pushed.start_unix_ns - time.time_ns() + now if pushed.start_unix_ns else None
        row = pushed.row(source, now, began)
        with self._lock:
            if self._stored_bytes + size > MAX_STORED:
                why = f"the trace has {MAX_STORED >> 20} MiB of profiles already"
                raise Refusal(HTTPStatus.INSUFFICIENT_STORAGE, why)
            if self._pending_bytes + size > MAX_PENDING:
                raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too much at once")
            self._pending.append(row)
            self._pending_bytes += size
            self._stored_bytes += size
            self._received[source] += 1

    def _refuse(self, why: str) -> None:
        with self._lock:
            if why in self._refusals or len(self._refusals) < _MAX_REASONS:
                self._refusals[why] += 1
            else:
                self._refusals["other reasons"] += 1
