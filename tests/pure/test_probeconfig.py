"""What the probes' filters are told, and in which order the probes are attached."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from sltrace.capture import libbpf, probeconfig
from sltrace.capture.probeconfig import FILTERS, Targets, fill_filters, want_born
from sltrace.capture.probes import CONTEXT, counted, counter_names, object_path
from sltrace.capture.settings import Settings
from sltrace.errors import UsageError
from tests.support.machine import layouts

_TABLES = {name: number for number, name in enumerate((*FILTERS, "wanted_cpus"))}


class _Kernel:
    """Filters' maps; below 100, whoever came last makes another each time that it is looked at.

    There is 101 already, from while the probes were loaded.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, births: int, room: int = 1 << 20) -> None:
        self.wanted: dict[int, set[bytes]] = {table: set() for table in _TABLES.values()}
        self._births, self._room = births, room
        self._made = [100, 101]
        monkeypatch.setattr(probeconfig, "update_map", self._update)
        monkeypatch.setattr(probeconfig, "with_children", self._with_children)

    def pids(self) -> set[int]:
        return {int.from_bytes(key, "little") for key in self.wanted[_TABLES["wanted_pids"]]}

    def cgroups(self) -> list[int]:
        there = list(self._made)
        if len(self._made) < 2 + self._births:
            self._made.append(self._made[-1] + 1)
        return there

    def _with_children(self, pids: Iterable[int]) -> tuple[int, ...]:
        assert list(pids) == [100]
        return tuple(self.cgroups())

    def _update(self, table: int, key: bytes, value: bytes) -> None:
        if key not in self.wanted[table] and len(self.wanted[table]) >= self._room:
            raise OSError(errno.E2BIG, "BPF map: Argument list too long")
        self.wanted[table].add(key)


def _settings(*, pids: tuple[int, ...] = (), comms: tuple[str, ...] = ()) -> Settings:
    settings = Settings()
    return replace(settings, filters=replace(settings.filters, pids=pids, comms=comms))


@pytest.mark.parametrize("births", [0, 1, 4])
def test_who_is_born_while_others_are_looked_for_is_wanted(
    monkeypatch: pytest.MonkeyPatch, births: int
) -> None:
    kernel = _Kernel(monkeypatch, births)
    assert want_born(_TABLES, settings=_settings(pids=(100,)), targets=Targets()) == 0
    assert kernel.pids() == set(range(101, 102 + births))


def test_a_cgroup_made_while_others_are_looked_for_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = _Kernel(monkeypatch, 3)
    targets = Targets(cgroup_ids=kernel.cgroups)
    monkeypatch.setattr(probeconfig, "with_children", lambda pids: ())
    want_born(_TABLES, settings=_settings(), targets=targets)
    assert len(kernel.wanted[_TABLES["wanted_cgroups"]]) == 5


def test_one_that_forks_for_ever_does_not_keep_a_recording_from_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = _Kernel(monkeypatch, 1 << 30)
    want_born(_TABLES, settings=_settings(pids=(100,)), targets=Targets())
    assert len(kernel.pids()) < 100


def test_who_finds_no_room_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _Kernel(monkeypatch, 4, room=2)
    refused = want_born(_TABLES, settings=_settings(pids=(100,)), targets=Targets())
    assert refused == 3
    names = counter_names(layouts())
    values = counted(np.zeros(2, layouts().dtype("cpu_state")), names, refused)
    assert (values.sum(), values[:, names.index("not_followed")].sum()) == (3, 3)


@pytest.mark.parametrize(
    ("settings", "targets", "message"),
    [
        (
            _settings(pids=tuple(range(1, 16386))),
            Targets(),
            "the filter holds 16,385 processes, at most 16,384",
        ),
        (
            _settings(),
            Targets(cgroup_ids=lambda: range(65537)),
            "the filter holds 65,537 cgroups, at most 65,536",
        ),
        (
            _settings(comms=tuple(f"n{i}" for i in range(65))),
            Targets(),
            "the filter holds 65 names of threads, at most 64",
        ),
    ],
)
def test_more_than_a_filter_holds_is_refused(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, targets: Targets, message: str
) -> None:
    _Kernel(monkeypatch, 0)
    with pytest.raises(UsageError) as raised:
        fill_filters(_TABLES, 2, settings=settings, targets=targets)
    assert (raised.value.message, "name fewer" in raised.value.hint) == (message, True)


def test_as_much_as_a_filter_holds_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = _Kernel(monkeypatch, 0)
    settings = _settings(pids=tuple(range(1, 16385)), comms=("a",) * 65)
    fill_filters(_TABLES, 2, settings=settings, targets=Targets())
    assert len(kernel.pids()) == 16384


def test_both_loaders_have_as_much_room() -> None:
    maps = libbpf.Object(object_path()).maps
    assert {n: f.entries for n, f in FILTERS.items()} == {n: maps[n].entries for n in FILTERS}


def test_ends_of_interrupts_are_seen_before_begins_are() -> None:
    ends = [name.endswith("_exit") for name in CONTEXT]
    assert ends == sorted(ends, reverse=True)
    assert sum(ends) * 2 == len(ends)
