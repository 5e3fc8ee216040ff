"""Work on files, in order: at once, or aside on a thread that may stall.

A file system stalls for seconds: replacing `meta.json`, 4 kB, took 3.4 s of a recording at 280,000
waits/s (measured, ext4 on a virtual disk: its journal waited for discards). Whoever makes rows must
not wait for that, or the rings overflow.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sltrace.errors import OutputError

ROOM = 32 << 20
"""Bytes that may wait to be written: a stall of 5 s at 300,000 waits/s, of 15 s at 100,000."""


class Disk:
    """Does what is asked for one after the other; an error is raised to whoever asks next.

    Args:
        explain: What to raise for what the system says.
    """

    def __init__(self, explain: Callable[[OSError], OutputError]) -> None:
        self._explain = explain
        self._todo: deque[tuple[Callable[[], object], int]] = deque()
        self._waiting = 0
        self._changed = threading.Condition()
        self._is_aside = False
        self._failure: Exception | None = None

    def do(self, work: Callable[[], object], size: int = 0) -> None:
        """Does it now; aside, soon, once there is room for its `size` bytes.

        Raises:
            OutputError: It failed, or what was to be done aside before it. After that nothing is
                done any more, so that no file is put in place that lacks a part.
        """
        with self._changed:
            self._raise_failure()
            if self._is_aside:
                self._changed.wait_for(lambda: self._waiting == 0 or self._waiting + size <= ROOM)
                self._raise_failure()
                self._todo.append((work, size))
                self._waiting += size
                self._changed.notify_all()
                return
        try:
            work()
        except OSError as err:
            raise self._explain(err) from err

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Within, work is done on a thread of its own; at the end all of it has been done.

        Raises:
            OutputError: As `do`.
        """
        self._is_aside = True
        thread = threading.Thread(target=self._work, name="sltrace-disk", daemon=True)
        thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._is_aside = False
                self._changed.notify_all()
            thread.join()
        self._raise_failure()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._todo or not self._is_aside)
                if not self._todo:
                    return
                work, size = self._todo.popleft()
            try:
                if self._failure is None:
                    work()
            except OSError as err:
                self._failure = self._explain(err)
            except Exception as err:
                self._failure = err
            with self._changed:
                self._waiting -= size
                self._changed.notify_all()

    def _raise_failure(self) -> None:
        if self._failure:
            raise self._failure
