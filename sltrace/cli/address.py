"""Addresses to listen on, as options give them."""

from __future__ import annotations

from ipaddress import ip_address

from sltrace.errors import UsageError


def address(text: str) -> tuple[str, int]:
    """Host and port of `4040`, `127.0.0.1:4040` or `[::1]:4040`; this machine only by default.

    Raises:
        UsageError: It is none.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    try:
        ip_address(host)
    except ValueError:
        raise UsageError(
            f"--pyroscope-listen {text!r} has no IP address", "write it as 127.0.0.1:4040 or 4040"
        ) from None
    if not (port.isascii() and port.isdigit() and len(port) < 6 and int(port) < 1 << 16):
        raise UsageError(
            f"--pyroscope-listen {text!r} has no port up to 65535", "write it as 127.0.0.1:4040"
        )
    return host, int(port)
