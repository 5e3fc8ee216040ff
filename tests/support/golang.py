"""Builds and drives the Go programs of the tests, with the toolchains that the Makefile fetched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support import goprofile
from tests.support.goprofile import scheduler_profile
from tests.support.programs import BUILD, ROOT, BuildError, once

WITNESS = ROOT / "tests" / "go" / "programs" / "witness"
TOOLCHAINS = ROOT / "build" / "go"
VERSIONS = ("1.22.10", "1.24.11", "1.26.6", "1.27.3")
OLD_VERSION = "1.19.8"
"""Of Debian 12; tests that want it are skipped where there is none."""
MODES: dict[str, tuple[str, tuple[str, ...]]] = {
    "plain": ("0", ()),
    "stripped": ("0", ("-ldflags=-s -w",)),
    "pie": ("0", ("-buildmode=pie",)),
    "cgo": ("1", ()),
}
"""CGO_ENABLED and options of `go build`, of programs."""
PROFILED = "profiled"
"""One more mode: with a profile that has the scheduler's functions inlined into each other. It
takes 20 s of a CPU for each version, as the standard library is built anew."""
_LIBRARY_MODES: dict[str, tuple[str, tuple[str, ...]]] = {
    "c-shared": ("1", ("-buildmode=c-shared",)),
    "plugin": ("1", ("-buildmode=plugin",)),
}


def go_command(version: str = VERSIONS[-1]) -> Path:
    """The `go` of a toolchain; run it with `go_environment`.

    Raises:
        BuildError: The toolchain is not there (make setup-test).
    """
    go = TOOLCHAINS / version / "go" / "bin" / "go"
    if not go.exists():
        if version == OLD_VERSION:
            pytest.skip(f"Go {version} is not to be had here: NOT TESTED")
        raise BuildError(f"Go {version} is not there; get it with: make setup-test")
    return go


def go_environment(version: str = VERSIONS[-1]) -> dict[str, str]:
    """This process's environment, with what keeps Go to its toolchain and off the network.

    What it compiles is in the user's own cache: its standard library, in each version and way of
    building, takes 100 s of a CPU.
    """
    return {
        "HOME": str(Path.home()),
        **os.environ,
        "GOROOT": str(TOOLCHAINS / version / "go"),
        "GOFLAGS": "-mod=mod",
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        "GO111MODULE": "off",
    }


@cache
def go_program(folder: Path, version: str = VERSIONS[-1], mode: str = "plain") -> Path:
    """Builds the main package in `folder` unless that was done since it changed.

    Raises:
        BuildError: The toolchain is not there (make setup-test), or it refused.
    """
    go = go_command(version)
    profiled = {PROFILED: ("0", (f"-pgo={_profile(version)}",))} if mode == PROFILED else {}
    cgo, options = (MODES | _LIBRARY_MODES | profiled)[mode]
    environment = go_environment(version) | {"CGO_ENABLED": cgo}

    def compile_into(partial: Path) -> None:
        sources = sorted(str(p) for p in folder.glob("*.go") if cgo == "1" or p.name != "cgo.go")
        done = subprocess.run(
            [go, "build", *options, "-o", partial, *sources],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        if done.returncode:
            raise BuildError(f"Go {version} cannot build {folder.name}:\n{done.stderr}")

    return once(BUILD / f"{folder.name}-{version}-{mode}", folder.glob("*.go"), compile_into)


def _profile(version: str) -> Path:
    path = BUILD / f"scheduler-{version}.pprof"
    runtime = TOOLCHAINS / version / "go" / "src" / "runtime"

    def write_into(partial: Path) -> None:
        partial.write_bytes(scheduler_profile(runtime))

    return once(path, [Path(goprofile.__file__)], write_into)


@dataclass
class Witness:
    """The witness program, running."""

    process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def tell(self, command: str) -> None:
        """Sends a command."""
        assert self.process.stdin
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        """What it says next."""
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def ask(self, command: str) -> Any:
        """Sends a command; its answer."""
        self.tell(command)
        return self.answer()


@contextmanager
def witness(
    version: str = VERSIONS[-1],
    mode: str = "plain",
    *,
    join: Path | None = None,
    copy: Path | None = None,
) -> Iterator[Witness]:
    """Runs tests/go/programs/witness; it ends with the block.

    Args:
        version: Of Go.
        mode: How it is built.
        join: List of processes of a cgroup that it is to be in from the start.
        copy: File that is made to be it, and run; one that is there is written over.
    """
    path = go_program(WITNESS, version, mode)
    if copy:
        shutil.copyfile(path, copy)
        copy.chmod(0o755)
        path = copy
    joining = (lambda: join.write_text(str(os.getpid()))) if join else None
    with subprocess.Popen(
        [path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=joining
    ) as process:
        try:
            running = Witness(process)
            running.answer()
            yield running
        finally:
            process.kill()
