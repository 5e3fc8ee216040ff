"""What can go wrong, each with the exit code it ends in and what to do about it.

Exit codes (also in docs/cli.md): 1 anything else, 2 wrong use, 3 this machine or user cannot
record, 4 the target is not there, 5 the trace cannot be read, 6 the output cannot be written.
"""

from __future__ import annotations

MORE_FILES = "raise the limit of open files (ulimit -n 65536)"
"""What to do where no file can be opened any more."""


class SltraceError(Exception):
    """An error the user can act on: printed as one line, never as a traceback.

    Args:
        message: What is wrong, with the name it is about.
        hint: What to type or change next.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(SltraceError):
    """Options that contradict each other or cannot be parsed."""

    exit_code = 2


class CannotRecord(SltraceError):
    """This kernel, machine or user cannot run the probes."""

    exit_code = 3


class TargetError(SltraceError):
    """The process, cgroup or command to record is not there."""

    exit_code = 4


class TraceError(SltraceError):
    """The trace is missing, foreign, damaged or from a newer sltrace."""

    exit_code = 5


class OutputError(SltraceError):
    """The output exists already or cannot be written."""

    exit_code = 6
