"""The options of `sltrace record` that say what is recorded, as Settings."""

from __future__ import annotations

from collections.abc import Callable, Set
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from sltrace.capture.settings import (
    MOST_A_SECOND,
    TRACE_LABEL_BYTES,
    TRACE_LABELS,
    Filters,
    Go,
    Profiles,
    Python,
    Settings,
    Stacks,
)
from sltrace.cli.address import address
from sltrace.cli.durations import DURATION
from sltrace.cli.files import PATH
from sltrace.cli.recording import filters, with_no_blocked
from sltrace.cli.values import cpu_list, share, size_in_bytes
from sltrace.environment import while_loading
from sltrace.errors import UsageError
from sltrace.model import POLICIES

if TYPE_CHECKING:
    from pathlib import Path

_Command = Callable[..., Any]

_STACKS = {
    "none": (False, False),
    "kernel": (True, False),
    "user": (False, True),
    "both": (True, True),
}
_RATE = click.IntRange(0, MOST_A_SECOND)
_OPTIONS: tuple[Callable[[_Command], _Command], ...] = (
    click.option(
        "--min-latency",
        type=DURATION,
        default=0,
        metavar="TIME",
        help="Keep only single waits at least this long: 100us. The histograms keep all.",
    ),
    click.option("--histogram-only", is_flag=True, help="Keep no single waits: cheapest."),
    with_no_blocked,
    click.option(
        "--stacks",
        type=click.Choice(list(_STACKS)),
        default="none",
        show_default=True,
        help="Stacks of the task that waited.",
    ),
    click.option("--waker-stacks", is_flag=True, help="Also the stacks of the task that woke it."),
    click.option(
        "--stack-min",
        type=DURATION,
        default=0,
        metavar="TIME",
        help="Stacks only for waits at least this long.",
    ),
    click.option(
        "--stack-rate",
        type=_RATE,
        default=0,
        metavar="N",
        help="At most N stacks a second on each CPU.  [default: no cap]",
    ),
    click.option(
        "--python/--no-python",
        "python",
        default=True,
        help="Look into Python processes among --pid or COMMAND.  [default: --python]",
    ),
    click.option(
        "--python-rate",
        type=_RATE,
        default=Python.rate_per_cpu,
        show_default=True,
        metavar="N",
        help="At most N Python stacks a second on each CPU; 0 for no cap.",
    ),
    click.option(
        "--python-loops",
        is_flag=True,
        help="Time each iteration of Python event loops exactly: costs every system call.",
    ),
    click.option(
        "--go/--no-go",
        "go",
        default=True,
        help="Look into Go processes among those recorded.  [default: --go]",
    ),
    click.option(
        "--go-level",
        type=click.IntRange(0, 3),
        help="Of Go processes: 0 memory reads only, 1 one probe, 2 who woke whom, 3 every wait.  "
        "[default: 0 for the whole machine, else 1]",
    ),
    click.option(
        "--go-budget",
        metavar="PERCENT",
        help="Share of a Go process's CPU time that probes may cost: they are on only part of "
        "the time.  [default: 2 at level 1, 7 at level 2, none at level 3]",
    ),
    click.option(
        "--go-trace-label",
        "go_trace_labels",
        multiple=True,
        metavar="KEY",
        help="pprof label that holds a Go service's trace id; repeatable.  "
        f"[default: {', '.join(Go.trace_labels)}]",
    ),
    click.option(
        "--pyroscope-listen",
        "listen",
        metavar="[ADDRESS:]PORT",
        help="Receive what Pyroscope's clients push to the server_address http://ADDRESS:PORT.",
    ),
    click.option(
        "--profile",
        "profiles",
        multiple=True,
        type=PATH,
        metavar="FILE",
        help="A pprof profile to add to the trace when the recording ends. Repeatable.",
    ),
    click.option(
        "--buffer",
        "buffer",
        metavar="SIZE",
        help="Memory of each CPU's ring: 64M.  [default: 12M up to 8 CPUs]",
    ),
)


def settings_options(function: _Command) -> _Command:
    """Adds these options, handed over as `settings`."""

    @wraps(function)
    def with_settings(
        pids: tuple[int, ...],
        cgroups: tuple[str, ...],
        comms: tuple[str, ...],
        cpus: tuple[str, ...],
        policies: tuple[str, ...],
        min_latency: int,
        histogram_only: bool,
        no_blocked: bool,
        stacks: str,
        waker_stacks: bool,
        stack_min: int,
        stack_rate: int,
        python: bool,
        python_rate: int,
        python_loops: bool,
        go: bool,
        go_level: int | None,
        go_budget: str | None,
        go_trace_labels: tuple[str, ...],
        listen: str | None,
        profiles: tuple[Path, ...],
        buffer: str | None,
        **others: Any,
    ) -> Any:
        # NumPy's worker threads would keep the capabilities that the recorder gives up.
        with while_loading({"OPENBLAS_NUM_THREADS": "1"}):
            import numpy  # noqa: F401
        from sltrace.names.proc import resolve_pid

        kernel, user = _STACKS[stacks]
        settings = Settings(
            filters=Filters(
                pids=tuple(resolve_pid(pid) for pid in pids),
                cgroups=cgroups,
                comms=comms,
                cpus=cpu_list(cpus),
                policies=tuple(n for n, name in POLICIES.items() if name in policies),
            ),
            stacks=Stacks(
                kernel=kernel,
                user=user,
                waker=waker_stacks,
                min_ns=stack_min,
                rate_per_cpu=stack_rate,
            ),
            python=Python(wanted=python, rate_per_cpu=python_rate, loops=python_loops),
            go=Go(go, go_level, share(go_budget), _trace_labels(go_trace_labels)),
            profiles=Profiles(None if listen is None else address(listen), profiles),
            min_latency_ns=min_latency,
            histogram_only=histogram_only,
            blocked=not no_blocked,
            ring_bytes=0 if buffer is None else size_in_bytes("--buffer", buffer, "64k", "1G"),
        )
        return function(settings=settings, **others)

    command: _Command = with_settings
    for option in reversed(_OPTIONS):
        command = option(command)
    return filters(command)


def _trace_labels(labels: tuple[str, ...]) -> tuple[str, ...]:
    fit = all(k.isprintable() and 0 < len(k.encode()) <= TRACE_LABEL_BYTES for k in labels)
    if len(labels) > TRACE_LABELS or not fit:
        raise UsageError(
            f"--go-trace-label: at most {TRACE_LABELS} keys of 1 to {TRACE_LABEL_BYTES} bytes",
            "leave out those that do not fit",
        )
    return labels or Go.trace_labels


def refuse_what_does_nothing(
    settings: Settings, loader: str, given: Set[str], *, has_command: bool
) -> None:
    """Raises UsageError where an option was given that another one, or none, makes useless.

    Args:
        settings: What the options say.
        loader: Which one.
        given: The parameters that were given, whatever their defaults are.
        has_command: Whether a command is recorded.
    """
    stacks, python, go, profiles = (
        settings.stacks,
        settings.python,
        settings.go,
        settings.profiles,
    )
    of_python = given & {"python_loops", "python_rate", *(["python"] if python.wanted else [])}
    of_go = given & {"go_level", "go_budget", "go_trace_labels"}
    if settings.histogram_only and stacks.any:
        raise UsageError("--histogram-only keeps no stacks", "leave --stacks out")
    if settings.histogram_only and settings.min_latency_ns:
        raise UsageError("--histogram-only keeps no single waits", "leave --min-latency out")
    if not stacks.any and given & {"stack_min", "stack_rate"}:
        raise UsageError(
            "--stack-min and --stack-rate are about stacks, and none are asked for",
            "give --stacks both, or leave them out",
        )
    if of_python:
        _refuse_of_python(settings, has_command)
    if not go.wanted and of_go:
        raise UsageError(
            "--no-go leaves nothing for --go-level, --go-budget and --go-trace-label",
            "leave them out",
        )
    if settings.histogram_only and of_go and (go.level != 0 or of_go != {"go_level"}):
        raise UsageError(
            "--histogram-only keeps no waits of goroutines",
            "leave --go-level, --go-budget and --go-trace-label out",
        )
    if go.level == 0 and go.budget is not None:
        raise UsageError("--go-level 0 has no probes", "leave --go-budget out")
    if loader != "libbpf" and (of_python or of_go or (go.wanted and "go" in given)):
        raise UsageError(
            f"--loader {loader} looks into no Go and no Python process",
            "leave the options that are about those out",
        )
    if loader != "libbpf" and (profiles.listen or profiles.files):
        raise UsageError(
            f"--loader {loader} takes no profiles in", "give them to `sltrace report --pprof`"
        )


def _refuse_of_python(settings: Settings, has_command: bool) -> None:
    of_python = "--python, --python-loops and --python-rate"
    for without, given in (
        ("--no-python", not settings.python.wanted),
        ("--histogram-only", settings.histogram_only),
    ):
        if given:
            raise UsageError(f"{without} leaves nothing for {of_python}", "leave them out")
    if not settings.filters.pids and not has_command:
        raise UsageError(
            f"{of_python} are about Python processes that are named",
            "give --pid or a command, or leave them out",
        )
