"""Sources of waits beside the scheduler: language runtimes, profilers. Each is one `Source`.

The session owns the clock, the trace and the two threads; a source owns its probes and readers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from sltrace.capture.asynciotasks import AsyncioTasks
from sltrace.capture.tags import Doubted

if TYPE_CHECKING:
    import pyarrow as pa

    from sltrace.capture.rows import GroupNames, TaskNames
    from sltrace.capture.settings import Settings

Rows = Iterator[tuple[str, "pa.Table"]]
"""Table of the schema and rows for it."""


@dataclass(frozen=True)
class Context:
    """What the session shares with its sources.

    Attributes:
        settings: What to record.
        start_ns: When the recording began (CLOCK_MONOTONIC).
        tags_fd: Map from tid to `struct task_tag` (probes/task_tag.h). A program on sched_switch
            that a source attaches in `attach` runs before the scheduler's own, which copies the
            tag of the task it switches in to that task's wait.
        take_tags: To be called once a source fills that map; before, records have no room for it.
        watch_programs: Takes what is to be told the pids of recorded processes that have become
            another program, on the reading thread.
        before_tasks: Takes what is to be called before the asyncio tasks of waits are named, on the
            writing thread.
        tasks: Names of threads.
        groups: Paths of cgroups.
        asyncio_tasks: What asyncio tasks are called: a source puts them in for waits of the
            scheduler, too.
        cgroup_v1: The tree of cgroups that ids are from is the v1 one of the CPU controller.
        doubted: Ids that a source has doubts about; it takes them out of its own rows.
        native: Rows for native stacks (`struct stack_record`) that a source took itself.
        say: Shows a line to the user before the recording begins.
    """

    settings: Settings
    start_ns: int
    tags_fd: int
    tasks: TaskNames
    groups: GroupNames
    take_tags: Callable[[], None]
    watch_programs: Callable[[Callable[[Sequence[int]], None]], None]
    before_tasks: Callable[[Callable[[], None]], None] = lambda learn: None
    cgroup_v1: bool = False
    asyncio_tasks: AsyncioTasks = field(default_factory=AsyncioTasks)
    doubted: Doubted = field(default_factory=Doubted)
    native: Callable[[NDArray[Any]], Rows] = lambda records: iter(())
    say: Callable[[str], None] = lambda line: None


class Source(Protocol):
    """Something besides the scheduler that is recorded.

    A target that goes away, or is not what it seemed, is no error: its row of `targets` says so.
    """

    name: str
    """Key of its description in meta.json."""
    privileges: frozenset[int]
    """Capabilities that it needs after `attach` (sltrace.capture.privileges)."""

    def attach(self, context: Context) -> None:
        """Loads and attaches, with all privileges; before the scheduler's probes."""

    def fill(self) -> float:
        """How full the fullest of its rings is, 0 to 1; on the reading thread, often."""

    def drain(self) -> None:
        """Empties its rings into memory; on the reading thread: no work per event.

        At least before each `rows`, and as often as they fill.
        """

    def rows(self) -> Rows:
        """What became known since the last call; on the writing thread, twice a second."""

    def detach(self, end_ns: int) -> None:
        """Takes every probe out; rings and counters stay readable.

        Called on the reading thread while the writing thread may be in `rows`.

        Args:
            end_ns: When the recording ended (CLOCK_MONOTONIC), a moment ago.
        """

    def finish(self) -> Rows:
        """The rest, once nothing is attached any more: names, and what was still under way."""

    def targets(self) -> Sequence[pa.Table]:
        """What became of each process so far: all rows of `targets`; once a second as `rows`, and
        once more after `finish`."""

    def describe(self) -> dict[str, Any]:
        """For meta.json: what is attached, and losses, discards and own cost so far."""

    def close(self) -> None:
        """Detaches everything. May be called twice, and after a failed `attach`."""
