"""Which modules a Python process has imported."""

from __future__ import annotations

from collections.abc import Iterable

from sltrace.target.memory import Memory, Unreadable
from sltrace.target.python.interpreter import Interpreter
from sltrace.target.python.objects import Objects

_DICT = 16
"""Of a module object."""


class Modules:
    """Those of some modules that one process has imported.

    A service has 1,000 modules, and to go through them takes 3 ms: that is done again only when
    their dict has changed.

    Args:
        names: Of the modules, looked for all at once.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)
        self._state: tuple[int, ...] = ()
        self._found: dict[str, int] = {}

    def imported(self, memory: Memory, interpreter: Interpreter) -> dict[str, int]:
        """Addresses of the dicts of those that are imported, by name."""
        objects = Objects(memory, interpreter.layout)
        try:
            modules = memory.u64(interpreter.main + interpreter.layout.modules)
            state = objects.dict_state(modules)
            if state != self._state:
                self._state, self._found = (), {}
                for name, module in objects.dict_find(modules, self._names).items():
                    self._found[name] = memory.u64(module + _DICT)
                self._state = state
        except Unreadable:
            # It is being imported, or changes: the next look sees it.
            self._state = ()
        return self._found
