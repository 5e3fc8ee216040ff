from __future__ import annotations

import ctypes
import locale
import re
from dataclasses import replace

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sltrace.analysis.ranges import Range
from sltrace.capture.accounts import Status
from sltrace.cli import output
from sltrace.cli.statusline import status_line

SIZES = {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}


@pytest.mark.parametrize(
    ("ns", "shown"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1000, "1.00 us"),
        (1234, "1.23 us"),
        (999_499, "999 us"),
        (999_500, "1.00 ms"),
        (9_996_000, "10.0 ms"),
        (45_600_000_000, "45.6 s"),
        (1_234_000_000_000, "1,234 s"),
    ],
)
def test_durations(ns: int, shown: str) -> None:
    assert output.duration(ns) == shown


@given(st.integers(0, 10**17))
def test_a_duration_is_right_to_half_a_percent_and_short(ns: int) -> None:
    match = re.fullmatch(r"([\d,.]+) (ns|us|ms|s)", output.duration(ns))
    assert match
    value = float(match[1].replace(",", "")) * SIZES[match[2]]
    assert abs(value - ns) <= 0.005 * ns
    assert match[2] == "s" or len(match[1]) <= 4


def test_ranges() -> None:
    assert output.between(Range(1500, 1500)) == "1.50 us"
    assert output.between(Range(1000, 1119)) == "1.00 us - 1.12 us"
    assert output.between(Range(10**9, None)) == "> 1.00 s"
    assert output.between(Range(1_000_001, 1_000_002)) == "1.00 ms"
    assert output.between(Range(0, None)) == "not known"


def test_unknown_is_a_dash_and_names_are_clean() -> None:
    assert output.text(None) == "-"
    assert output.text("\x1b[31mred\u202e") == "\\x1b[31mred\\u202e"
    assert output.text(3) == "3"
    assert output.text("") == '""'


def test_numbers_are_right_aligned_names_left() -> None:
    lines = output.table(["NAME", "N"], [["a", "1,000"], ["日本", "2"]], names=1).splitlines()
    assert lines == ["NAME      N", "a     1,000", "日本      2"]


@given(
    st.lists(st.text(st.characters(codec="utf-8", categories=["L", "N"]), max_size=60), max_size=4),
    st.integers(30, 100),
)
def test_only_names_are_cut_and_the_table_fits(names: list[str], columns: int) -> None:
    rows = [[name, name[::-1], "1,234,567", "1.23 ms"] for name in names]
    lines = output.table(["A", "B", "C", "D"], rows, names=2, columns=columns).splitlines()
    # Two names of 12 columns, and the numbers, are the least.
    assert all(output.width(line) <= max(columns, 12 + 2 + 12 + 2 + 9 + 2 + 7) for line in lines)
    assert all(line.endswith("1,234,567  1.23 ms") for line in lines[1:])


def test_the_middle_of_a_path_goes_first() -> None:
    path = "/kubepods.slice/kubepods-pod1234.slice/cri-containerd-abcdef.scope"
    short = output.shorten(path, 31)
    assert output.width(short) == 31
    assert short.startswith("/kubepods.slice")
    assert short.endswith("-abcdef.scope")
    assert output.shorten("abc", 3) == "abc"


def test_the_line_of_a_recording_fits_the_terminal() -> None:
    status = Status(3, 1_234_567, 12_345_678, 9, 0, 0.01, 0.02, at_least=False)
    whole = click.unstyle(status_line(status, 1000))
    assert whole.endswith("  1,234,567 switches/s  probes 2.0%, recorder 1.0% of a CPU")
    for columns in (20, 40, 80, len(whole) + 1):
        line = click.unstyle(status_line(status, columns))
        assert whole.startswith(line)
        assert len(line) < columns
    assert line == whole
    # On the narrowest screens, as one of several of tmux, what was lost stays.
    assert click.unstyle(status_line(status, 40)) == "    3 s  12,345,678 waits kept  9 lost"
    filtered = click.unstyle(status_line(replace(status, at_least=True), 1000))
    assert filtered.endswith("  probes at least 2.0%, recorder 1.0% of a CPU")


@pytest.mark.parametrize(
    "text", ["Zwölf", "e\u0301", "❤\ufe0f", "ที่นั่น", "नमस्ते", "שָׁלוֹם", "漢字", "한글", "1\u20dd", "👩"]
)
def test_text_is_as_wide_as_the_c_library_says(text: str) -> None:
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    try:
        library = ctypes.CDLL(None)
        assert output.width(text) == sum(library.wcwidth(ord(c)) for c in text)
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
