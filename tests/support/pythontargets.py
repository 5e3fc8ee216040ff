"""What tests of the Python processes that are followed have in common."""

from __future__ import annotations

from typing import Any

import numpy as np

from sltrace.target.python.interpreter import Interpreter
from sltrace.target.python.layout import layout_for

SECOND = 1_000_000_000
PID = 7


def nothing(pid: int, told: Any) -> None:
    """For what Targets tells of."""


def interpreter() -> Interpreter:
    """A recognised one, of no process."""
    layout = layout_for(12, b"")
    return Interpreter("3.12.1", "/bin/python", "", "/bin/python", 0, layout, 1, 2, 3, 1, 4)


def events(*told: tuple[int, int, int, int]) -> Any:
    """As the probes hand them over: of each pid, kind, time and parent."""
    return np.array(list(told), [(name, "u8") for name in ("pid", "kind", "ns", "parent")])
