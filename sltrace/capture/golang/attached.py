"""The probes within one process: where they are, and whether they are on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from sltrace.capture import uprobes
from sltrace.capture.maps import update_map
from sltrace.errors import CannotRecord
from sltrace.symbols.filebytes import FileBytes
from sltrace.target.go.process import GoProcess


@dataclass
class Attached:
    """The probes of one process.

    Attributes:
        process: Which.
        slot: Its place in the tables of the probes.
        places: File descriptor of each program, and where in the executable it is put.
        follows_spans: Spans of OpenTelemetry's SDK are among what they see.
        links: What keeps them there; empty while they are off.
        on_ns: How long they were on, in ns, without the time since `since_ns`.
        since_ns: Since when they are on (CLOCK_MONOTONIC); 0 while they are not.
        runs: How often each program ran, once it has ended and its slot is free.
    """

    process: GoProcess
    slot: int
    places: list[tuple[int, int]] = field(default_factory=list)
    follows_spans: bool = False
    links: list[int] = field(default_factory=list)
    on_ns: int = 0
    since_ns: int = 0
    runs: dict[str, int] | None = None

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    def put(self, program: int, offset: int) -> None:
        """Puts one more probe in.

        Into the file that was looked into, whatever the process runs by now: in another program
        the place may be within an instruction, and the breakpoint would crash it.

        Raises:
            CannotRecord: The kernel refused.
        """
        file = self.process.image.data
        assert isinstance(file, FileBytes)
        self.links += uprobes.attach(program, file.path, [offset], self.pid)
        self.places.append((program, offset))

    def put_back(self) -> None:
        """Puts all in again.

        Raises:
            CannotRecord: The kernel refused; none is in then.
        """
        places, self.places = self.places, []
        try:
            for program, offset in places:
                self.put(program, offset)
        except CannotRecord:
            # Nobody would look at what they cost.
            take_out([self])
            raise
        finally:
            self.places = places

    def turn_on(self, table: int) -> int:
        """Lets what they see count, from the time returned on (CLOCK_MONOTONIC).

        Args:
            table: File descriptor of the map that tells the programs.
        """
        _tell(table, self.slot, time.monotonic_ns())
        self.since_ns = time.monotonic_ns()
        return self.since_ns

    def turn_off(self, table: int) -> int:
        """Lets nothing count any more, from the time returned on."""
        now = time.monotonic_ns()
        _tell(table, self.slot, 0)
        self.on_ns += now - self.since_ns
        self.since_ns = 0
        return now

    def looked_ns(self, now: int) -> int:
        """How long they were on until `now`."""
        return self.on_ns + (now - self.since_ns if self.since_ns else 0)


def take_out(probed: Sequence[Attached]) -> int:
    """Takes the probes out of processes, all at once; the CPU time that took, ns."""
    links = [link for one in probed for link in one.links]
    for one in probed:
        one.links.clear()
    return uprobes.detach(links)


def _tell(table: int, slot: int, since_ns: int) -> None:
    update_map(table, slot.to_bytes(4, "little"), since_ns.to_bytes(8, "little"))
