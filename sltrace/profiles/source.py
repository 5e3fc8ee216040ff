"""Bytes of a profile from a file or over HTTP, never more than a bound."""

from __future__ import annotations

import gzip
import http.client
import io
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from urllib.parse import urlsplit

from sltrace.errors import SltraceError

MAX_BYTES = 256 << 20
"""Of a profile, packed or not; a CPU profile of a minute is a few hundred KB."""
TIMEOUT_S = 90.0
"""Without an answer; a service that is asked for 30 s of profile is silent for so long."""

_GZIP = b"\x1f\x8b"


class ProfileError(SltraceError):
    """A profile cannot be read or is not one."""

    exit_code = 5


def read_bytes(where: str) -> bytes:
    """The unpacked profile at a path or an http(s) URL.

    Raises:
        ProfileError: It is not there, too large or damaged.
    """
    if urlsplit(where).scheme in ("http", "https"):
        data = _fetched(where)
    else:
        data = _from_file(Path(where))
    return unpacked(data, where)


def _from_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return _bounded(file.read(MAX_BYTES + 1), str(path))
    except OSError as err:
        raise ProfileError(
            f"cannot read profile {path}: {err.strerror}", "give a pprof file or an http:// URL"
        ) from err


def _fetched(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            return _bounded(answer.read(MAX_BYTES + 1), url)
    except urllib.error.HTTPError as err:
        raise ProfileError(
            f"{url} answered {err.code}", "for Go it is /debug/pprof/profile?seconds=10"
        ) from err
    except (OSError, http.client.HTTPException, ValueError) as err:
        why = str(getattr(err, "reason", err))[:200]
        raise ProfileError(
            f"cannot fetch {url}: {why}", "is the service up, and the port right?"
        ) from err


def _bounded(data: bytes, where: str, limit: int = MAX_BYTES) -> bytes:
    if len(data) > limit:
        raise ProfileError(f"{where} has more than {limit >> 20} MiB", "profile for less long")
    return data


def unpacked(data: bytes, where: str, limit: int = MAX_BYTES) -> bytes:
    """Bytes that may be packed with gzip, unpacked.

    Raises:
        ProfileError: They are more than `limit`, or damaged.
    """
    if not data.startswith(_GZIP):
        return _bounded(data, where, limit)
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            return _bounded(packed.read(limit + 1), where, limit)
    except (OSError, EOFError, zlib.error) as err:
        raise ProfileError(f"{where} is damaged: {err}", "fetch the profile again") from err
