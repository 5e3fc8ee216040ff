from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sltrace.errors import OutputError, UsageError
from sltrace.export.sink import output
from sltrace.export.text import printable


def test_the_file_is_private_and_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "x"
    with output(str(target)) as out:
        out.write(b"half")
        assert not target.exists()
    assert target.read_bytes() == b"half"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_an_error_leaves_nothing_and_spares_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_text("old")
    with pytest.raises(TypeError), output(str(target), force=True) as out:
        out.write("not bytes")  # type: ignore[call-overload]
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_nothing_is_replaced_without_force(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_text("old")
    with pytest.raises(OutputError, match="--force"), output(str(target)):
        pass
    link = tmp_path / "dangling"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="exists already"), output(str(link)):
        pass
    with output(str(target), force=True) as out:
        out.write(b"new")
    assert target.read_text() == "new"


def test_a_full_disk_is_one_message() -> None:
    with (
        pytest.raises(OutputError, match=r"cannot write /dev/full: No space left"),
        output("/dev/full", force=True) as out,
    ):
        out.write(b"x" * 100_000)


def test_folders_and_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder"), output(str(tmp_path), force=True):
        pass
    with pytest.raises(OutputError, match="No such file"), output(str(tmp_path / "a" / "b")):
        pass


def test_binary_is_refused_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, terminal = os.openpty()
    with os.fdopen(terminal, "w") as stdout, os.fdopen(ours, "rb") as reader:
        monkeypatch.setattr("sys.stdout", stdout)
        with pytest.raises(UsageError, match="terminal"), output("-"):
            pass
        with output("-", text=True) as out:
            out.write(b"shown\n")
        assert reader.read1(100) == b"shown\r\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("web-1 ü 日本", "web-1 ü 日本"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\nb\tc\r\x7f\x9b", "a\\x0ab\\x09c\\x0d\\x7f\\x9b"),
        ("\u202e\u2066\u200b\ufeff\u2028", "\\u202e\\u2066\\u200b\\ufeff\\u2028"),
        ("\U000e0041", "\\ue0041"),
        (" \u3000", "\\x20\\u3000"),
        (" a", " a"),
        ("a\u3164b\u034f\u2800\ufe0f", "a\\u3164b\\u034f\\u2800\\ufe0f"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
