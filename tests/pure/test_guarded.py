"""A source that fails ends alone, whichever of its methods it is that fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sltrace.capture import tags
from sltrace.capture.guarded import Guarded
from sltrace.capture.settings import Settings
from sltrace.capture.sources import Context, Rows
from sltrace.trace.reader import Trace
from sltrace.trace.writer import TraceWriter

_ROWS = pa.table({"n": [1]})
_PLACES = (
    "fill",
    "drain",
    "rows",
    "between",
    "told",
    "learn",
    "detach",
    "finish",
    "targets",
    "describe",
    "close",
)


class Failing:
    """Fails in one place, from then on in all."""

    name = "failing"
    privileges: frozenset[int] = frozenset()

    def __init__(self, place: str) -> None:
        self._place = place
        self.called: list[str] = []

    def _at(self, place: str) -> None:
        self.called.append(place)
        if place == self._place:
            raise IndexError(f"in {place}")

    def attach(self, context: Context) -> None:
        self._at("attach")
        context.watch_programs(lambda pids: self._at("told"))
        context.before_tasks(lambda: self._at("learn"))

    def fill(self) -> float:
        self._at("fill")
        return 0.5

    def drain(self) -> None:
        self._at("drain")

    def rows(self) -> Rows:
        self._at("rows")
        yield "waits", _ROWS
        self._at("between")
        yield "samples", _ROWS

    def detach(self, end_ns: int) -> None:
        self._at("detach")

    def finish(self) -> Rows:
        self._at("finish")
        yield "frames", _ROWS

    def targets(self) -> Sequence[pa.Table]:
        self._at("targets")
        return [_ROWS]

    def describe(self) -> dict[str, Any]:
        self._at("describe")
        return {"attached": ["one"]}

    def close(self) -> None:
        self._at("close")


class Session:
    """What calls it, and what it asked to be told."""

    def __init__(self, place: str) -> None:
        self.source = Failing(place)
        self.guarded = Guarded(self.source)
        self._told: list[Callable[[Sequence[int]], None]] = []
        self._learn: list[Callable[[], None]] = []
        nothing: Any = None
        self._context = Context(
            settings=Settings(),
            start_ns=0,
            tags_fd=-1,
            tasks=nothing,
            groups=nothing,
            take_tags=lambda: None,
            watch_programs=self._told.append,
            before_tasks=self._learn.append,
        )

    def attach(self) -> None:
        self.guarded.attach(self._context)

    def once(self) -> tuple[float, list[str]]:
        fill = self.guarded.fill()
        self.guarded.drain()
        self._told[0]([1])
        self._learn[0]()
        tables = [table for table, _ in self.guarded.rows()]
        self.guarded.targets()
        self.guarded.describe()
        return fill, tables


@pytest.mark.parametrize("place", _PLACES)
def test_what_fails_ends_alone(place: str) -> None:
    session = Session(place)
    guarded, source = session.guarded, session.source
    session.attach()
    session.once()
    fill, tables = session.once()
    during = place not in ("detach", "finish", "close")
    assert (fill, tables) == ((0.0, []) if during else (0.5, ["waits", "samples"]))
    assert (guarded.failure is not None) is during
    # The probes are out at once, and only once.
    assert source.called.count("detach") == during
    guarded.detach(0)
    assert source.called.count("detach") == 1
    assert [table for table, _ in guarded.finish()] == ([] if place == "finish" else ["frames"])
    assert list(guarded.targets()) == ([] if place == "targets" else [_ROWS])
    guarded.close()
    described = guarded.describe()
    assert described["failed"]["why"] == f"IndexError: in {place}"
    assert f'self._at("{place}")' in described["failed"]["where"]
    assert ("attached" in described) is (place != "describe")


def test_tags_that_nobody_changes_any_more_are_no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    cleared: list[int] = []
    monkeypatch.setattr(tags, "clear", cleared.append)
    session = Session("rows")
    session.attach()
    session.once()
    assert cleared == []
    for _ in range(3):
        session.once()
    assert cleared == [-1]


def test_what_does_not_fail_is_as_without() -> None:
    session = Session("")
    session.attach()
    assert session.once() == session.once() == (0.5, ["waits", "samples"])
    assert session.guarded.describe() == {"attached": ["one"]}
    assert session.guarded.failure is None


def test_a_source_that_cannot_attach_is_the_callers() -> None:
    with pytest.raises(IndexError):
        Session("attach").attach()


@pytest.mark.parametrize(
    ("failed", "said"),
    [
        ({"after_ns": 1_500_000_000, "why": "IndexError: 7"}, "after 1.5 s, and told no more: I"),
        ({"after_ns": 10**400, "why": None}, "after a while, and told no more: None"),
        (["IndexError"], ""),
    ],
)
def test_readers_are_told(tmp_path: Path, failed: object, said: str) -> None:
    path = tmp_path / "t.slt"
    TraceWriter.create(path, {"sources": {"python": {"failed": failed}}}).close()
    notes = json.dumps(Trace.open(path).notes)
    assert ("what records python failed" in notes) is bool(said)
    assert said in notes
