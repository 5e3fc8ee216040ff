"""The `sltrace` command: loads a subcommand only when it is run, and turns errors into one line."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

import click

from sltrace import __version__
from sltrace.cli import statusline, streams
from sltrace.errors import MORE_FILES, CannotRecord, OutputError, SltraceError
from sltrace.export.text import printable

_COMMANDS = {
    "record": "Record scheduling waits of the machine, some processes or a command.",
    "top": "Watch waits live in the terminal.",
    "stat": "Show counts, totals and percentiles of a trace's waits.",
    "blame": "Show who ran while others waited.",
    "diagnose": "Say what is wrong, and what to do about it.",
    "explain": "Show why one request was slow, as a timeline of its waits.",
    "diff": "Show what is slower in one trace, or part of one, than in another.",
    "check": "Test a trace against rules, for pipelines and canaries.",
    "merge": "Make one trace of several from one incident.",
    "python": "Show who held Python's GIL and who waited, event loops, locks, collections.",
    "go": "Say what is wrong with the scheduling of Go processes in a trace.",
    "chain": "Show who blocked whom among goroutines.",
    "report": "Make an HTML page with heatmap and flame graphs.",
    "serve": "Show a trace in the browser, exact at any zoom.",
    "export": "Convert a trace to pprof, folded stacks, Parquet or JSON.",
    "doctor": "Say what this machine can record, and what is missing.",
    "completion": "Print the script that completes sltrace's commands in a shell.",
}
"""Each is `command` in the module of that name. The help is here, so that listing loads none."""

_ALIKE = 0.6
_COMPLETE = "_SLTRACE_COMPLETE"
_UNMAPPED = "failed to map segment from shared object"
"""What the dynamic linker says where a library finds no room."""
_BROKEN_PIPE = 141
_INTERRUPTED = 130


class _LazyGroup(click.Group):
    """Commands by module name, imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"sltrace.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        try:
            # It prints what --help and --version ask for.
            return super().make_context(*args, **extra)
        except BrokenPipeError:
            raise _reader_is_gone() from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            raise _reader_is_gone() from None
        except KeyboardInterrupt as err:
            # Closes the line that the terminal's ^C is in; Click's own may fail.
            streams.say("")
            raise click.Abort from err
        return result


def _reader_is_gone() -> click.exceptions.Exit:
    streams.abandon(sys.stdout)
    return click.exceptions.Exit(_BROKEN_PIPE)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sltrace")
def cli() -> None:
    """Why did this request wait? Records every scheduling wait and shows who caused it."""


def run(arguments: list[str]) -> int:
    """Runs one command line.

    Returns:
        The exit code: what the command returned, or that of its error (docs/cli.md).
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if _COMPLETE in os.environ:
        from sltrace.cli import shells

        shells.register()
    try:
        result = cli.main(
            arguments,
            prog_name="sltrace",
            complete_var=_COMPLETE,
            standalone_mode=False,
            # None: where there is a terminal (https://no-color.org).
            color=False if os.environ.get("NO_COLOR") or statusline.is_dumb() else None,
        )
    except SltraceError as err:
        return _fail(err.exit_code, str(err))
    except click.UsageError as err:
        if arguments == []:
            streams.say(err.format_message())
            return err.exit_code
        return _fail(err.exit_code, _wrong_use(err, arguments))
    except click.ClickException as err:
        return _fail(err.exit_code, err.format_message())
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except OSError as err:
        if err.errno in (errno.EMFILE, errno.ENFILE):
            return _fail(CannotRecord.exit_code, f"too many files are open; {MORE_FILES}")
        streams.abandon(sys.stdout)
        what = f"cannot read or write {err.filename or 'standard output'}"
        return _fail(OutputError.exit_code, f"{what}: {err.strerror or err}")
    except Exception as err:
        # DuckDB makes an error of its own out of what ends a query.
        if isinstance(err.__cause__, KeyboardInterrupt):
            return _INTERRUPTED
        if isinstance(err.__cause__, SystemExit):
            raise err.__cause__ from None
        if os.environ.get("SLTRACE_DEBUG"):
            raise
        if isinstance(err, MemoryError) or _UNMAPPED in str(err):
            return _fail(1, "there is not enough memory; free some, or raise its limit (ulimit -v)")
        what = f"{type(err).__name__}: {err}"
        return _fail(1, f"internal error, {what}; SLTRACE_DEBUG=1 shows where: please report it")
    return result if isinstance(result, int) else 0


def _wrong_use(err: click.UsageError, arguments: list[str]) -> str:
    message = err.format_message()
    if isinstance(err, click.NoSuchOption):
        # For Click, dashes are letters, so that `--top` is like `--go`.
        alike = [o for o in err.possibilities or () if _likeness(o, err.option_name) >= _ALIKE]
        message = err.message.rstrip(".")
        message += f" (did you mean {' or '.join(alike)}?)" if alike else ""
    # Of an option without its value Click does not say whose it is.
    path = err.ctx.command_path if err.ctx else " ".join(["sltrace", *_command(arguments)])
    return f"{message.rstrip('.')}; see {path} --help"


def _likeness(option: str, other: str) -> float:
    from difflib import SequenceMatcher

    return SequenceMatcher(None, option.strip("-"), other.strip("-")).ratio()


def _command(arguments: list[str]) -> list[str]:
    return [a for a in arguments if a in _COMMANDS][:1]


def main() -> NoReturn:
    """The `sltrace` program, once its modules are read."""
    _replace_closed_streams()
    sys.meta_path.insert(0, _WithoutUnused())
    # As usual, so that what was put on the disk for a while is removed.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _leave)
    try:
        if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    finally:
        # What was asked for is done: a Ctrl-C while the interpreter ends is no failure of it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _replace_closed_streams() -> None:
    """What goes to a stream that was closed (`>&-`) is thrown away.

    Python has None for it, and a file that is opened later would get its number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


class _WithoutUnused:
    """Hides what pyarrow imports for nothing: pandas wherever it is (57 MB, 0.4 s, measured), and
    its readers of files in clouds (3 MB)."""

    _NAMES = frozenset(("pandas", *(f"pyarrow._{n}" for n in ("s3fs", "gcsfs", "azurefs", "hdfs"))))

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Part of `importlib.abc.MetaPathFinder`."""
        if name in _WithoutUnused._NAMES:
            raise ModuleNotFoundError("not used by sltrace", name=name)


def _fail(code: int, message: str) -> int:
    line = " ".join(message.split())
    streams.say(f"sltrace: {printable(line)}")
    return code
