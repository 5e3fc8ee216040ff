"""Builds the C load programs of tests/programs (and others') when their sources are newer."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
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

    Safe against another test process that builds the same one: the result is renamed into place.

    Raises:
        BuildError: No compiler, or it failed.
    """
    output = BUILD / name
    newest = max(p.stat().st_mtime_ns for p in (*sources, *headers))
    if output.exists() and output.stat().st_mtime_ns >= newest:
        return output
    compiler = next((c for c in ("cc", "gcc", "clang") if shutil.which(c)), None)
    if compiler is None:
        raise BuildError("no C compiler; install one with: apt-get install gcc libc6-dev")
    BUILD.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=f".{name}.", dir=BUILD)
    os.close(handle)
    done = subprocess.run(
        [compiler, *flags, "-o", partial, *map(str, sources)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        Path(partial).unlink()
        raise BuildError(f"{compiler} cannot build {name}:\n{done.stderr}")
    Path(partial).chmod(0o755)
    Path(partial).rename(output)
    return output
