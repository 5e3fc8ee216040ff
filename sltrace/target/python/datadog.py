"""Whether ddtrace's thread record follows what shares a thread: tasks of asyncio, greenlets.

It does where ddtrace has patched asyncio and gevent, as `ddtrace-run` and `import ddtrace.auto`
do. Else a thread keeps the ids of whichever task or greenlet was the last to begin or end a span.
"""

from __future__ import annotations

from collections.abc import Mapping

from sltrace.target.memory import Memory
from sltrace.target.python.interpreter import Interpreter
from sltrace.target.python.objects import Objects

_TRACER, _ASYNCIO, _GEVENT, _EVENTLET, _GREENLET, _SQLALCHEMY = MODULES = (
    *("ddtrace", "asyncio", "gevent", "eventlet", "greenlet", "sqlalchemy"),
)
_ASYNCIO_PATCHED = "_datadog_patch"
_GEVENT_PATCHED = "__datadog_patch"
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
    return not _is_true(memory, interpreter, modules[_ASYNCIO], _ASYNCIO_PATCHED)


def greenlets_are_behind(
    memory: Memory, interpreter: Interpreter, modules: Mapping[str, int]
) -> bool:
    """Whether ids of any thread may be another greenlet's; arguments as of `loops_are_behind`.

    SQLAlchemy's greenlets have the context of the task that they are of, so they need no patch.

    Raises:
        Unreadable: gevent is being imported, or changes.
    """
    if _TRACER not in modules:
        return False
    if _GEVENT in modules and _EVENTLET not in modules:
        return not _is_true(memory, interpreter, modules[_GEVENT], _GEVENT_PATCHED)
    return _EVENTLET in modules or (_GREENLET in modules and _SQLALCHEMY not in modules)


def _is_true(memory: Memory, interpreter: Interpreter, module: int, name: str) -> bool:
    """Whether a module has such a flag, and it is set."""
    flag = Objects(memory, interpreter.layout).dict_find(module, (name,)).get(name)
    return flag is not None and memory.u32(flag + _DIGIT) != 0
