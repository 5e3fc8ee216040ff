"""top: its sums against pandas, its picture at every size, its keys."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sltrace.buckets import lower_bounds
from sltrace.cli import output
from sltrace.cli.live import recorders
from sltrace.cli.live.feed import CLASSES, KEPT_S, SORTS, VIEWS, Feed
from sltrace.cli.live.screen import draw, rows_for, rows_of, shade
from sltrace.cli.live.state import WINDOWS, State
from sltrace.errors import OutputError
from sltrace.trace.writer import TraceWriter
from tests.pure.test_analysis_latency import random_waits
from tests.support.cli import sltrace
from tests.support.traces import META, SECOND, make_trace

RUNQ = ("runq_wakeup", "runq_preempt")


def now_s() -> int:
    return time.monotonic_ns() // SECOND


def clock(start_ns: int, end_ns: int) -> dict[str, dict[str, int]]:
    """What a recording says of its time so far."""
    return {"clock": {"start_ns": start_ns, "end_ns": end_ns}}


@pytest.fixture
def live(tmp_path: Path) -> tuple[Path, pd.DataFrame]:
    """A trace of the last 20 seconds, as it is being written."""
    frame = random_waits(61, 6000)
    start = (now_s() - 20) * SECOND
    rng = np.random.default_rng(3)
    frame["end_ns"] = start + frame["end_ns"] * 2
    frame["culprit_tid"] = pd.array(rng.choice([0, 5, 6], len(frame)), dtype="Int32")
    frame.loc[rng.random(len(frame)) < 0.2, "culprit_tid"] = pd.NA
    frame["culprit_pid"] = frame["culprit_tid"]
    frame["culprit_comm"] = frame["culprit_tid"].map({0: "idle", 5: "hog", 6: "miner"})
    frame["culprit_ns"] = (frame["wait_ns"] // 2).where(frame["culprit_tid"].notna())
    frame["culprit_ns"] = frame["culprit_ns"].astype("Int64")
    counters = [
        {
            "start_ns": start,
            "end_ns": start + 3 * SECOND,
            "cpu": 0,
            "name": name,
            "class": of,
            "value": value,
        }
        for name, of, value in (("ring_full", "loss", 7), ("records", "info", 2993))
    ]
    table = pa.Table.from_pandas(frame, preserve_index=False)
    # A table that is not looked at.
    tasks = [{"pid": 1, "tid": 1, "comm": "web", "from_ns": 0, "cmdline": ""}]
    path = make_trace(
        tmp_path,
        table,
        counters=counters,
        tasks=tasks,
        meta=clock(start, start + 21 * SECOND) | {"host": "h"},
    )
    return path, frame


def chosen(frame: pd.DataFrame, of: str, last: int, window: int) -> pd.DataFrame:
    kinds = RUNQ if of == "runq" else (of,)
    second = frame["end_ns"] // SECOND
    return frame[frame["kind"].isin(kinds) & (second > last - window) & (second <= last)]


def names_of(frame: pd.DataFrame, view: str) -> pd.Series:
    if view == "cgroups":
        return frame["cgroup"]
    if view == "threads":
        return frame["comm"] + " " + frame["tid"].astype(str)
    named = frame["culprit_comm"] + " " + frame["culprit_pid"].astype(str)
    return named.where(frame["culprit_tid"] != 0, "idle CPU").where(frame["culprit_tid"].notna())


@pytest.mark.parametrize("view", list(VIEWS))
@pytest.mark.parametrize("of", CLASSES)
def test_lines_are_pandas(live: tuple[Path, pd.DataFrame], view: str, of: str) -> None:
    path, frame = live
    feed = Feed(path)
    feed.take()
    part = chosen(frame, of, feed.last_s, 10)
    part = part.assign(name=names_of(part, view), held=part["culprit_ns"].fillna(0))
    groups = part.dropna(subset=["name"]).groupby("name")
    time_of = "held" if view == "culprits" else "wait_ns"
    lines = feed.lines(of, view, 10, sort="waited", wanted="", limit=1000)
    assert {line.name for line in lines} == set(groups.groups)
    assert len(lines) > 2
    for line in lines:
        group = groups.get_group(line.name)
        assert line.waited == pytest.approx(float(group[time_of].sum()) / 10)
        assert line.waits == pytest.approx(len(group) / 10)
        assert line.longest == group["wait_ns"].max()
        p99 = np.quantile(group["wait_ns"], 0.99, method="inverted_cdf")
        assert line.p99.low_ns <= p99
        assert line.p99.high_ns is None or p99 <= line.p99.high_ns
    waited = [line.waited for line in lines]
    assert waited == sorted(waited, reverse=True)


@pytest.mark.parametrize("sort", SORTS)
def test_lines_are_sorted_and_cut(live: tuple[Path, pd.DataFrame], sort: str) -> None:
    feed = Feed(live[0])
    feed.take()
    every = feed.lines("runq", "threads", 60, sort=sort, wanted="", limit=1000)
    keys: dict[str, list[float]] = {
        "waited": [line.waited for line in every],
        "waits": [line.waits for line in every],
        "p99": [line.p99.low_ns for line in every],
        "max": [line.longest for line in every],
    }
    assert keys[sort] == sorted(keys[sort], reverse=True)
    few = feed.lines("runq", "threads", 60, sort=sort, wanted="", limit=3)
    assert [line.name for line in few] == [line.name for line in every[:3]]
    found = feed.lines("runq", "threads", 60, sort=sort, wanted="WEB 1", limit=1000)
    assert [f.name for f in found] == [e.name for e in every if "web 1" in e.name]
    assert feed.lines("runq", "threads", 60, sort=sort, wanted="' OR 1=1", limit=9) == []


def test_the_largest_p99_is_found_among_threads_that_waited_more(tmp_path: Path) -> None:
    end = now_s() * SECOND - 3 * SECOND
    often = [{"tid": 20 + i, "wait_ns": 1_000_000} for i in range(20) for _ in range(100)]
    waits = [{"end_ns": end, **row} for row in [{"tid": 7, "wait_ns": 50_000_000}, *often]]
    feed = Feed(make_trace(tmp_path, waits, meta=clock(end - 9 * SECOND, end + 3 * SECOND)))
    feed.take()
    (line,) = feed.lines("runq", "threads", 10, sort="p99", wanted="", limit=1)
    assert line.name == "web 7"


@pytest.mark.parametrize(("height", "rows"), [(24, 8), (50, 15)])
def test_the_heatmap_is_every_wait(live: tuple[Path, pd.DataFrame], height: int, rows: int) -> None:
    path, frame = live
    feed = Feed(path)
    feed.take()
    steps = [start for start, _ in rows_for(height)]
    cells = rows_of(feed.heat("runq", 15), steps)
    assert len(cells) == rows
    part = chosen(frame, "runq", feed.last_s, 15)
    edges = [*steps, 10**19]
    low = lower_bounds()
    for column in range(15):
        second = feed.last_s - 14 + column
        waits = part[part["end_ns"] // SECOND == second]["wait_ns"].to_numpy()
        # A wait is in a row by the start of its bucket.
        starts = low[np.searchsorted(low, waits, side="right") - 1]
        assert cells[:, column].tolist() == np.histogram(starts, edges)[0].tolist()
    assert feed.losses.total == 7
    assert len(feed.losses.seconds) == 1
    assert "7 waits lost or not seen whole (0.23% of all)" in drawn(feed)


@pytest.mark.parametrize(
    ("lost", "seen", "share"), [(1, 0, "100.00%"), (1, 9_999_999, "0.000010%")]
)
def test_the_share_that_was_lost_has_no_exponent(
    tmp_path: Path, lost: int, seen: int, share: str
) -> None:
    rows = [
        {"end_ns": SECOND, "cpu": 0, "name": "states", "class": "loss", "value": lost},
        {"end_ns": SECOND, "cpu": 0, "name": "records", "class": "info", "value": seen},
    ]
    feed = Feed(make_trace(tmp_path, counters=rows))
    feed.take()
    assert f"lost or not seen whole ({share} of all)" in drawn(feed)


def test_segments_are_taken_once_and_removed(live: tuple[Path, pd.DataFrame]) -> None:
    path, frame = live
    feed = Feed(path)
    feed.take()
    assert list(path.glob("*/*")) == []
    before = feed.heat("blocked", 60).sum()
    feed.take()
    assert feed.heat("blocked", 60).sum() == before
    assert feed.losses.total == 7
    assert before == (frame[frame["end_ns"] // SECOND <= feed.last_s]["kind"] == "blocked").sum()


def test_a_second_is_shown_when_all_of_it_is_written(live: tuple[Path, pd.DataFrame]) -> None:
    """However long ago that was: a recorder that got no CPU for a while is late."""
    path, _ = live
    writer = TraceWriter(path, META)
    for end_ns, last_s in (
        (99 * SECOND, 97),
        (99 * SECOND + SECOND // 2, 98),
        (102 * SECOND + 1, 100),
    ):
        writer.update_meta(**clock(90 * SECOND, end_ns))
        feed = Feed(path)
        feed.take()
        assert feed.last_s == last_s
        assert feed.late_s == pytest.approx(now_s() - last_s, abs=1)
        assert f"the recorder is {feed.late_s} s late" in drawn(feed)
    writer.update_meta(**clock(90 * SECOND, time.monotonic_ns()))
    feed.take()
    assert feed.late_s == 0
    assert " s late" not in drawn(feed)


def drawn(feed: Feed) -> str:
    return "\n".join(t.text for t in draw(feed, State(), width=80, height=24, status=""))


def test_a_pause_stops_the_picture_and_not_the_taking(live: tuple[Path, pd.DataFrame]) -> None:
    path, frame = live
    feed = Feed(path)
    feed.take()
    last = feed.last_s
    writer = TraceWriter(path, META)
    writer._segments["waits"] = 50
    later = frame[:10].assign(end_ns=(last + 1) * SECOND, kind="throttled", cgroup="/later")
    writer.append("waits", pa.Table.from_pandas(later, preserve_index=False))
    writer.update_meta(**clock(SECOND, (last + 9) * SECOND))
    feed.take(advance=False)
    assert feed.last_s == last
    assert list((path / "waits").iterdir()) == []
    lines = feed.lines("throttled", "cgroups", 60, sort="waited", wanted="/later", limit=9)
    assert lines == []
    # A picture that stands still is all there, however long it does.
    before = feed.lines("runq", "cgroups", 60, sort="waited", wanted="", limit=9)
    writer.update_meta(**clock(SECOND, (last + 2 * KEPT_S) * SECOND))
    writer.append("waits", pa.Table.from_pandas(later[:1], preserve_index=False))
    feed.take(advance=False)
    assert feed.lines("runq", "cgroups", 60, sort="waited", wanted="", limit=9) == before != []
    writer.update_meta(**clock(SECOND, (last + 9) * SECOND))
    feed.take()
    assert feed.last_s == last + 7
    assert feed.lines("throttled", "cgroups", 60, sort="waited", wanted="/later", limit=9)
    writer.update_meta(**clock(SECOND, (last + 2 * KEPT_S) * SECOND))
    writer.append("waits", pa.Table.from_pandas(later, preserve_index=False))
    feed.take()
    for table in ("live", "heat"):
        (rows,) = feed._db.execute(f"SELECT count(*) FROM {table}").fetchone()  # type: ignore[misc]
        assert rows == 0
    assert feed.losses.total == 7


def test_too_much_is_forgotten_from_the_oldest_on(
    live: tuple[Path, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, frame = live
    monkeypatch.setattr("sltrace.cli.live.feed.MAX_ROWS", 2000)
    feed = Feed(path)
    feed.take()
    (rows,) = feed._db.execute("SELECT count(*) FROM live").fetchone()  # type: ignore[misc]
    assert 1000 < rows <= 2000
    window = feed.known(60)
    assert window < 15
    part = chosen(frame, "runq", feed.last_s, window)
    lines = feed.lines("runq", "cgroups", 60, sort="waited", wanted="", limit=9)
    whole = sum(line.waited for line in lines) * window
    assert whole == pytest.approx(float(part["wait_ns"].sum()))
    # The picture above has all of it.
    assert feed.heat("runq", 60).sum() == len(chosen(frame, "runq", feed.last_s, 60))


HOSTILE = "\x1b[2J\x07‮漢字" + "x" * 500


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 60), (40, 10), (20, 5), (9, 2)])
@pytest.mark.parametrize("view", list(VIEWS))
def test_the_picture_fits_every_terminal(
    tmp_path: Path, width: int, height: int, view: str
) -> None:
    end = now_s() * SECOND - 3 * SECOND
    culprit = {"culprit_tid": 9, "culprit_pid": 9, "culprit_comm": HOSTILE, "culprit_ns": 5}
    waits = [
        {"end_ns": end, "wait_ns": 10**i, "cgroup": f"/{i}{HOSTILE}", "comm": HOSTILE, **culprit}
        for i in range(1, 11)
    ] * 3
    meta = clock(end - 9 * SECOND, end + 3 * SECOND) | {"host": HOSTILE}
    feed = Feed(make_trace(tmp_path, waits, meta=meta))
    feed.take()
    for help_shown in (False, True):
        state = State(view=view, help=help_shown)
        lines = draw(feed, state, width=width, height=height, status=HOSTILE[:3].strip("\x1b"))
        assert len(lines) == height
        for line in lines:
            assert output.width(line.text) <= width
        text = "\n".join(line.text for line in lines)
        assert not set(text) & set("\x1b\x07‮")
        assert lines[-1].text.startswith("q quit"[: width - 1])


def test_the_picture_of_nothing(tmp_path: Path) -> None:
    feed = Feed(tmp_path / "not yet")
    feed.take()
    lines = [line.text for line in draw(feed, State(), width=80, height=24, status="")]
    assert lines[-2:] == ["nothing was lost", lines[-1]]
    assert len(lines) == 24


def test_only_nothing_is_blank() -> None:
    assert shade(0, 10**6) == " "
    shades = [shade(n, 10**6) for n in (1, 10, 10**3, 10**6)]
    assert len(set(shades)) == 4
    assert " " not in shades
    assert shade(1, 1) == shade(10**6, 10**6) == "@"


def test_keys() -> None:
    state = State()
    for key, field, values in (
        ("v", "view", list(VIEWS)),
        ("k", "of", list(CLASSES)),
        ("s", "sort", list(SORTS)),
        ("w", "window", list(WINDOWS)),
    ):
        seen = []
        for _ in values:
            seen.append(getattr(state, field))
            state.press(key)
        assert seen == values
        assert getattr(state, field) == values[0]
    state.press("p")
    assert state.paused
    state.press(" ")
    assert not state.paused
    for key in "/qvx":
        state.press(key)
    assert (state.typing, state.wanted, state.over) == (True, "qvx", False)
    state.press("\x7f")
    state.press("\n")
    assert (state.typing, state.wanted) == (False, "qv")
    state.press("\x1b")
    assert state.wanted == ""
    state.press("r")
    assert state.record
    state.press("?")
    assert state.help
    state.press("q")
    assert state.over


@given(st.text(max_size=200))
@settings(max_examples=200)
def test_any_keys_do_no_harm(keys: str) -> None:
    state = State()
    for key in keys:
        state.press(key)
    assert len(state.wanted) <= 60
    assert state.view in VIEWS


def test_a_full_disk_is_told_of_by_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the recorder says to do is for a trace that somebody named."""
    said = "the disk is nearly full, so the recording was ended: x is whole until then; use -o"
    monkeypatch.setattr(recorders, "Recorder", lambda *_: mock.Mock(failure=OutputError(said)))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(OutputError) as failure:
        recorders.LiveRecorder([]).ended()
    assert str(failure.value) == (
        f"the recorder writes to {tmp_path}: the disk is nearly full; "
        "free some space there, or set TMPDIR to another folder"
    )


def test_without_a_terminal_it_says_so() -> None:
    done = sltrace("top")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "sltrace: top needs a terminal; use sltrace record and sltrace stat in scripts\n"
    )
