"""Where asyncio keeps the running task of a thread, and where a task has its coroutine and name.

Up to 3.13 from a table by minor version, which the size of a task must fit; 3.14 publishes the
offsets in a section of the file that has `_asyncio`. They are private all the same: the probe
takes a task for real only if its coroutine is the one on the stack.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from sltrace.symbols.mappings import MappingRecorder
from sltrace.target.memory import Memory, Unreadable
from sltrace.target.python.interpreter import Interpreter
from sltrace.target.python.objects import Objects

MODULE = "_asyncio"
_SECTION = ".AsyncioDebug"
_MAX_OFFSET = 4096
_BASIC_SIZE = 32
"""Of a type: size of its instances."""


@dataclass(frozen=True)
class Tasks:
    """Places of tasks.

    Attributes:
        current: Address of the dict of running tasks by loop; 0 from 3.14 on.
        running: From 3.14 on, offset of the running task in a thread state; 0 before.
        coro: Offset of its coroutine in a task; likewise name.
        text_type: Address of the type `str`.
    """

    current: int
    running: int
    coro: int
    name: int
    text_type: int


_OFFSETS = {10: (192, 160, 168), 11: (176, 136, 144), 12: (176, 136, 144), 13: (144, 120, 128)}
"""By minor version: size of a task, and the offsets of coroutine and name."""


def find_tasks(
    memory: Memory, interpreter: Interpreter, module: int, proc: Path = Path("/proc")
) -> Tasks:
    """What there is to know of tasks.

    Args:
        memory: Of the process.
        interpreter: In it.
        module: Dict of MODULE.
        proc: Where /proc is.

    Raises:
        Unreadable: It is not as expected, or changes.
    """
    objects = Objects(memory, interpreter.layout)
    key = next((key for key, _ in objects.dict_items(module)), 0)
    if objects.type_name(key) != "str":
        raise Unreadable("a module's dict has no str in it")
    text_type = objects.type_of(key)
    task_type = objects.dict_get(module, "Task")
    size = memory.u64(task_type + _BASIC_SIZE)
    minor = interpreter.layout.minor
    if minor not in _OFFSETS:
        return _published(memory.pid, size, text_type, MappingRecorder(proc))
    expected, coro, name = _OFFSETS[minor]
    current = objects.dict_get(module, "_current_tasks")
    if size != expected or objects.type_name(current) != "dict":
        raise Unreadable("asyncio's tasks are not as known")
    return Tasks(current, 0, coro, name, text_type)


def _published(pid: int, size: int, text_type: int, maps: MappingRecorder) -> Tasks:
    """From `Py_AsyncioModuleDebugOffsets`: seven words of a task, two of an interpreter, then
    those of a thread."""
    for mapping in maps.read_maps(pid):
        if "python" not in mapping.path and MODULE not in mapping.path:
            continue
        elf = maps.open_elf(pid, mapping)
        words = elf.section(_SECTION, 96) if elf else b""
        if len(words) < 96:
            continue
        found = struct.unpack("<12Q", words)
        name, coro, running = found[1], found[5], found[11]
        if found[0] != size or not 0 < max(name, coro) < size or not 0 < running < _MAX_OFFSET:
            break
        return Tasks(0, running, coro, name, text_type)
    raise Unreadable("asyncio does not publish where its tasks are")
