"""Where CPython keeps what, by minor version.

3.10 to 3.12 from a table (their structures did not change within a minor version); from 3.13 on
the interpreter publishes most of it itself, `_Py_DebugOffsets` at the start of `_PyRuntime`. What
it does not publish is the same in every build seen. Offsets are bytes, for x86-64. Whether they
fit is checked on the live process before anything is trusted: sltrace.target.python.interpreter.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

COOKIE = b"xdebugpy"
DEBUG_OFFSETS_BYTES = 1024

CODE_BYTES = 208
"""How much of a code object is read to tell it from others; all versions' fields are in it."""

SUPPORTED = ("3.10", "3.11", "3.12", "3.13", "3.14")


class UnknownLayout(Exception):
    """Not a version whose structures are known."""


@dataclass(frozen=True)
class Layout:
    """Offsets of one minor version.

    Attributes:
        minor: 10 to 14.
        interpreters: `_PyRuntime`: pointer to the first interpreter.
        interpreter_next: PyInterpreterState: the next one; likewise threads (first thread),
            interpreter_id, modules (dict of sys.modules).
        gil: From `_PyRuntime`, or from the interpreter where `gil_is_pointer`.
        thread_next: PyThreadState: the next one; likewise thread_id (pthread_self), native_id (tid;
            0 for none), context (PyContext), frame (where the frame chain starts).
        cframe: `frame` points to a structure that has the innermost frame at `cframe_current`.
        frame_code: Frame: its code object; likewise back, instr, owner.
        generator: Frame: its generator, in 3.10; later, in a generator: its frame.
        frame_bytes: How much of a frame is read.
        skip_from: Frames whose owner is this or more are the interpreter's own; 0: none are.
        instr_is_index: `instr` is an index of code units, else an address in the code.
        tagged: Pointers to code have low bits set.
        code_start: PyCodeObject: first instruction; likewise flags, first_line, filename, name
            (qualified where there is one), linetable.
        text: Where the characters of a compact ASCII str begin; a compact other str has 16 more.
    """

    minor: int
    interpreters: int
    interpreter_next: int
    interpreter_id: int
    threads: int
    modules: int
    gil: int
    gil_is_pointer: bool
    thread_next: int
    thread_id: int
    native_id: int
    context: int
    frame: int
    cframe: bool
    cframe_current: int
    frame_code: int
    back: int
    instr: int
    owner: int
    generator: int
    frame_bytes: int
    skip_from: int
    instr_is_index: bool
    tagged: bool
    code_start: int
    flags: int
    first_line: int
    filename: int
    name: int
    linetable: int
    text: int


_COMMON_CODE = {"filename": 112, "name": 128, "linetable": 136}

_TABLE = {
    10: Layout(
        minor=10, interpreters=32, interpreter_next=0, interpreter_id=24, threads=8, modules=856,
        gil=352, gil_is_pointer=False, thread_next=8, thread_id=176, native_id=0, context=240,
        frame=24, cframe=False, cframe_current=0, frame_code=32, back=24, instr=96, owner=0,
        generator=88, frame_bytes=104, skip_from=0, instr_is_index=True, tagged=False,
        code_start=0, flags=36, first_line=40, filename=104, name=112, linetable=120, text=48,
    ),
    11: Layout(
        minor=11, interpreters=40, interpreter_next=0, interpreter_id=48, threads=16, modules=888,
        gil=360, gil_is_pointer=False, thread_next=8, thread_id=152, native_id=160, context=224,
        frame=56, cframe=True, cframe_current=8, frame_code=32, back=48, instr=56, owner=69,
        generator=80, frame_bytes=72, skip_from=0, instr_is_index=False, tagged=False,
        code_start=184, flags=48, first_line=72, text=48, **_COMMON_CODE,
    ),
    12: Layout(
        minor=12, interpreters=40, interpreter_next=0, interpreter_id=8, threads=72, modules=944,
        gil=384, gil_is_pointer=True, thread_next=8, thread_id=136, native_id=144, context=208,
        frame=56, cframe=True, cframe_current=0, frame_code=0, back=8, instr=56, owner=70,
        generator=72, frame_bytes=72, skip_from=3, instr_is_index=False, tagged=False,
        code_start=192, flags=48, first_line=68, text=40, **_COMMON_CODE,
    ),
}  # fmt: skip

# Names of the groups of _Py_DebugOffsets up to the last one used, in order, each 8 bytes.
_RUNTIME = ("size", "finalizing", "interpreters_head")
_INTERPRETER_13 = (
    "size", "id", "next", "threads_head", "gc", "imports_modules", "sysdict", "builtins",
    "ceval_gil", "gil_runtime_state", "gil_enabled", "gil_locked", "gil_holder",
)  # fmt: skip
_INTERPRETER_14 = (
    *_INTERPRETER_13[:4], "threads_main", *_INTERPRETER_13[4:], "code_generation",
    "tlbc_generation",
)  # fmt: skip
_THREAD = (
    "size", "prev", "next", "interp", "current_frame", "thread_id", "native_thread_id",
    "datastack_chunk", "status",
)  # fmt: skip
_FRAME_13 = ("size", "previous", "executable", "instr_ptr", "localsplus", "owner")
_FRAME_14 = (*_FRAME_13, "stackpointer", "tlbc_index")
_CODE_13 = (
    "size", "filename", "name", "qualname", "linetable", "firstlineno", "argcount",
    "localsplusnames", "localspluskinds", "co_code_adaptive",
)  # fmt: skip
_CODE_14 = (*_CODE_13, "co_tlbc")
_CODE_READ = ("filename", "qualname", "linetable", "firstlineno")
_GROUPS = {
    13: (_RUNTIME, _INTERPRETER_13, _THREAD, _FRAME_13, _CODE_13),
    14: (_RUNTIME, _INTERPRETER_14, _THREAD, _FRAME_14, _CODE_14),
}
_MAX_OFFSET = 1 << 20
_FRAME_READ = 104
"""What the probe can hold of a frame."""


def layout_for(minor: int, runtime: bytes) -> Layout:
    """The layout of 3.`minor`.

    Args:
        minor: 10 and up.
        runtime: The first DEBUG_OFFSETS_BYTES of `_PyRuntime`; not looked at before 3.13.

    Raises:
        UnknownLayout: No such layout is known, or the process's own description of it is not
            what this version's looks like.
    """
    if minor in _TABLE:
        return _TABLE[minor]
    if minor not in _GROUPS:
        raise UnknownLayout(f"Python 3.{minor} is not known; {', '.join(SUPPORTED)} are")
    return _published(minor, runtime)


def is_free_threaded(runtime: bytes) -> bool:
    """Whether the build has no GIL, as `_Py_DebugOffsets` says (3.13 and later)."""
    return runtime[:8] == COOKIE and runtime[16:24] != bytes(8)


def _published(minor: int, runtime: bytes) -> Layout:
    if runtime[:8] != COOKIE:
        raise UnknownLayout(f"layout of Python 3.{minor} not recognised: it publishes no offsets")
    values = struct.unpack_from("<125Q", runtime, 24)
    if (
        max(values[:56]) > _MAX_OFFSET
        or struct.unpack_from("<Q", runtime, 8)[0] >> 16 & 0xFF != minor
    ):
        raise UnknownLayout(f"layout of Python 3.{minor} not recognised: offsets out of range")
    groups, at = [], 0
    for names in _GROUPS[minor]:
        groups.append(dict(zip(names, values[at : at + len(names)], strict=True)))
        at += len(names)
    run, interpreter, thread, frame, code = groups
    if max(frame["owner"], frame["instr_ptr"] + 7) >= _FRAME_READ or frame["executable"] % 8:
        raise UnknownLayout(f"layout of Python 3.{minor} not recognised: a frame is too long")
    if max(code[name] for name in _CODE_READ) + 8 > CODE_BYTES:
        raise UnknownLayout(f"layout of Python 3.{minor} not recognised: code is too long")
    return Layout(
        minor=minor,
        interpreters=run["interpreters_head"],
        interpreter_next=interpreter["next"],
        interpreter_id=interpreter["id"],
        threads=interpreter["threads_head"],
        modules=interpreter["imports_modules"],
        gil=interpreter["ceval_gil"],
        gil_is_pointer=True,
        thread_next=thread["next"],
        thread_id=thread["thread_id"],
        native_id=thread["native_thread_id"],
        # Not published. That it points to a context is part of the check on the live process.
        context=208,
        frame=thread["current_frame"],
        cframe=False,
        cframe_current=0,
        frame_code=frame["executable"],
        back=frame["previous"],
        instr=frame["instr_ptr"],
        owner=frame["owner"],
        # Not published by 3.13; it has not moved since 3.12.
        generator=72,
        frame_bytes=-(-(max(frame["owner"], frame["instr_ptr"] + 7) + 1) // 8) * 8,
        skip_from=3,
        instr_is_index=False,
        tagged=minor >= 14,
        code_start=code["co_code_adaptive"],
        # Not published; it has not moved since 3.11.
        flags=48,
        first_line=code["firstlineno"],
        filename=code["filename"],
        name=code["qualname"],
        linetable=code["linetable"],
        text=40,
    )
