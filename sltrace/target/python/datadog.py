"""Whether ddtrace's thread record follows asyncio from task to task.

It does where ddtrace has patched asyncio, as `ddtrace-run` and `import ddtrace.auto` do. Else a
loop's thread keeps the ids of whichever task was the last to begin or end a span.
"""

from __future__ import annotations

from collections.abc import Mapping

from sltrace.target.memory import Memory
from sltrace.target.python.interpreter import Interpreter
from sltrace.target.python.objects import Objects

_TRACER, _ASYNCIO = MODULES = ("ddtrace", "asyncio")
_PATCHED = "_datadog_patch"
_DIGIT = 24
"""Of an int, and so of a bool."""


def loops_are_behind(memory: Memory, interpreter: Interpreter, modules: Mapping[str, int]) -> bool:
    """Whether ids of threads that run an event loop may be another task's.

    Args:
        memory: Of the process.
        interpreter: In it.
        modules: Dicts of those of MODULES that are imported.

    Raises:
        Unreadable: asyncio is being imported, or changes.
    """
    if _TRACER not in modules or _ASYNCIO not in modules:
        return False
    objects = Objects(memory, interpreter.layout)
    flag = objects.dict_find(modules[_ASYNCIO], (_PATCHED,)).get(_PATCHED)
    return flag is None or memory.u32(flag + _DIGIT) == 0
