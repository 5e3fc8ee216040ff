"""Whose CPU quota held a cgroup, as the cgroups' files tell."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from sltrace.names import quotas
from sltrace.names.hierarchy import Hierarchy
from sltrace.names.quotas import QuotaHolders


class Tree:
    """Cgroups in a folder, with the files that tell of quotas."""

    def __init__(self, mount: Path, kind: Literal["v2", "v1 cpu"]) -> None:
        self.mount = mount
        self.removed: dict[int, str] = {}
        self.hierarchy = Hierarchy(kind, mount, 0, "")
        self.holders = QuotaHolders(self.hierarchy, self._path_of)

    def make(self, path: str, *, limited: bool) -> None:
        (self.mount / path).mkdir()
        self.limit(path, limited=limited)
        self.throttle(path, 0)

    def limit(self, path: str, *, limited: bool) -> None:
        if self.hierarchy.kind == "v2":
            self._write(path, "cpu.max", f"{20_000 if limited else 'max'} 100000")
        else:
            self._write(path, "cpu.cfs_quota_us", "20000" if limited else "-1")
            self._write(path, "cpu.cfs_period_us", "100000")

    def throttle(self, path: str, ms: int) -> None:
        told = f"throttled_usec {ms}000"
        if self.hierarchy.kind != "v2":
            told = f"throttled_time {ms}000000"
        self._write(path, "cpu.stat", f"nr_periods 9\n{told}")

    def remove(self, path: str) -> int:
        """Its id; it stays known by its path."""
        number = self._id_of(path)
        self.removed[number] = f"/{path}"
        shutil.rmtree(self.mount / path)
        return number

    def holder(self, path: str) -> str:
        (found,) = self.holders.holding(np.array([self._id_of(path)])).tolist()
        return self._path_of(found)

    def _id_of(self, path: str) -> int:
        return (self.mount / path).stat().st_ino

    def _path_of(self, number: int) -> str:
        if number in self.removed:
            return self.removed[number]
        (found,) = (f for f in self.mount.rglob("*") if f.stat().st_ino == number)
        return "/" + str(found.relative_to(self.mount))

    def _write(self, path: str, name: str, text: str) -> None:
        (self.mount / path / name).write_text(text + "\n")


@pytest.fixture(autouse=True)
def always_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "_READ_AFTER_S", 0)


@pytest.fixture(params=["v2", "v1 cpu"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
    made = Tree(tmp_path, request.param)
    for path, limited in (("slice", True), ("slice/plain", False), ("slice/pod", True)):
        made.make(path, limited=limited)
    made.make("slice/pod/one", limited=True)
    made.make("free", limited=False)
    return made


def test_the_only_quota_on_the_way_up_is_the_one(tree: Tree) -> None:
    assert tree.holder("slice/plain") == "/slice"


def test_one_that_no_quota_is_seen_of_is_its_own(tree: Tree) -> None:
    assert tree.holder("free") == "/free"


def test_of_several_it_is_the_one_that_has_grown(tree: Tree) -> None:
    assert tree.holder("slice/pod/one") == "/slice/pod/one"
    tree.throttle("slice", 30)
    assert tree.holder("slice/pod/one") == "/slice"
    tree.throttle("slice/pod", 10)
    assert tree.holder("slice/pod/one") == "/slice/pod"
    # Nothing has grown since.
    assert tree.holder("slice/pod/one") == "/slice/pod"
    tree.throttle("slice", 50)
    tree.throttle("slice/pod/one", 21)
    assert tree.holder("slice/pod/one") == "/slice/pod/one"


def test_a_quota_that_was_taken_away_held_until_then(tree: Tree) -> None:
    assert tree.holder("slice/pod/one") == "/slice/pod/one"
    tree.throttle("slice/pod", 30)
    tree.limit("slice/pod", limited=False)
    assert tree.holder("slice/pod/one") == "/slice/pod"
    tree.throttle("slice", 30)
    tree.limit("slice", limited=False)
    tree.limit("slice/pod/one", limited=False)
    assert tree.holder("slice/pod/one") == "/slice"


def test_one_that_was_taken_away_long_ago_is_not_the_one(tree: Tree) -> None:
    tree.limit("slice", limited=False)
    tree.throttle("slice", 1000)
    tree.throttle("slice/pod", 10)
    assert tree.holder("slice/pod/one") == "/slice/pod"


def test_before_it_was_looked_at_what_was_so_far_counts(tree: Tree) -> None:
    tree.throttle("slice/pod", 1)
    assert tree.holder("slice/pod/one") == "/slice/pod"


def test_one_that_is_gone_stays_what_it_was(tree: Tree) -> None:
    number = (tree.mount / "slice/plain").stat().st_ino
    held = tree.holder("slice/plain")
    for file in (tree.mount / "slice/plain").iterdir():
        file.unlink()
    (tree.mount / "slice/plain").rename(tree.mount / "elsewhere")
    tree.holders._path_of = lambda _: "/slice/plain"
    (found,) = tree.holders.holding(np.array([number])).tolist()
    assert tree._path_of(found) == held == "/slice"


def test_one_that_is_gone_at_the_first_look_was_held_by_one_above(tree: Tree) -> None:
    tree.make("slice/plain/job", limited=False)
    tree.make("slice/plain/next", limited=False)
    job, later = (tree.remove(f"slice/plain/{name}") for name in ("job", "next"))
    assert tree.holders.holding(np.array([job])).tolist() == [job]
    tree.throttle("slice", 30)
    (found,) = tree.holders.holding(np.array([later])).tolist()
    assert tree._path_of(found) == "/slice"


def test_files_are_read_of_few_at_a_time(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "_READ_AT_ONCE", 2)
    monkeypatch.setattr(quotas, "_READ_AFTER_S", 1e-9)
    ids = [
        (tree.mount / p).stat().st_ino for p in ("slice/plain", "free", "slice/pod/one", "slice")
    ]
    above = (tree.mount / "slice").stat().st_ino
    reads: list[int] = []

    def path_of(number: int) -> str:
        reads.append(number)
        return tree._path_of(number)

    monkeypatch.setattr(tree.holders, "_path_of", path_of)
    for _ in range(2):
        found = tree.holders.holding(np.array(ids * 3))
        assert len(found) == 3 * len(ids)
    assert sorted(reads) == sorted(ids)
    assert found[ids.index(ids[0])] == above
