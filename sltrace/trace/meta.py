"""Reads a trace's meta.json; where there is none, says what is there instead."""

from __future__ import annotations

import json
from pathlib import Path
from stat import S_ISREG
from typing import Any

from sltrace.errors import TraceError
from sltrace.trace.schema import FORMAT, TABLES, VERSION
from sltrace.trace.writer import META

_MAX_META = 16 << 20
_GIVE = "give the folder that sltrace record -o NAME wrote"
RERECORD = "record again, or copy the trace again from where it was recorded"
"""What to do about a trace that is not whole."""


def read_meta(path: Path) -> dict[str, Any]:
    """The `meta.json` of a trace.

    Raises:
        TraceError: It is missing, not a sltrace trace, damaged, or of another major version.
    """
    file = path / META
    try:
        status = file.stat()
        if not S_ISREG(status.st_mode):
            raise TraceError(f"{path} is not a trace: its {META} is no file", RERECORD)
        if status.st_size > _MAX_META:
            raise TraceError(f"{path} is not a trace: its {META} is too large", RERECORD)
        meta = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise _no_trace(path) from None
    except OSError as err:
        raise TraceError(f"cannot read {file}: {err.strerror}", "check its permissions") from err
    except (ValueError, RecursionError):
        raise TraceError(f"{path} is damaged: {META} is not JSON", RERECORD) from None
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise TraceError(f"{path} is not a trace: {META} is another program's", RERECORD)
    version = meta.get("version")
    if not (isinstance(version, list) and version and isinstance(version[0], int)):
        raise TraceError(f"{path} is damaged: {META} has no version", RERECORD)
    if version[0] != VERSION[0]:
        raise TraceError(
            f"{path} has format {version[0]}, this sltrace reads {VERSION[0]}",
            "upgrade sltrace" if version[0] > VERSION[0] else "record again",
        )
    _refuse_impossible_times(path, meta)
    return meta


def _refuse_impossible_times(path: Path, meta: dict[str, Any]) -> None:
    """Raises TraceError where the clock is none: every rate would be wrong.

    One that says nothing at all leaves times unknown, and while it is recorded the end is.
    """
    clock = meta.get("clock")
    if not isinstance(clock, dict):
        return
    times = [clock[name] for name in ("start_ns", "end_ns") if name in clock]
    # Infinity and NaN are floats, and for Python a bool is a number.
    wrong = any(type(t) is not int or not 0 <= t < 2**63 for t in times) or times != sorted(times)
    alone = len(times) == 1 and ("end_ns" in clock or meta.get("finished"))
    if wrong or alone:
        raise TraceError(f"{path} is damaged: {META} does not say when it was recorded", RERECORD)


def _no_trace(path: Path) -> TraceError:
    """What is at a path instead of a trace, and what to give instead of it."""
    if not path.exists():
        return TraceError(f"{path} does not exist", "record one with: sudo sltrace record -o NAME")
    if path.name in (META, *TABLES) or path.suffix == ".parquet":
        for folder in (path.absolute().parent, path.absolute().parent.parent):
            if (folder / META).is_file():
                return TraceError(f"{path} is only a part of a trace", f"give all of it: {folder}")
    if not path.is_dir():
        what = "an empty file" if path.is_file() and not path.stat().st_size else "a file"
        return TraceError(f"{path} is not a trace but {what}", _GIVE)
    if (path / "waits").is_dir():
        return TraceError(f"{path} is damaged: it has no {META}", RERECORD)
    if inside := next(iter(sorted(path.glob(f"*/{META}"))), None):
        return TraceError(f"{path} is not a trace", f"it has some: give one, as {inside.parent}")
    return TraceError(f"{path} is not a trace: it has no {META}", _GIVE)
