"""Paths of cgroups as they are made, renamed and removed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sltrace.errors import TargetError
from sltrace.names import cgroups
from sltrace.names.cgroups import MKDIR, RENAME, RMDIR, CgroupNames
from sltrace.names.hierarchy import Hierarchy

EVENT = np.dtype([("ns", "u8"), ("id", "u8"), ("kind", "u4"), ("path", "S512")])


def _paths(names: CgroupNames, *ids: int) -> list[str]:
    at, known = names.paths_for(np.array(ids, np.int64))
    return [known[i] for i in at.tolist()]


def test_paths_that_were_cut_are_told_apart(tmp_path: Path) -> None:
    names = CgroupNames(Hierarchy("v1 cpu", tmp_path, 1, ""))
    cut = b"/" + b"x" * 510
    names.feed(
        np.array([(1, 101, MKDIR, cut), (1, 102, MKDIR, cut), (1, 103, MKDIR, cut[:-1])], EVENT)
    )
    text = cut.decode()
    assert _paths(names, 101, 102, 103) == [f"{text}...#101", f"{text}...#102", text[:-1]]


def test_a_quota_may_be_set_later(tmp_path: Path) -> None:
    names = CgroupNames(Hierarchy("v1 cpu", tmp_path, 1, ""))
    for name in ("late", "never"):
        (tmp_path / name).mkdir()
        _limit(tmp_path / name, "-1")
    names.feed(np.array([(1, 101, MKDIR, b"/late"), (1, 102, MKDIR, b"/never")], EVENT))
    quotas = {row["cgroup_id"]: row["quota_us"] for row in names.rows()}
    assert (quotas[101], quotas[102]) == (None, None)
    _limit(tmp_path / "late", "20000")
    (row,) = names.rows()
    assert (row["cgroup_id"], row["quota_us"], row["period_us"]) == (101, 20000, 100000)
    assert names.rows() == []
    _limit(tmp_path / "late", "10000")
    (lowered,) = names.rows(final=True)
    assert lowered["quota_us"] == 10000
    assert lowered["seen_ns"] > row["seen_ns"]


def test_of_many_cgroups_each_has_its_turn_to_be_read(tmp_path: Path) -> None:
    names = CgroupNames(Hierarchy("v1 cpu", tmp_path, 1, ""))
    names.rows(final=True)
    numbers = range(101, 301)
    for number in numbers:
        (tmp_path / str(number)).mkdir()
        _limit(tmp_path / str(number), "-1")
    names.feed(np.array([(1, n, MKDIR, f"/{n}".encode()) for n in numbers], EVENT))
    names.rows()
    for number in numbers:
        _limit(tmp_path / str(number), "20000")
    calls = [[row["cgroup_id"] for row in names.rows()] for _ in range(9)]
    assert sorted(n for found in calls for n in found) == list(numbers)
    assert max(map(len, calls)) < 100


def _limit(folder: Path, quota: str) -> None:
    (folder / "cpu.cfs_quota_us").write_text(quota + "\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")


def test_with_a_cgroup_all_below_it_are_renamed(tmp_path: Path) -> None:
    """v1 allows it; the kernel tells only of the one."""
    names = CgroupNames(Hierarchy("v1 cpu", tmp_path, 1, ""))
    made = [(1, 101, MKDIR, b"/web"), (1, 102, MKDIR, b"/web/a"), (1, 103, MKDIR, b"/web/a/b")]
    beside = [
        (1, 104, MKDIR, b"/website"),
        (1, 105, MKDIR, b"/web/gone"),
        (2, 105, RMDIR, b"/web/gone"),
    ]
    names.feed(np.array([*made, *beside], EVENT))
    names.rows()
    names.feed(np.array([(3, 101, RENAME, b"/shop")], EVENT))
    assert _paths(names, 101, 102, 103, 104, 105) == [
        "/shop",
        "/shop/a",
        "/shop/a/b",
        "/website",
        "/web/gone",
    ]
    assert {row["path"] for row in names.rows()} == {"/shop", "/shop/a", "/shop/a/b"}


def test_cgroups_that_went_lately_keep_their_names_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their last waits may still be in the rings; those that are long gone take no memory."""
    monkeypatch.setattr(cgroups, "_MAX_KNOWN", 10)
    second = 10**9
    now = 100 * second
    monkeypatch.setattr("time.monotonic_ns", lambda: now)
    names = CgroupNames(Hierarchy("v2", tmp_path, 0, ""))
    names.feed(np.array([(now, n, MKDIR, f"/here/{n}".encode()) for n in range(1, 21)], EVENT))
    names.rows()
    for i in range(30):
        now += second
        number = 1000 + i
        short = f"/short/{number}".encode()
        names.feed(np.array([(now, number, MKDIR, short), (now, number, RMDIR, short)], EVENT))
        # One that was gone before anybody told of it.
        assert _paths(names, -number) == [f"#{-number}"]
        assert {row["cgroup_id"] for row in names.rows()} == {number, -number}
        now += 8 * second
        names.rows()
        assert _paths(names, number, 1) == [f"/short/{number}", "/here/1"]
    # With the root of the tree.
    assert len(names._groups) <= 1 + 20 + 2 * 2


def test_no_name_is_no_cgroup(tmp_path: Path) -> None:
    """`--cgroup "$UNSET"` must not record the whole machine."""
    names = CgroupNames(Hierarchy("v1 cpu", tmp_path, 1, ""))
    assert names.subtree_ids("/") == names.subtree_ids(str(tmp_path)) == [tmp_path.stat().st_ino]
    with pytest.raises(TargetError, match="there is no cgroup ''"):
        names.subtree_ids("")
