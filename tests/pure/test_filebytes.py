"""Files that are read as bytes in memory would be."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sltrace.symbols.filebytes import FileBytes, is_unchanged


@given(st.binary(max_size=3), st.integers(0, 40), st.integers(0, 40))
def test_bytes_of_a_file_are_found_as_in_memory(wanted: bytes, start: int, end: int) -> None:
    data = b"abcabdabcaabbaabcabcabdabdabc"
    with tempfile.TemporaryFile() as file, mock.patch("sltrace.symbols.filebytes._CHUNK", 4):
        file.write(data)
        file.flush()
        stored = FileBytes(file)
        assert len(stored) == len(data)
        assert stored[start:end] == data[start:end]
        if wanted:
            assert stored.find(wanted, start, end) == data.find(wanted, start, end)


def test_a_file_for_which_no_descriptor_is_left_says_so_and_nothing_else() -> None:
    with (
        tempfile.TemporaryFile() as file,
        mock.patch("os.dup", side_effect=OSError(errno.EMFILE, "")),
        mock.patch("sys.unraisablehook") as unraisable,
        pytest.raises(OSError, match=str(errno.EMFILE)),
    ):
        FileBytes(file)
    assert not unraisable.called


def test_a_file_that_is_written_over_is_told_from_one_that_is_removed(tmp_path: Path) -> None:
    """Also where the same number of bytes is written, and its time is set back."""
    path = tmp_path / "file"
    path.write_bytes(b"first" * 9000)
    with path.open("rb") as file:
        stored = FileBytes(file)
    path.chmod(0o700)
    renamed = path.rename(tmp_path / "renamed")
    os.link(renamed, path)
    path.unlink()
    assert stored.is_unchanged()
    assert is_unchanged(stored)
    assert is_unchanged(b"first")
    status = renamed.stat()
    renamed.write_bytes(b"other" * 9000)
    os.utime(renamed, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not stored.is_unchanged()
    renamed.write_bytes(b"other" * 90)
    assert not is_unchanged(stored)
