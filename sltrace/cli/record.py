"""`sltrace record`: measure and write a trace."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click

from sltrace.cli.durations import RECORDED
from sltrace.cli.files import PATH
from sltrace.cli.recording import default_path, with_loader
from sltrace.cli.recordsettings import refuse_what_does_nothing, settings_options
from sltrace.cli.shared import force_trace_option, given
from sltrace.cli.statusline import StatusLine
from sltrace.cli.values import size_in_bytes
from sltrace.errors import CannotRecord, OutputError, SltraceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from sltrace.capture.session import Recording
    from sltrace.capture.settings import Settings


class _Record(click.Command):
    """Where a script's COMMAND came out empty it would record until Ctrl-C instead."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        announced = args[-1:] == ["--"] and not ctx.resilient_parsing
        rest = super().parse_args(ctx, args)
        if announced and not ctx.params["command_line"]:
            raise UsageError("there is no command behind --", "name one, or leave -- out")
        return rest


# What follows COMMAND is its own, as behind perf, strace and sudo, also where -- was forgotten.
@click.command("record", cls=_Record, context_settings={"allow_interspersed_args": False})
@click.argument("command_line", metavar="[-- COMMAND ...]", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "-o",
    "--output",
    type=PATH,
    help="Trace to write, a folder.  [default: HOST-TIME.slt]",
)
@force_trace_option
@click.option(
    "-d",
    "--duration",
    type=RECORDED,
    metavar="SECONDS",
    help="Stop after this long: 30, 500ms, 2m.  [default: until Ctrl-C]",
)
@click.option(
    "--max-size",
    metavar="SIZE",
    help="Stop when the trace has grown to this: 500M, 2G.  [default: no limit]",
)
@settings_options
@with_loader
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary.")
def command(
    command_line: tuple[str, ...],
    output: Path | None,
    force: bool,
    duration: int | None,
    max_size: str | None,
    settings: Settings,
    loader: str,
    quiet: bool,
) -> None:
    """Record every scheduling wait until Ctrl-C, or while COMMAND runs.

    Without a filter the whole machine is recorded. Filters of one kind add up, filters of
    different kinds must all match; all are applied in the kernel.
    """
    refuse_what_does_nothing(settings, loader, given(), has_command=bool(command_line))
    path = output or default_path()
    most = 0 if max_size is None else size_in_bytes("--max-size", max_size, "1M", "1024G")
    code = _record(
        path,
        settings,
        loader=loader,
        force=force,
        duration_ns=duration,
        max_bytes=most,
        command_line=list(command_line),
        quiet=quiet,
    )
    sys.exit(code)


def _record(
    path: Path,
    settings: Settings,
    *,
    loader: str,
    force: bool,
    duration_ns: int | None,
    max_bytes: int,
    command_line: list[str],
    quiet: bool,
) -> int:
    """Runs the recording; its exit code is the command's where there is one."""
    from sltrace.capture.ending import DISK_IS_FULL, Ending
    from sltrace.names.proc import with_children

    terminal = StatusLine(quiet=quiet)
    with Ending(command_line, settings.filters.pids, duration_ns, max_bytes) as ending:
        if ending.child_pid:
            settings = ending.only_child(settings)
        else:
            # Only those that were named decide when it ends.
            pids = with_children(settings.filters.pids)
            settings = replace(settings, filters=replace(settings.filters, pids=pids))
        program = "".join(command_line[:1])
        recording = _begin(path, settings, program, loader=loader, force=force, say=terminal.say)
        try:
            recording.drop_privileges()
            terminal.say(f"recording into {path}, {ending.describe()}")
            ending.begin()
            recording.run(partial(ending.reached, recording.folder), terminal.show_status)
            terminal.show("naming addresses, joining segments ...")
            recording.finish(ending.reason)
        except OutputError:
            recording.abandon()
            raise
        terminal.show(f"waiting for {program} to end ..." if program else "")
        ending.wait()
        ending.settled()
        terminal.show("")
        if not quiet:
            from sltrace.cli.summary import print_summary

            print_summary(path, ending.reason)
    if ending.reason == DISK_IS_FULL:
        raise OutputError(
            f"{ending.reason}, so the recording was ended: {path} is whole until then",
            "free some space, or choose another -o; --min-latency and --comm keep it small",
        )
    _refuse_failures(path, recording.failures)
    return ending.exit_code


def _begin(
    path: Path,
    settings: Settings,
    program: str,
    *,
    loader: str,
    force: bool,
    say: Callable[[str], None],
) -> Recording:
    """A recording that has begun.

    Raises:
        CannotRecord: This machine or user cannot; says what `sltrace doctor` finds missing.
    """
    from sltrace.capture.runtimes import sources
    from sltrace.capture.session import Recording

    try:
        return Recording(
            path,
            settings,
            loader=loader,
            force=force,
            command_line=sys.argv,
            sources=sources(settings.filters.pids, settings, program) if loader == "libbpf" else (),
            say=say,
        )
    except CannotRecord as err:
        if loader != "libbpf":
            raise
        from sltrace.capture.checkup import reason

        raise reason(err) from err


def _refuse_failures(path: Path, failures: Mapping[str, str]) -> None:
    """Raises SltraceError where an error has ended a source."""
    if failures:
        what = "; ".join(f"{name}: {why}" for name, why in failures.items())
        raise SltraceError(
            f"internal error in what records {what}; all else was recorded",
            f"please report it, with sources.{next(iter(failures))}.failed of {path / 'meta.json'}",
        )
