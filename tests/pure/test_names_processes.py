"""Names of threads over time, from events and from a made-up /proc."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sltrace.names import processes
from sltrace.names.processes import (
    _ENOUGH,
    _MAX_OF_THREAD,
    EXEC,
    EXIT,
    FORK,
    RENAME,
    SEEN,
    ProcessNames,
)

EVENT = np.dtype(
    [("ns", "u8"), ("tid", "u4"), ("pid", "u4"), ("ppid", "u4"), ("kind", "u4"), ("comm", "S16")]
)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    for pid, comm, inner in ((10, "init) x (", 10), (20, "worker", 5)):
        task = tmp_path / str(pid) / "task" / str(pid)
        task.mkdir(parents=True)
        (task / "comm").write_text(comm + "\n")
        (tmp_path / str(pid) / "stat").write_text(f"{pid} ({comm}) S 7 1 1")
        (tmp_path / str(pid) / "status").write_text(f"Name:\t{comm}\nNSpid:\t{pid}\t{inner}\n")
        (tmp_path / str(pid) / "cmdline").write_bytes(b"/bin/w\xff\0--flag\0")
    return tmp_path


def names_at(names: ProcessNames, *asked: tuple[int, int]) -> list[str]:
    tids = np.array([t for t, _ in asked], np.int32)
    indices, known = names.comms_for(tids, np.array([ns for _, ns in asked], np.int64))
    return [known[i] for i in indices.tolist()]


def feed(names: ProcessNames, *events: tuple[int, int, int, int, int, bytes]) -> None:
    names.feed(np.array(list(events), EVENT))


def test_threads_that_were_there(proc: Path) -> None:
    names = ProcessNames(proc)
    assert names_at(names, (10, 5), (20, 5), (0, 5), (999_999, 5)) == [
        "init) x (",
        "worker",
        "idle",
        "",
    ]
    rows = {r["tid"]: r for r in names.rows(final=True)}
    assert rows[20]["ppid"] == 7
    assert rows[20]["ns_pid"] == 5
    assert rows[20]["cmdline"] == "/bin/w� --flag"


def test_a_command_line_is_that_of_the_program(proc: Path) -> None:
    """An exec renames first; and a number that is given away has another's command line."""
    names = ProcessNames(proc)
    (proc / "20" / "cmdline").write_bytes(b"next\0")
    feed(names, (5, 20, 20, 7, RENAME, b"next"), (6, 20, 20, 7, EXEC, b"next"))
    (proc / "20" / "cmdline").unlink()
    assert {r["comm"]: r["cmdline"] for r in names.rows(final=True) if r["tid"] == 20} == {
        "worker": "/bin/w\ufffd --flag",
        "next": "next",
    }
    feed(names, (7, 20, 20, 7, EXIT, b"next"))
    names.rows()
    (proc / "20" / "cmdline").write_bytes(b"child\0")
    feed(names, (8, 20, 20, 10, FORK, b"child"))
    assert [r["cmdline"] for r in names.rows(final=True) if r["tid"] == 20] == ["child"]


def test_a_name_holds_from_its_event_on(proc: Path) -> None:
    names = ProcessNames(proc)
    feed(
        names,
        (100, 30, 30, 20, FORK, b"worker"),
        (200, 30, 30, 20, EXEC, b"server"),
        (300, 30, 30, 20, RENAME, b"server:1"),
    )
    assert names_at(names, (30, 150), (30, 200), (30, 299), (30, 301), (30, 50)) == [
        "worker",
        "server",
        "server",
        "server:1",
        "worker",
    ]


def test_a_tid_used_again_is_somebody_else(proc: Path) -> None:
    names = ProcessNames(proc)
    feed(
        names,
        (100, 30, 30, 20, FORK, b"first"),
        (200, 30, 30, 20, EXIT, b"first"),
        (300, 30, 30, 10, FORK, b"second"),
    )
    assert names_at(names, (30, 150), (30, 250), (30, 300)) == ["first", "first", "second"]
    rows = names.rows(final=True)
    lives = sorted((r["comm"], r["from_ns"], r["until_ns"]) for r in rows if r["tid"] == 30)
    assert lives == [("first", 100, 200), ("second", 300, None)]


def test_an_exit_names_a_thread_that_was_never_seen(proc: Path) -> None:
    names = ProcessNames(proc)
    feed(names, (200, 77, 70, 1, EXIT, b"ghost"), (201, 78, 70, 1, SEEN, b"other"))
    assert names_at(names, (77, 100), (78, 100)) == ["ghost", "other"]


def test_a_storm_of_births_is_bounded(proc: Path) -> None:
    names = ProcessNames(proc)
    second = 10**9
    for round_ in range(20):
        tids = range(1000 + round_ * 500, 1500 + round_ * 500)
        feed(names, *((round_ * second, t, t, 1, FORK, b"w%d" % (t % 7)) for t in tids))
        feed(names, *((round_ * second + 5, t, t, 1, EXIT, b"w%d" % (t % 7)) for t in tids))
        assert len(names.rows()) == 500
    assert len(names._dead) <= 6 * 500
    assert len(names._comms) <= 12


def test_names_and_command_lines_of_those_that_are_gone_are_let_go(proc: Path) -> None:
    """A storm of processes, each with a name of its own: an hour of it was 200 MB and more."""
    names = ProcessNames(proc)
    second, births = 10**9, 2000
    for round_ in range(20):
        tids = range(1000 + round_ * births, 1000 + (round_ + 1) * births)
        feed(names, *((round_ * second, t, t, 1, FORK, b"w%d" % t) for t in tids))
        assert names_at(names, (tids[0], round_ * second + 1)) == [f"w{tids[0]}"]
        feed(names, *((round_ * second + 5, t, t, 1, EXIT, b"w%d" % t) for t in tids))
        assert len(names.rows()) == births
    assert len(names._comms) <= 3 * _ENOUGH + 12 * births
    assert len(names._cmdlines) <= _ENOUGH + births + 4
    # Those that are there keep theirs, and so do those that went lately.
    last = 1000 + 20 * births - 1
    assert names_at(names, (20, 19 * second), (last, 19 * second + 1)) == ["worker", f"w{last}"]
    # Names that came after are found as well.
    feed(names, (20 * second, 7, 7, 1, FORK, b"late"))
    assert names_at(names, (7, 20 * second + 1), (1000, 20 * second)) == ["late", ""]


def test_a_thread_that_renames_itself_all_the_time_keeps_its_latest_names(proc: Path) -> None:
    names = ProcessNames(proc)
    second = 10**9
    feed(names, (second, 7, 7, 1, FORK, b"first"))
    for number in range(2, 100):
        feed(names, (number * second, 7, 7, 1, RENAME, b"job %d" % number))
        names.rows()
    assert len(names._several[7]) < 10
    told = names_at(names, (7, 99 * second + 1), (7, 97 * second + 1), (7, 96 * second - 1))
    assert told == ["job 99", "job 97", "job 95"]
    # The one that held at the time from which on they are kept was given before it.
    feed(names, (99 * second + 100, 8, 8, 1, FORK, b"other"))
    names.rows()
    assert names_at(names, (7, 94 * second + 200)) == ["job 94"]


def test_a_flood_of_names_takes_no_memory(proc: Path) -> None:
    """It is the latest that holds; others have all of theirs."""
    names = ProcessNames(proc)
    second, flood = 10**9, 5 * _MAX_OF_THREAD
    feed(names, (second, 7, 7, 1, FORK, b"first"), (second, 8, 8, 1, FORK, b"calm"))
    feed(names, *((second + n, 7, 7, 1, RENAME, b"job %d" % n) for n in range(1, flood + 1)))
    feed(names, (2 * second, 8, 8, 1, RENAME, b"still"))
    assert len(names._several[7]) <= _MAX_OF_THREAD
    assert names_at(names, (7, second + 2), (7, 2 * second), (8, second + 1), (8, 2 * second)) == [
        "job 2",
        f"job {flood}",
        "calm",
        "still",
    ]
    rows = [row for row in names.rows() if row["tid"] == 7]
    assert len(rows) < _MAX_OF_THREAD
    # Once those are let go of there is room for more.
    feed(names, (9 * second, 8, 8, 1, RENAME, b"late"))
    names.rows()
    feed(names, (10 * second, 7, 7, 1, RENAME, b"again"))
    assert names_at(names, (7, 9 * second), (7, 10 * second)) == [f"job {flood}", "again"]
    assert [row["comm"] for row in names.rows()] == [f"job {flood}"]


def test_a_flood_of_names_of_many_threads_is_bounded(
    proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_MAX_FORMER", 100)
    names = ProcessNames(proc)
    for number in range(30):
        feed(names, *((number + 1, t, t, 1, RENAME, b"%d" % number) for t in range(1000, 1050)))
    assert sum(map(len, names._several.values())) <= 2 * 100
    assert names_at(names, *((t, 30) for t in range(1000, 1050))) == ["29"] * 50
    assert len(names.rows()) == 100


def test_a_tid_beyond_the_table_is_nobody_whoever_is_last_in_it(proc: Path) -> None:
    names = ProcessNames(proc)
    last = (1 << 16) - 1
    feed(names, (10, last, last, 1, FORK, b"one"), (20, last, last, 1, RENAME, b"two"))
    assert names_at(names, (last, 15), (last, 25), (last + 1, 25), (-1, 25)) == [
        "one",
        "two",
        "",
        "",
    ]
