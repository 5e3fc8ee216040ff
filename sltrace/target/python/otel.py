"""Where a Python process keeps the OpenTelemetry context of its threads and tasks.

The SDK's names for it are private, so each step is checked; where one is not as expected there
are no trace ids, and the reason is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sltrace.target.memory import Memory, Unreadable
from sltrace.target.python.interpreter import Interpreter
from sltrace.target.python.objects import Objects
from sltrace.target.python.statics import static_types

_VAR_HASH = 56
_CONTEXT, _PROPAGATION, _SPAN, _HELPER = MODULES = (
    "opentelemetry.context",
    "opentelemetry.trace.propagation",
    "opentelemetry.trace.span",
    "sltrace.otel",
)


class NoOpenTelemetry(Exception):
    """The process has not imported it (yet)."""


@dataclass(frozen=True)
class Variable:
    """A ContextVar: its address, and its hash as the contexts' tree uses it."""

    address: int
    hash: int


@dataclass(frozen=True)
class OTel:
    """OpenTelemetry's context variable and what is in it.

    Attributes:
        variable: ContextVar of the current context.
        span_key: Address of the str under which a context has the current span.
        span_context: Address of the type SpanContext.
    """

    variable: Variable
    span_key: int
    span_context: int


@dataclass(frozen=True)
class Nodes:
    """Types of the nodes of a context's tree of variables."""

    bitmap: int
    array: int


def find_otel(memory: Memory, interpreter: Interpreter, modules: Mapping[str, int]) -> OTel:
    """Looks the SDK's own variables up in its modules.

    Args:
        memory: Of the process.
        interpreter: In it.
        modules: Dicts of those of MODULES that are imported.

    Raises:
        NoOpenTelemetry: They are not imported.
        Unreadable: They are not as expected, or change.
    """
    objects = Objects(memory, interpreter.layout)
    context, propagation, span = (_of(modules, m) for m in (_CONTEXT, _PROPAGATION, _SPAN))
    runtime_context = objects.dict_get(context, "_RUNTIME_CONTEXT")
    variable = objects.attribute(runtime_context, "_current_context")
    return OTel(
        variable=_variable(memory, objects, variable),
        span_key=objects.dict_get(propagation, "_SPAN_KEY"),
        span_context=objects.dict_get(span, "SpanContext"),
    )


def find_record(memory: Memory, interpreter: Interpreter, modules: Mapping[str, int]) -> Variable:
    """The variable of the optional helper `sltrace.otel`; arguments as of `find_otel`.

    Raises:
        NoOpenTelemetry: It is not imported.
        Unreadable: It is not as expected, or changes.
    """
    objects = Objects(memory, interpreter.layout)
    return _variable(memory, objects, objects.dict_get(_of(modules, _HELPER), "RECORD"))


def find_nodes(memory: Memory, interpreter: Interpreter, proc: Path = Path("/proc")) -> Nodes:
    """The types of nodes; also while no thread has a context, as in many that live shortly.

    Args:
        memory: Of the process.
        interpreter: In it.
        proc: Where /proc is.

    Raises:
        Unreadable: The process is gone, or its interpreter is not as expected.
    """
    return Nodes(*static_types(memory, interpreter, ("hamt_bitmap_node", "hamt_array_node"), proc))


def _of(modules: Mapping[str, int], name: str) -> int:
    if name not in modules:
        raise NoOpenTelemetry(f"{name} is not imported")
    return modules[name]


def _variable(memory: Memory, objects: Objects, address: int) -> Variable:
    if "ContextVar" not in objects.type_name(address):
        raise Unreadable("no ContextVar")
    value = memory.i64(address + _VAR_HASH) & (1 << 64) - 1
    short = (value ^ value >> 32) & 0xFFFFFFFF
    # -1 means an error in C, so no hash is.
    return Variable(address, 0xFFFFFFFE if short == 0xFFFFFFFF else short)
