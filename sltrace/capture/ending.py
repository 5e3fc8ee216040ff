"""When a recording ends: Ctrl-C, time, size, the command's exit, the last target's, a full disk."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType

from sltrace.capture.settings import Filters, Settings
from sltrace.errors import TargetError, UsageError
from sltrace.trace.folder import TraceFolder

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_OF_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
"""Ignored by the interpreter for itself: a command has them as without it."""
DISK_IS_FULL = "the disk is nearly full"
_NOT_FOUND, _NOT_RUNNABLE = 127, 126  # what a shell says


class Ending:
    """Watches for the end; starts the command, held back until `begin`.

    Args:
        command_line: What to run and record; empty for none.
        pids: Processes whose last exit ends the recording; empty for none.
        duration_ns: How long to record; None for no limit.
        max_bytes: How large the trace may grow; 0 for no limit.
    """

    def __init__(
        self,
        command_line: list[str],
        pids: tuple[int, ...],
        duration_ns: int | None,
        max_bytes: int,
    ) -> None:
        if command_line and pids:
            raise UsageError("-- COMMAND and --pid exclude each other", "leave one of them out")
        if command_line:
            _find(command_line[0])
        self._command_line = command_line
        self._watched = {pid: _watch(pid) for pid in pids}
        self._duration_ns = duration_ns
        self._max_bytes = max_bytes
        self._deadline = 0
        self._signalled = self._reaped = False
        self._interrupts = 0
        self.child_pid = 0
        self.exit_code = 0
        self.reason = ""

    def __enter__(self) -> Ending:
        # A signal that comes meanwhile waits until the command is there to get it.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._previous = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        if self._previous[signal.SIGHUP] == signal.SIG_IGN:
            # Below nohup. SIGINT is ignored by whatever a script starts with &.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            if self._command_line:
                self._hold_child(blocked)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self.child_pid and not self.reason:
            self._send(signal.SIGTERM)
        for fd in self._watched.values():
            os.close(fd)

    def only_child(self, settings: Settings) -> Settings:
        """The settings with the command as the only process recorded."""
        filters: Filters = replace(settings.filters, pids=(self.child_pid,))
        return replace(settings, filters=filters)

    def begin(self) -> None:
        """Starts the clock, and lets the command run."""
        if self._duration_ns is not None:
            self._deadline = time.monotonic_ns() + self._duration_ns
        if self.child_pid:
            # A signal that came while the probes were loaded may have ended it.
            with contextlib.suppress(BrokenPipeError):
                os.write(self._gate, b"g")
            os.close(self._gate)

    def describe(self) -> str:
        """What will end it, for people."""
        lasting = "" if self._duration_ns is None else f"for {self._duration_ns / 1e9:g} s"
        until = lasting or "until Ctrl-C"
        if self._command_line:
            until = f"until {self._command_line[0]} ends"
            until += f", {lasting} at most" if lasting else ""
        return f"{until}, {self._size} at most" if self._max_bytes else until

    @property
    def _size(self) -> str:
        return f"{self._max_bytes / (1 << 20):g} MiB"

    def reached(self, folder: TraceFolder) -> bool:
        """Whether it is over; sets `reason`. A command that is not to go on is told to end.

        Args:
            folder: The trace's.
        """
        if self._signalled and not self.child_pid:
            self.reason = "stopped"
        elif self._deadline and time.monotonic_ns() >= self._deadline:
            self._stop("time is up")
        elif self._max_bytes and folder.holds(self._max_bytes):
            self._stop(f"the trace has grown to {self._size}")
        elif folder.is_filling:
            # Which is no fault of the command's: it goes on, without being recorded.
            self.reason = DISK_IS_FULL
        elif self.child_pid:
            pid, status = os.waitpid(self.child_pid, os.WNOHANG)
            if pid:
                self._reap(status)
                self.reason = f"{self._command_line[0]} ended"
        elif self._watched and all(map(_exited, self._watched.values())):
            self.reason = "the recorded processes have exited"
        return bool(self.reason)

    def _stop(self, reason: str) -> None:
        self.reason = reason
        if self.child_pid:
            self._send(signal.SIGTERM)

    def _send(self, number: int) -> None:
        """Sends the command a signal, and lets it go on: stopped, it would not get it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.child_pid, number)
            os.kill(self.child_pid, signal.SIGCONT)

    def wait(self) -> None:
        """Until the command has ended, which may take its time to; sets `exit_code`."""
        if self.child_pid and not self._reaped:
            self._reap(os.waitpid(self.child_pid, 0)[1])

    def settled(self) -> None:
        """From here on a signal ends the process at once, as if it had come to its end.

        The trace is whole then, and what is said of it may take long. In the middle of a query or
        of the interpreter's own end, an exception would now and then be a crash.
        """
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda *_: os._exit(self.exit_code))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True
        # Once the command was waited for, its number may be another's.
        if not self.child_pid or self._reaped:
            return
        if number != signal.SIGINT:
            self._send(number)
            return
        # From the terminal the command gets Ctrl-C itself, and may go on with it. Where it came
        # from elsewhere it may have gone to both, too; who repeats it wants an end.
        self._interrupts += 1
        if self._interrupts > 1 and not _in_foreground():
            self._send(signal.SIGTERM)

    def _reap(self, status: int) -> None:
        self._reaped = True
        code = os.waitstatus_to_exitcode(status)
        self.exit_code = 128 - code if code < 0 else code

    def _hold_child(self, blocked: set[int]) -> None:
        """Forks the command; it waits at a pipe, so that its whole life is recorded.

        Args:
            blocked: Signals that the command is to have blocked; here all of _SIGNALS are.
        """
        gate, self._gate = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(self._gate)
            for number, before in self._previous.items():
                ignored = before == signal.SIG_IGN
                signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)
            for number in _OF_PYTHON:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            code = _NOT_FOUND
            try:
                if os.read(gate, 1):
                    os.execvp(self._command_line[0], self._command_line)
            except OSError as err:
                code = _NOT_FOUND if isinstance(err, FileNotFoundError) else _NOT_RUNNABLE
                os.write(2, f"sltrace: {self._command_line[0]}: {err.strerror}\n".encode())
            os._exit(code)
        os.close(gate)
        self.child_pid = pid


def _find(program: str) -> None:
    """Looks for what is to be run before anything is begun, or written.

    Raises:
        TargetError: It is not there, or not a program.
    """
    if shutil.which(program):
        return
    if "/" in program and Path(program).is_dir():
        raise TargetError(f"{program} is a folder", "name a program")
    if "/" in program and Path(program).exists():
        raise TargetError(f"{program} is not executable", f"chmod +x {program}, or name a program")
    hint = "check its name, or give its path"
    if program.endswith(".slt"):
        hint = f"to record into it: -o {program}"
    raise TargetError(f"there is no command {program or repr(program)}", hint)


def _in_foreground() -> bool:
    """Whether Ctrl-C in a terminal goes to this process, and so to the command in its group."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _exited(pidfd: int) -> bool:
    readable, _, _ = select.select([pidfd], [], [], 0)
    return bool(readable)


def _watch(pid: int) -> int:
    """A descriptor that becomes readable when the process exits.

    Raises:
        TargetError: There is no such process.
    """
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise TargetError(f"there is no process {pid}", "pgrep -a NAME lists them") from None
