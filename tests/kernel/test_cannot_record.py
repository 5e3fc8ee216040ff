"""Machines on which it cannot record, made of this one: each gets one line that says why."""

from __future__ import annotations

import ctypes.util
from pathlib import Path

import pytest

from sltrace.capture import kernel
from sltrace.capture.checkup import examine
from sltrace.capture.probeconfig import Targets
from sltrace.capture.probes import LibbpfProbes
from sltrace.capture.settings import Settings
from sltrace.errors import CannotRecord
from tests.support.recorder import sltrace

pytestmark = pytest.mark.bpf

BTF = Path("/sys/kernel/btf/vmlinux")


def libbpf() -> Path:
    name = ctypes.util.find_library("bpf")
    assert name
    return next(p for p in Path("/usr/lib").rglob(name))


def without(hidden: Path) -> list[str]:
    """Prefix under which a file is there and empty."""
    script = 'mount --bind /dev/null "$0" && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, str(hidden)]


def locked_down(folder: Path) -> list[str]:
    """Prefix under which the kernel says that it is locked down."""
    folder.joinpath("lockdown").write_text("none integrity [confidentiality]\n")
    script = 'mount -t tmpfs none /sys/kernel/security && cp "$0" /sys/kernel/security && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, str(folder / "lockdown")]


def old() -> list[str]:
    """Prefix under which the kernel says that it is a 2.6."""
    return ["setarch", "--uname-2.6"]


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        (without(BTF), ("no BTF", "--loader bcc")),
        (without(libbpf()), ("libbpf.so.1", "apt install libbpf1")),
    ],
    ids=["no BTF", "no libbpf"],
)
def test_record_says_what_is_missing(
    tmp_path: Path, prefix: list[str], words: tuple[str, ...]
) -> None:
    path = tmp_path / "t.slt"
    done = sltrace("record", "-q", "-d", "1", "-o", path, prefix=prefix)
    assert done.code == 3
    assert done.err.count("\n") == 1
    for word in words:
        assert word in done.err
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("btf", ("no BTF", "--loader bcc")),
        ("libbpf", ("libbpf.so.1",)),
        ("lockdown", ("locked down", "lockdown=confidentiality")),
        ("old", ("older than 5.12",)),
    ],
)
def test_doctor_says_it_up_front(tmp_path: Path, name: str, words: tuple[str, ...]) -> None:
    prefixes = {
        "btf": without(BTF),
        "libbpf": without(libbpf()),
        "lockdown": locked_down(tmp_path),
        "old": old(),
    }
    done = sltrace("doctor", prefix=prefixes[name])
    assert done.code == 3, done.out
    assert "will NOT work here" in done.out
    missing = [line for line in done.out.splitlines() if "MISSING" in line or "->" in line]
    for word in words:
        assert any(word in line for line in missing), done.out


def test_a_switch_with_arguments_nobody_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """5.18 added one, first in the middle: what stands where is not guessed."""
    monkeypatch.setattr(kernel, "tracepoint_arguments", lambda name: 5)
    with pytest.raises(CannotRecord, match="5 arguments, 3 or 4 are known"):
        LibbpfProbes(Settings(), Targets())
    found = [f for f in examine() if f.subject == "sched_switch"]
    assert [(f.state, f.text) for f in found] == [("missing", "5 arguments, 3 or 4 are known")]


def test_doctor_here(tmp_path: Path) -> None:
    done = sltrace("doctor")
    assert done.code == 0, done.out
    assert done.out.splitlines()[-1] == "sudo sltrace record will work here."
