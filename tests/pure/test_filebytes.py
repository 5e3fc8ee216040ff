"""Files that are read as bytes in memory would be."""

from __future__ import annotations

import errno
import tempfile
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sltrace.symbols.filebytes import FileBytes


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
