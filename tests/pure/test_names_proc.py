"""Pids that a user types, looked up in a made-up /proc."""

from __future__ import annotations

from pathlib import Path

import pytest

from sltrace.errors import TargetError
from sltrace.names.proc import resolve_pid
from sltrace.procfs import namespace_pids


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    for pid, inner in ((10, 10), (20, 5)):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "status").write_text(f"Name:\tx\nNSpid:\t{pid}\t{inner}\n")
    return tmp_path


def test_unknown_pids_are_refused_with_a_hint(proc: Path) -> None:
    assert resolve_pid(20, proc) == 20
    with pytest.raises(TargetError, match="a container calls 20 that"):
        resolve_pid(5, proc)
    with pytest.raises(TargetError, match="there is no process 4711"):
        resolve_pid(4711, proc)


def test_a_process_of_many_groups_has_a_number_in_its_container_too(proc: Path) -> None:
    groups = " ".join(map(str, range(1_000_000, 1_000_500)))
    status = f"Name:\tx\nGroups:\t{groups} \nNSpid:\t20\t5\n"
    (proc / "20/status").write_text(status)
    assert namespace_pids(proc / "20") == [20, 5]


def test_a_thread_is_no_process(proc: Path) -> None:
    (proc / "21").mkdir()
    (proc / "21/status").write_text("Name:\tworker\nTgid:\t20\nNSpid:\t21\t6\n")
    with pytest.raises(TargetError, match="21 is no process, but a thread of 20") as raised:
        resolve_pid(21, proc)
    assert "--pid 20" in str(raised.value.hint)
