"""Builds the C load programs of tests/programs (and others') when their sources are newer."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "tests" / "programs"
BUILD = ROOT / "build" / "programs"
SHARED = ("common", "report")
FLAGS = ("-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-pthread")


class BuildError(Exception):
    """No C compiler, or it refused a source."""


@cache
def program(name: str) -> Path:
    """Path of the built load program `name`, e.g. `contend`.

    Raises:
        BuildError: No compiler, or it failed.
    """
    sources = tuple(SOURCES / f"{stem}.c" for stem in (name, *SHARED))
    return build(name, sources, (SOURCES / "common.h",))


def names() -> list[str]:
    """Every load program there is."""
    return sorted(p.stem for p in SOURCES.glob("*.c") if p.stem not in SHARED)


def build(
    name: str,
    sources: tuple[Path, ...],
    headers: tuple[Path, ...] = (),
    flags: tuple[str, ...] = FLAGS,
) -> Path:
    """Compiles `sources` into one program under build/programs, unless it is newer than they.

    Raises:
        BuildError: No compiler, or it failed.
    """

    def compile_into(partial: Path) -> None:
        compiler = next((c for c in ("cc", "gcc", "clang") if shutil.which(c)), None)
        if compiler is None:
            raise BuildError("no C compiler; install one with: apt-get install gcc libc6-dev")
        done = subprocess.run(
            [compiler, *flags, "-o", partial, *map(str, sources)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BuildError(f"{compiler} cannot build {name}:\n{done.stderr}")

    return once(BUILD / name, (*sources, *headers), compile_into)


def once(output: Path, sources: Iterable[Path], make: Callable[[Path], None]) -> Path:
    """Makes a file, in a place of its own first, unless it is newer than what it is made of.

    Another test process may want the same, and run it at once: who comes later must not replace
    what runs.
    """
    newest = max(p.stat().st_mtime_ns for p in sources)

    def is_new() -> bool:
        return output.exists() and output.stat().st_mtime_ns >= newest

    if is_new():
        return output
    output.parent.mkdir(parents=True, exist_ok=True)
    with (
        open(output.parent / f".{output.name}.lock", "wb") as lock,
        tempfile.TemporaryDirectory(dir=output.parent) as folder,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_new():
            partial = Path(folder) / output.name
            make(partial)
            partial.rename(output)
    return output
