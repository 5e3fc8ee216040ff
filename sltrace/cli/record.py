"""`sltrace record`: measure and write a trace."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

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
from sltrace.cli.durations import DURATION, SECONDS
from sltrace.cli.recording import default_path, filters, with_loader, with_no_blocked
from sltrace.cli.statusline import progress, show_line
from sltrace.cli.values import cpu_list, share, size_in_bytes
from sltrace.errors import CannotRecord, OutputError, SltraceError, UsageError
from sltrace.model import POLICIES

if TYPE_CHECKING:
    from collections.abc import Callable

_STACKS = {
    "none": (False, False),
    "kernel": (True, False),
    "user": (False, True),
    "both": (True, True),
}
_RATE = click.IntRange(0, MOST_A_SECOND)


# What follows COMMAND is its own, as behind perf, strace and sudo, also where -- was forgotten.
@click.command("record", context_settings={"allow_interspersed_args": False})
@click.argument("command_line", metavar="[-- COMMAND ...]", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Trace to write, a folder.  [default: HOST-TIME.slt]",
)
@click.option("-f", "--force", is_flag=True, help="Replace a trace that is there.")
@click.option(
    "-d",
    "--duration",
    type=SECONDS,
    metavar="SECONDS",
    help="Stop after this long: 30, 500ms, 2m.  [default: until Ctrl-C]",
)
@click.option(
    "--max-size",
    metavar="SIZE",
    help="Stop when the trace has grown to this: 500M, 2G.  [default: no limit]",
)
@filters
@click.option(
    "--min-latency",
    type=DURATION,
    default=0,
    metavar="TIME",
    help="Keep single waits from this on, as 100us; the histograms keep all.",
)
@click.option("--histogram-only", is_flag=True, help="Keep no single waits: cheapest.")
@with_no_blocked
@click.option(
    "--stacks",
    type=click.Choice(list(_STACKS)),
    default="none",
    show_default=True,
    help="Stacks of the task that waited.",
)
@click.option("--waker-stacks", is_flag=True, help="Also the stacks of the task that woke it.")
@click.option(
    "--stack-min",
    type=DURATION,
    default=0,
    metavar="TIME",
    help="Stacks only for waits from this on.",
)
@click.option(
    "--stack-rate",
    type=_RATE,
    default=0,
    metavar="N",
    help="At most N stacks a second on each CPU.  [default: no cap]",
)
@click.option(
    "--python/--no-python",
    "python",
    default=True,
    help="Look into Python processes among --pid or COMMAND.  [default: --python]",
)
@click.option(
    "--python-rate",
    type=_RATE,
    default=Python.rate_per_cpu,
    show_default=True,
    metavar="N",
    help="At most N Python stacks a second on each CPU; 0 for no cap.",
)
@click.option(
    "--python-loops",
    is_flag=True,
    help="Time each iteration of Python event loops exactly: costs every system call.",
)
@click.option(
    "--go/--no-go",
    "go",
    default=True,
    help="Look into Go processes among those recorded.  [default: --go]",
)
@click.option(
    "--go-level",
    type=click.IntRange(0, 3),
    help="Of Go processes: 0 memory reads only, 1 one probe, 2 who woke whom, 3 every wait.  "
    "[default: 0 of the whole machine, else 1]",
)
@click.option(
    "--go-budget",
    metavar="PERCENT",
    help="Most that probes may cost a Go process, of its CPU time: they are on part of the time.  "
    "[default: 2 at level 1, 7 at level 2, none at level 3]",
)
@click.option(
    "--go-trace-label",
    "go_trace_labels",
    multiple=True,
    metavar="KEY",
    help="pprof label that holds a Go service's trace id; repeatable.  "
    f"[default: {', '.join(Go.trace_labels)}]",
)
@click.option(
    "--pyroscope-listen",
    "listen",
    metavar="[ADDRESS:]PORT",
    help="Receive what Pyroscope's clients push, as their server_address http://ADDRESS:PORT.",
)
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A pprof profile to take into the trace when the recording ends. Repeatable.",
)
@with_loader
@click.option(
    "--buffer",
    "buffer",
    metavar="SIZE",
    help="Memory of each CPU's ring, as 64M.  [default: 12M up to 8 CPUs]",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary.")
def command(
    command_line: tuple[str, ...],
    output: Path | None,
    force: bool,
    duration: int | None,
    max_size: str | None,
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
    loader: str,
    buffer: str | None,
    quiet: bool,
) -> None:
    """Record every scheduling wait until Ctrl-C, or while COMMAND runs.

    Without a filter the whole machine is recorded. Filters of one kind add up, filters of
    different kinds must all match; all are applied in the kernel.
    """
    # NumPy's worker threads would keep the capabilities that this thread gives up.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from sltrace.names.processes import resolve_pid

    if histogram_only and (stacks != "none" or waker_stacks):
        raise UsageError("--histogram-only keeps no stacks", "leave --stacks out")
    if histogram_only and min_latency:
        raise UsageError("--histogram-only keeps no single waits", "leave --min-latency out")
    if stacks == "none" and not waker_stacks and (stack_min or stack_rate):
        raise UsageError(
            "--stack-min and --stack-rate are about stacks, and none are asked for",
            "give --stacks both, or leave them out",
        )
    of_python = python_loops or python_rate != Python.rate_per_cpu
    of_go = go_level is not None or go_budget is not None or bool(go_trace_labels)
    without = "--no-python" if not python else "--histogram-only" if histogram_only else ""
    if without and of_python:
        raise UsageError(
            f"{without} leaves nothing for --python-loops and --python-rate", "leave them out"
        )
    if of_python and not pids and not command_line:
        raise UsageError(
            "--python-loops and --python-rate are about Python processes that are named",
            "give --pid or a command, or leave them out",
        )
    if not go and of_go:
        raise UsageError(
            "--no-go leaves nothing for --go-level, --go-budget and --go-trace-label",
            "leave them out",
        )
    if go_level == 0 and go_budget is not None:
        raise UsageError("--go-level 0 has no probes", "leave --go-budget out")
    if loader != "libbpf" and (of_python or of_go):
        raise UsageError(
            f"--loader {loader} looks into no Go and no Python process",
            "leave the options that are about those out",
        )
    if loader != "libbpf" and (listen or profiles):
        raise UsageError(
            f"--loader {loader} takes no profiles in", "give them to `sltrace report --pprof`"
        )
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
        go=_go(go, go_level, share(go_budget), go_trace_labels),
        profiles=Profiles(address(listen) if listen else None, profiles),
        min_latency_ns=min_latency,
        histogram_only=histogram_only,
        blocked=not no_blocked,
        ring_bytes=size_in_bytes("--buffer", buffer, "64k", "1G") if buffer else 0,
    )
    path = output or default_path()
    most = size_in_bytes("--max-size", max_size, "1M", "1024G") if max_size else 0
    sys.exit(_record(path, settings, loader, force, duration, most, list(command_line), quiet))


def _record(
    path: Path,
    settings: Settings,
    loader: str,
    force: bool,
    duration_ns: int | None,
    max_bytes: int,
    command_line: list[str],
    quiet: bool,
) -> int:
    """Runs the recording; its exit code is the command's where there is one."""
    from sltrace.capture.ending import Ending
    from sltrace.capture.runtimes import sources
    from sltrace.capture.session import Recording
    from sltrace.names.processes import with_children

    with Ending(command_line, settings.filters.pids, duration_ns, max_bytes) as ending:
        if ending.child_pid:
            settings = ending.only_child(settings)
        else:
            # Only those that were named decide when it ends.
            pids = with_children(settings.filters.pids)
            settings = replace(settings, filters=replace(settings.filters, pids=pids))
        try:
            recording = Recording(
                path,
                settings,
                loader=loader,
                force=force,
                command_line=sys.argv,
                sources=sources(settings.filters.pids, settings, "".join(command_line[:1]))
                if loader == "libbpf"
                else (),
                say=_say(quiet),
            )
        except CannotRecord as err:
            if loader != "libbpf":
                raise
            from sltrace.capture.checkup import reason

            raise reason(err) from err
        try:
            recording.drop_privileges()
            if not quiet:
                click.echo(f"recording into {path}, {ending.describe()}", err=True)
            ending.begin()
            recording.run(partial(ending.reached, recording.holds), progress(quiet))
        except OutputError:
            recording.abandon()
            raise
        show_line(quiet, "naming addresses, joining segments ...")
        recording.finish(ending.reason)
        show_line(quiet, f"waiting for {command_line[0]} to end ..." if command_line else "")
        ending.wait()
        ending.settled()
        show_line(quiet, "")
        if not quiet:
            from sltrace.cli.summary import print_summary

            print_summary(path, ending.reason)
    if failures := recording.failures:
        what = "; ".join(f"{name}: {why}" for name, why in failures.items())
        raise SltraceError(
            f"internal error in what records {what}; all else was recorded",
            f"please report it, with sources.{next(iter(failures))}.failed of {path / 'meta.json'}",
        )
    return ending.exit_code


def _go(wanted: bool, level: int | None, budget: float | None, labels: tuple[str, ...]) -> Go:
    fit = all(k.isprintable() and 0 < len(k.encode()) <= TRACE_LABEL_BYTES for k in labels)
    if len(labels) > TRACE_LABELS or not fit:
        raise UsageError(
            f"--go-trace-label: at most {TRACE_LABELS} keys of 1 to {TRACE_LABEL_BYTES} bytes",
            "leave out those that do not fit",
        )
    return Go(wanted, level, budget, labels or Go.trace_labels)


def _say(quiet: bool) -> Callable[[str], None]:
    return (lambda line: None) if quiet else (lambda line: click.echo(line, err=True))
