"""Which sources a recording has besides the scheduler: a runtime each, and profiles."""

from __future__ import annotations

from collections.abc import Sequence

from sltrace.capture.settings import Settings
from sltrace.capture.sources import Source


def sources(pids: Sequence[int], settings: Settings, command: str = "") -> list[Source]:
    """Sources for the processes asked for; empty where none has a runtime that is looked into.

    Args:
        pids: Those that are named, or the one that will be the command; empty for all.
        settings: What to record.
        command: What the recorder is about to run, if anything.
    """
    obi = _obi(settings)
    found = (
        _go(pids, settings, command, yields=obi is not None),
        _python(pids, settings),
        _profiles(settings),
        # Last: what a runtime says of itself goes before.
        obi,
    )
    return [source for source in found if source is not None]


def _python(pids: Sequence[int], settings: Settings) -> Source | None:
    if not pids or not settings.python.wanted or settings.histogram_only:
        return None
    from sltrace.capture.python.source import PythonSource

    return PythonSource(pids)


def _obi(settings: Settings) -> Source | None:
    if settings.histogram_only:
        return None
    from sltrace.capture.obi import obi_source

    return obi_source()


def _go(pids: Sequence[int], settings: Settings, command: str, *, yields: bool) -> Source | None:
    if not settings.go.wanted:
        return None
    from sltrace.capture.golang.source import go_source

    return go_source(pids, settings, command, yields=yields)


def _profiles(settings: Settings) -> Source | None:
    wanted = settings.profiles
    if not wanted.listen and not wanted.files:
        return None
    from sltrace.capture.profiles.source import ProfileSource

    return ProfileSource(wanted.listen, wanted.files)
