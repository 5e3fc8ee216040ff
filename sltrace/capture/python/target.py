"""One process that is looked into, and what the probes are told of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sltrace.symbols.mappings import Mapping
from sltrace.target.memory import Memory
from sltrace.target.python import datadog, otel, servers, tasks
from sltrace.target.python.interpreter import Interpreter
from sltrace.target.python.modules import Modules
from sltrace.target.python.otel import Nodes, OTel, Variable
from sltrace.target.python.tasks import Tasks
from sltrace.target.threadrecord import ThreadRecord

STACKS, TRACES = 1, 2
"""Values of `level` in the targets table."""
_MODULES = (*otel.MODULES, tasks.MODULE, *datadog.MODULES, *servers.MODULES)


@dataclass
class Target:
    """One process.

    Attributes:
        named: The user named it.
        from_ns: Since when it is this program.
        read_ns: Since when the probes read it; None if they do not.
        python: Its interpreter, once recognised.
        why: Why not all is recorded of it.
        refused: There is one that cannot be looked into, as far as is known by now.
        foreign: There is no Python in it.
        servers: Where it has a server in C, which its threads wait in.
        loops_behind: Its threads' records may be another asyncio task's.
        greenlets_behind: They may be another greenlet's, and are not taken.
        asked_with: What was imported when that was found out.
    """

    pid: int
    named: bool
    from_ns: int
    until_ns: int | None = None
    read_ns: int | None = None
    memory: Memory | None = None
    python: Interpreter | None = None
    why: str = ""
    refused: bool = False
    foreign: bool = False
    parent: Target | None = None
    settled: bool = False
    otel: OTel | None = None
    nodes: Nodes | None = None
    record: Variable | None = None
    tls: ThreadRecord | None = None
    tasks: Tasks | None = None
    servers: tuple[Mapping, ...] = ()
    looks: int = 0
    next_look_ns: int = 0
    loops_behind: bool = False
    greenlets_behind: bool = False
    asked_with: frozenset[str] = frozenset()
    trouble: str = ""
    modules: Modules = field(default_factory=lambda: Modules(_MODULES))

    @property
    def unknown(self) -> bool:
        """Whether it is not known by now if there is a Python in it."""
        return not (self.settled or self.foreign or self.refused)

    @property
    def level(self) -> int | None:
        """How much is recorded."""
        if self.python is None:
            return None
        traced = ((self.otel or self.record) and self.nodes) or self._trusted_tls
        return TRACES if traced else STACKS

    @property
    def told_from_ns(self) -> int:
        """Since when it is looked into; as long as it is not, since when it is there."""
        since = self.from_ns if self.read_ns is None else self.read_ns
        return since if self.until_ns is None else min(since, self.until_ns)

    @property
    def _trusted_tls(self) -> ThreadRecord | None:
        return None if self.greenlets_behind else self.tls

    def worth_a_row(self, *, replaced: bool) -> bool:
        """Whether it is told of: if it is Python, or the user may have thought so.

        Args:
            replaced: By another program.
        """
        if self.python or (self.why and not self.foreign):
            return True
        return self.named and not replaced

    def close(self) -> None:
        """Lets go of its memory."""
        if self.memory:
            self.memory.close()
            self.memory = None

    def described(self, layout: np.dtype[Any]) -> NDArray[Any]:
        """What the probes are told of it: a `struct python_process`.

        One whose memory has numbers that no interpreter has is given up.
        """
        try:
            return self._described(layout)
        except OverflowError as err:
            self.python, self.settled, self.refused = None, True, True
            self.why = f"its structures are not understood: {err}"
            self.close()
            return self._described(layout)

    def _described(self, layout: np.dtype[Any]) -> NDArray[Any]:
        process = np.zeros(1, layout)
        process["since_ns"] = self.from_ns
        for name, value in self._values().items():
            process[name] = value
        return process

    def _values(self) -> dict[str, int]:
        if (found := self.python) is None:
            return {}
        layout = found.layout
        values: dict[str, int] = {
            "interpreters": found.runtime + layout.interpreters,
            "gil": found.gil,
            "own_gil": layout.gil if layout.gil_is_pointer else 0,
            "interpreter_next": layout.interpreter_next,
            "threads": layout.threads,
            "thread_next": layout.thread_next,
            "thread_id": layout.thread_id,
            "native_id": layout.native_id,
            "context": layout.context,
            "frame": layout.frame,
            "cframe": layout.cframe,
            "cframe_current": layout.cframe_current,
            "frame_code": layout.frame_code,
            "back": layout.back,
            "instr": layout.instr,
            "owner": layout.owner,
            "frame_bytes": layout.frame_bytes,
            "generator": layout.generator,
            "skip_from": layout.skip_from,
            "instr_is_index": layout.instr_is_index,
            "tagged": layout.tagged,
            "minor": layout.minor,
            "ready": 1,
        }
        if self.nodes:
            values |= {"bitmap_node": self.nodes.bitmap, "array_node": self.nodes.array}
        if self.otel:
            values |= {
                "otel_var": self.otel.variable.address,
                "otel_hash": self.otel.variable.hash,
                "otel_key": self.otel.span_key,
                "span_context": self.otel.span_context,
            }
        if self.record:
            values |= {"record_var": self.record.address, "record_hash": self.record.hash}
        if self.tasks:
            values |= {
                "current_tasks": self.tasks.current,
                "running_task": self.tasks.running,
                "task_coro": self.tasks.coro,
                "task_name": self.tasks.name,
                "text_type": self.tasks.text_type,
            }
        if tls := self._trusted_tls:
            values |= {
                "has_tls": 1,
                "loops_behind": self.loops_behind,
                "tls_module": tls.module,
                "tls_offset": tls.offset,
            }
        return values
