"""Starts a tracer, waits until it is attached, and stops it the way a user would."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

OUT = "{out}"
"""Stands for the folder in a tool's command that takes its output."""

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 60.0
_RUNQLAT_BT = (Path("/usr/sbin/runqlat.bt"), Path("/usr/share/bpftrace/tools/runqlat.bt"))


@dataclass(frozen=True)
class Tool:
    """A tracer to measure.

    Attributes:
        name: Row of the table.
        command: What to start; empty for "none". OUT in it is replaced.
        ready: Text it prints once it is attached; without one, `settle_s` is waited instead.
        settle_s: Seconds between readiness and the load.
        skip: Why it cannot run here; empty if it can.
        bound: Most that its ratio to "none" may be, where the project promises one.
    """

    name: str
    command: Sequence[str] = ()
    ready: str = ""
    settle_s: float = 0.2
    skip: str = ""
    bound: float | None = None


class ToolError(Exception):
    """A tracer did not start, or ended by itself."""


@dataclass
class Running:
    """A tracer at work.

    Attributes:
        pid: Its process id.
        started_ns: When it was started (CLOCK_MONOTONIC).
        ready_s: From then until it was attached.
        lines: The last it printed.
        cpu_s: User and system time of its whole life, known once it has stopped.
    """

    pid: int
    started_ns: int
    ready_s: float = 0.0
    lines: list[str] = field(default_factory=list)
    cpu_s: float = 0.0


@contextmanager
def running(tool: Tool, folder: Path) -> Iterator[Running]:
    """Runs `tool` around the block, from attached to stopped by SIGINT.

    Args:
        tool: What to run.
        folder: Where its output goes.

    Raises:
        ToolError: It did not become ready, or did not live until the end of the block.
    """
    command = [part.replace(OUT, str(folder)) for part in tool.command]
    started_ns = time.monotonic_ns()
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    state = Running(process.pid, started_ns)
    ready = threading.Event()
    reader = threading.Thread(target=_read, args=(process, tool.ready, state.lines, ready))
    reader.start()
    try:
        if tool.ready and not ready.wait(_START_TIMEOUT_S):
            raise ToolError(f"did not get ready: {_last(state.lines)}")
        state.ready_s = (time.monotonic_ns() - started_ns) / 1e9
        time.sleep(tool.settle_s)
        if _ended(process.pid):
            raise ToolError(f"ended at once: {_last(state.lines)}")
        yield state
        if _ended(process.pid):
            raise ToolError(f"ended during the load: {_last(state.lines)}")
    finally:
        _stop(process, state)
        reader.join()


def _read(
    process: subprocess.Popen[bytes], ready: str, lines: list[str], event: threading.Event
) -> None:
    assert process.stdout is not None
    with process.stdout as stream:
        # By chunk: progress lines that end in a carriage return count as lines too.
        tail = ""
        while chunk := os.read(stream.fileno(), 65536):
            tail += chunk.decode("utf-8", "replace").replace("\r", "\n")
            if ready and ready in tail:
                event.set()
            *whole, tail = tail.split("\n")
            lines.extend(whole)
            del lines[:-50]
    lines.append(tail)
    event.set()


def _ended(pid: int) -> bool:
    """Whether a child is gone, without reaping it."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _stop(process: subprocess.Popen[bytes], state: Running) -> None:
    """SIGINT, then SIGKILL; reaps by wait4 for the CPU time of the whole life."""
    # os.kill, not Popen's: that would reap a tool that has ended, and its CPU time with it.
    os.kill(process.pid, signal.SIGINT)
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while not _ended(process.pid):
        if time.monotonic() > deadline:
            os.kill(process.pid, signal.SIGKILL)
            state.lines.append("did not stop on SIGINT and was killed")
            break
        time.sleep(0.02)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    state.cpu_s = usage.ru_utime + usage.ru_stime


def _last(lines: list[str]) -> str:
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")


def sltrace(name: str, *options: str, bound: float | None = None) -> Tool:
    """`sltrace record` with options, writing a trace."""
    command = [sys.executable, "-m", "sltrace", "record", "-o", f"{OUT}/t.slt", *options]
    return Tool(name, command, ready="recording", bound=bound)


def peers() -> list[Tool]:
    """Other tracers as Debian has them; those that cannot run here say why."""
    return [
        _perf_sched(),
        _bpftrace_runqlat(),
        _libbpf_tool("runqlat", "600", "1"),
        _libbpf_tool("runqslower", "10000"),
    ]


def _perf_sched() -> Tool:
    name = "perf sched record"
    if missing := _missing("perf", "linux-perf"):
        return Tool(name, skip=missing)
    command = ["perf", "sched", "record", "-o", f"{OUT}/perf.data", "--", "sleep", "600"]
    return Tool(name, [*_tracefs(), *command], settle_s=1.0)


def _bpftrace_runqlat() -> Tool:
    name = "bpftrace runqlat.bt"
    if missing := _missing("bpftrace", "bpftrace"):
        return Tool(name, skip=missing)
    script = next((p for p in _RUNQLAT_BT if p.exists()), None)
    if script is None:
        return Tool(name, skip="no runqlat.bt in this bpftrace package")
    # Its #include needs kernel headers that few machines have, and is only for TASK_RUNNING.
    text = "\n".join(
        line.replace("TASK_RUNNING", "0")
        for line in script.read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    )
    command = ["bpftrace", "-B", "none", "-e", text]
    return Tool(name, [*_tracefs(), *command], ready="Tracing", settle_s=0.5)


def _libbpf_tool(program: str, *arguments: str) -> Tool:
    name = f"{program} (libbpf-tools)"
    if missing := _missing(program, "libbpf-tools"):
        return Tool(name, skip=missing)
    # Their output is buffered when it is not a terminal, so they never say that they are ready.
    return Tool(name, [program, *arguments], settle_s=1.5)


def _missing(program: str, package: str) -> str:
    """Why a peer is left out, if its program is not here."""
    return "" if shutil.which(program) else f"not installed: {package}"


def _tracefs() -> list[str]:
    """Prefix that gives a tool tracefs where it is not mounted, in a mount namespace of its own."""
    if Path("/sys/kernel/tracing/events").exists():
        return []
    script = 'mount -t tracefs nodev /sys/kernel/tracing && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, "sh"]
