"""Writes a result as Markdown for people and JSON for programs, into bench/results/."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.machine import describe

FOLDER = Path(__file__).with_name("results")


def write(
    name: str, title: str, header: Sequence[str], rows: Sequence[Sequence[str]], data: Any
) -> str:
    """Writes NAME.md and NAME.json with the machine at their head; returns the Markdown.

    Args:
        name: Of the files.
        title: Heading, and below it what was measured.
        header: Column names.
        rows: Cells of the table.
        data: Everything measured, for the JSON.
    """
    machine = describe()
    lines = [
        f"# {title}",
        "",
        f"{machine['cpu']}, {machine['cpus']} CPUs, Linux {machine['kernel']}, {machine['date']}.",
        "",
        _row(header),
        _row(["---"] * len(header)),
        *map(_row, rows),
        "",
    ]
    text = "\n".join(lines)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.md").write_text(text, encoding="utf-8")
    document = json.dumps({"machine": machine, **data}, indent=1)
    (FOLDER / f"{name}.json").write_text(document + "\n", encoding="utf-8")
    return text


def spread(values: Sequence[float], digits: int = 2) -> str:
    """`median [min-max]`."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} [{low:.{digits}f}-{high:.{digits}f}]"


def surely(values: Sequence[float]) -> str:
    """`median (low to high)`: where the median is in 19 of 20 repetitions, by ranks alone.

    The ranks are those of the sign test: a value is below the median as often as a coin shows
    heads. With fewer than 6 values there are none, and the range is all of them.
    """
    count, ordered = len(values), sorted(values)
    cut = max((k for k in range(count // 2) if _at_most_heads(k, count) <= 0.025), default=-1) + 1
    low, high = ordered[cut], ordered[count - 1 - cut]
    return within(statistics.median(values), low, high)


def within(value: float, low: float, high: float) -> str:
    """`value (low to high)`."""
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def _at_most_heads(most: int, tosses: int) -> float:
    return sum(math.comb(tosses, heads) for heads in range(most + 1)) / 2.0**tosses


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"
