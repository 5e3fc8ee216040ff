"""What Pyroscope's clients push: profiles with the labels of their service, bounded and checked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from sltrace.profiles.pprof import column_of
from sltrace.profiles.source import ProfileError, unpacked
from sltrace.symbols.filebytes import open_regular

MAX_PUSH = 8 << 20
"""Bytes of a push, packed or not. A client sends ten seconds at once: some hundred KB. A message
made to be costly takes 30 times its size in memory (measured), for a moment."""
MAX_FILE = 32 << 20
MAX_PROFILES = 64
"""Of one push."""
_MAX_LABELS = 64
_MAX_TEXT = 256
_SECOND = 1_000_000_000
_LATEST, _LONGEST = 1 << 62, 1 << 60
"""Times beyond are none, and their sums would not fit 64 bits: the years 2116 and 36."""
_HINT_FILE = "give a pprof file (.pb.gz) of times or counts, or a push that was saved"
_HINT = "point a pyroscope-io client here, with its CPU profiles"
_NAME_IN_FORM = re.compile(rb'[ ;]name="([^"]*)"')


class NotAProfile(ProfileError):
    """Bytes are something else than a profile."""


@dataclass(frozen=True)
class Pushed:
    """A profile as it is stored.

    Attributes:
        app: Name of the service.
        labels: Its other labels, as JSON.
        measure: What is measured, as the profile calls it: cpu, wall ...
        start_unix_ns: When it began; 0 if unknown.
        duration_ns: How long it took; 0 if unknown.
        samples: How many it has.
        data: A pprof message, not packed.
    """

    app: str
    labels: str
    measure: str
    start_unix_ns: int
    duration_ns: int
    samples: int
    data: bytes

    def row(self, source: str, ns: int, start_ns: int | None) -> dict[str, Any]:
        """As a row of the table `profiles`, but for columns that are null.

        Args:
            source: Where it came from: push, ingest or file.
            ns: When that was.
            start_ns: When it began, on the same clock; None if unknown.
        """
        return {
            "ns": ns,
            "start_ns": start_ns,
            "end_ns": None if start_ns is None else start_ns + self.duration_ns,
            "source": source,
            "app": self.app,
            "labels": self.labels,
            "measure": self.measure,
            "samples": self.samples,
            "size": len(self.data),
            "profile": self.data,
        }


def from_push(body: bytes) -> tuple[list[Pushed], list[ProfileError]]:
    """Profiles of a request to `/push.v1.PusherService/Push`, as clients from 1.0 on send it.

    Returns:
        The profiles, and why others of them were refused.

    Raises:
        ProfileError: It is no such request, or too large.
    """
    from sltrace.profiles import push_pb2 as pb

    request = _parsed(pb.PushRequest(), unpacked(body, "the push", MAX_PUSH))  # type: ignore[attr-defined]
    if request is None or not request.series:
        raise ProfileError("not a push of profiles", _HINT)
    raw = [(series, sample) for series in request.series for sample in series.samples]
    if len(raw) > MAX_PROFILES:
        raise ProfileError(f"more than {MAX_PROFILES} profiles in a push", _HINT)
    found, refused, left = [], [], MAX_PUSH
    for series, sample in raw:
        labels = [(pair.name, pair.value) for pair in series.labels]
        app = next((value for name, value in labels if name == "service_name"), "")
        try:
            data = unpacked(sample.raw_profile, "the push", MAX_PUSH)
            left -= len(data)
            if left < 0:
                refused.append(ProfileError("more than a push may have", _HINT))
                break
            found.append(checked(data, app, (p for p in labels if p[0] != "service_name")))
        except ProfileError as err:
            refused.append(err)
    return found, refused


def from_ingest(query: str, body: bytes) -> Pushed:
    """The profile of a request to `/ingest`: of clients of Go and Node, and before 1.0 of Python.

    Args:
        query: After the question mark: `name`, `from`, `until` (seconds, or ns) and `format`.
        body: The profile, or a form with it.

    Raises:
        ProfileError: It is none, too large, of another format, or not of time.
    """
    try:
        values = {k: v[0] for k, v in parse_qs(query, max_num_fields=_MAX_LABELS).items()}
    except ValueError:
        raise ProfileError("too many parameters", _HINT) from None
    if values.get("format", "pprof") != "pprof":
        raise ProfileError("a profile of another format than pprof", _HINT)
    app, _, rest = values.get("name", "").partition("{")
    labels = (pair.partition("=") for pair in rest.rstrip("}").split(",") if pair)
    data = unpacked(_of_form(body), "the profile", MAX_PUSH)
    times = _moment(values.get("from")), _moment(values.get("until"))
    return checked(data, app, ((k, v) for k, _, v in labels), *times)


def _of_form(body: bytes) -> bytes:
    """The file `profile` of a form, as Go's client sends it; what is no form as it is.

    Raises:
        ProfileError: It has none, or none of the time that it is said to be of.
    """
    if not body.startswith(b"--"):
        return body
    boundary = body.partition(b"\r\n")[0]
    files = {}
    for part in body.removeprefix(boundary).split(b"\r\n" + boundary, _MAX_LABELS):
        head, _, content = part.partition(b"\r\n\r\n")
        if name := _NAME_IN_FORM.search(head):
            files[name[1]] = content
    if b"prev_profile" in files:
        # Of old clients: only together with that one is it of its time.
        raise ProfileError("a profile that counts from the start of its program", _HINT)
    if b"profile" not in files:
        raise ProfileError("a form without a profile", _HINT)
    return files[b"profile"]


def of_file(path: Path) -> list[Pushed]:
    """Profiles of a file: a pprof profile, or a push that was saved.

    Raises:
        NotAProfile: It is none.
        ProfileError: It cannot be read, is of something else, or is too large.
    """
    try:
        with open_regular(path) as file:
            data = unpacked(file.read(MAX_FILE + 1), str(path), MAX_FILE)
    except OSError as err:
        why = err.strerror or err
        raise ProfileError(f"cannot read profile {path}: {why}", _HINT_FILE) from err
    try:
        return [checked(data, path.name)]
    except ProfileError as err:
        if pushed := in_push(data):
            return pushed
        raise type(err)(f"{path} is {err.message}", _HINT_FILE) from err


def in_push(data: bytes) -> list[Pushed]:
    """Profiles of a saved push; empty if it is none."""
    try:
        return from_push(data)[0]
    except ProfileError:
        return []


def checked(
    data: bytes,
    app: str,
    labels: Iterable[tuple[str, str]] = (),
    start_unix_ns: int = 0,
    end_unix_ns: int = 0,
) -> Pushed:
    """A profile, once it is known to be one of time, or of counts only.

    Args:
        data: A pprof message, not packed.
        app: Name of its service.
        labels: Names and values.
        start_unix_ns: When it began, if it does not say itself.
        end_unix_ns: When it ended, likewise.

    Raises:
        NotAProfile: It is no profile.
        ProfileError: It is one of something else.
    """
    from sltrace.profiles import profile_pb2 as pb

    message = _parsed(pb.Profile(), data)  # type: ignore[attr-defined]
    if message is None or not message.sample_type or not message.string_table:
        raise NotAProfile("not a pprof profile", _HINT)
    try:
        measure = column_of(message, app).measure
    except ProfileError:
        raise ProfileError("a profile of something other than time", _HINT) from None
    start, duration = message.time_nanos, message.duration_nanos
    if not (0 < start < _LATEST and 0 <= duration < _LONGEST):
        start, duration = start_unix_ns, max(0, end_unix_ns - start_unix_ns)
    kept = {name[:_MAX_TEXT]: value[:_MAX_TEXT] for name, value in list(labels)[:_MAX_LABELS]}
    return Pushed(
        app=app[:_MAX_TEXT] or "unnamed",
        labels=json.dumps(kept, sort_keys=True),
        measure=measure[:_MAX_TEXT],
        start_unix_ns=start,
        duration_ns=duration,
        samples=len(message.sample),
        data=data,
    )


def _parsed(message: Any, data: bytes) -> Any:
    from google.protobuf.message import DecodeError

    try:
        message.ParseFromString(data)
    except DecodeError:
        return None
    return message


def _moment(text: str | None) -> int:
    """Unix time in ns, from that or from seconds; 0 where it is none."""
    digits = (text or "").partition(".")[0]
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        return 0
    time = int(digits) * (_SECOND if len(digits) < 11 else 1)
    return time if time < _LATEST else 0
