"""What `sltrace record` and `sltrace top` have in common: filters, loader, a new trace's name."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from sltrace.model import COMM_BYTES, POLICIES

_Command = Callable[..., Any]

_FILTERS = (
    click.option(
        "-p",
        "--pid",
        "pids",
        multiple=True,
        type=int,
        metavar="PID",
        help="Only this process, threads and children.",
    ),
    click.option(
        "--cgroup",
        "cgroups",
        multiple=True,
        metavar="PATH",
        help="Only this cgroup and those below it.",
    ),
    click.option(
        "--comm",
        "comms",
        multiple=True,
        metavar="NAME",
        help=f"Only threads of this name; {COMM_BYTES} bytes of it count.",
    ),
    click.option(
        "--cpu",
        "cpus",
        multiple=True,
        metavar="LIST",
        help="Only waits that ended on these CPUs: 0-3,8.",
    ),
    click.option(
        "--policy",
        "policies",
        multiple=True,
        type=click.Choice(list(POLICIES.values()), case_sensitive=False),
        help="Only this scheduling policy.",
    ),
)


def filters(command: _Command) -> _Command:
    """The options that say which tasks are recorded."""
    for option in reversed(_FILTERS):
        command = option(command)
    return command


with_no_blocked = click.option(
    "--no-blocked", is_flag=True, help="Leave waits of kind blocked (sleep, I/O) out."
)

with_loader = click.option(
    "--loader",
    type=click.Choice(["libbpf", "bcc"]),
    default="libbpf",
    show_default=True,
    help="bcc compiles at start: for kernels with headers and no BTF.",
)


def default_path() -> Path:
    """A new trace's, in the current folder: named after host and time."""
    return Path(f"{os.uname().nodename}-{datetime.now():%Y%m%d-%H%M%S}.slt")
