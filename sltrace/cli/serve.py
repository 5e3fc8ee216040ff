"""`sltrace serve`: wiring only."""

from __future__ import annotations

import ipaddress
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import click

from sltrace.cli import output
from sltrace.cli.shared import pprof_option, trace_argument
from sltrace.errors import UsageError


@click.command()
@trace_argument
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port to listen on.  [default: a free one]",
)
@pprof_option
@click.option(
    "--listen",
    "address",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; any but a loopback address is open to the network.",
)
def command(path: str, port: int, profiles: tuple[str, ...], address: str) -> None:
    """Show TRACE in the browser, exact at any zoom, until Ctrl-C.

    The address it prints has a random token in it: whoever has the address can read the trace.
    """
    from heatmaps.page import build_page
    from sltrace.analysis.part import Whole
    from sltrace.cli.web import Server
    from sltrace.profiles.stored import profiles_beside
    from sltrace.trace.reader import Trace

    try:
        loopback = ipaddress.IPv4Address(address).is_loopback
    except ValueError:
        raise UsageError(f"{address!r} is not an IPv4 address", "as --listen 127.0.0.1") from None
    trace = Trace.open(path)
    found, left_out = profiles_beside(trace, profiles)
    whole = Whole(trace, found)
    page = build_page(trace, whole.cube(), served=True)
    with Server(whole, page.html, address, port) as server:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _leave)
        # The address alone is on standard output, for scripts.
        output.notes((*page.notes, *left_out, *trace.notes), err=True)
        if not loopback:
            output.notes(
                ["whoever reads this network's traffic can read the token: no TLS"], err=True
            )
        click.echo(server.url)
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            _end(0)


def _leave(number: int, frame: FrameType | None) -> None:
    _end(128 + number)


def _end(code: int) -> NoReturn:
    """Ends not by way of the interpreter's end, which a query that is under way would disturb."""
    from sltrace.trace.database import remove_spills

    remove_spills()
    os._exit(code)
