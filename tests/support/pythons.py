"""The CPythons of this machine, and small services that run on them."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from sltrace.trace.reader import Trace
from tests.support.cgroups import Cgroup
from tests.support.loads import joining
from tests.support.programs import ROOT

PROGRAMS = Path(__file__).parents[1] / "python" / "programs"

MINORS = ("3.10", "3.11", "3.12", "3.13")
WANTED = (*MINORS, "stripped 3.11", "3.14")
"""One of each minor version that is looked into, and a distribution's stripped build."""

NO_GIL = "3.14t"
"""A free-threaded build (PEP 703)."""

_NO_GIL_PATH = "python3.14t/freeze_core/python3.14t"
_PLACES = ("/usr/bin", "/usr/local/bin")
_PYENVS = (Path.home() / ".pyenv", Path(os.environ.get("PYENV_ROOT", "/opt/pyenv")))


@cache
def _found() -> dict[str, str]:
    """Path by entry of WANTED, for those that are here and run."""
    candidates = [
        path
        for root in _PYENVS
        for minor in MINORS
        for path in sorted(root.glob(f"versions/{minor}.*/bin/python{minor}"), reverse=True)
    ]
    candidates += [Path(place) / f"python{minor}" for place in _PLACES for minor in MINORS]
    found: dict[str, str] = {}
    # What `make setup-test` unpacks: a distribution's newest, and one without GIL.
    for name, place in (("3.14", "python3.14/python3.14"), (NO_GIL, _NO_GIL_PATH)):
        unpacked = ROOT / "build" / place
        if unpacked.exists() and _runs(unpacked, "3.14"):
            found[name] = str(unpacked)
    for path in candidates:
        if not path.exists():
            continue
        minor = path.name.removeprefix("python")
        name = minor if path.parent.parent.parent.name == "versions" else f"stripped {minor}"
        if name not in found and _runs(path, minor):
            found[name] = str(path)
    for minor in MINORS:
        if minor not in found and (distribution := found.get(f"stripped {minor}")):
            found[minor] = distribution
    return found


def _runs(path: Path, minor: str) -> bool:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() == minor


def interpreter(name: str) -> str:
    """Path of an interpreter of WANTED, or NO_GIL; skips the test where there is none."""
    path = _found().get(name)
    if path is None:
        pytest.skip(f"no CPython {name} on this machine: what it would show is NOT TESTED")
    return path


def those_here(names: Iterable[str]) -> list[str]:
    """Those that are on this machine; the tests of others are skipped by `interpreter`."""
    return [name for name in names if name in _found()]


@cache
def _packages() -> Path:
    """Site packages of this environment that are plain Python, for every interpreter to import."""
    import opentelemetry.trace

    site = Path(opentelemetry.trace.__file__).parents[2]
    folder = Path(tempfile.mkdtemp(prefix="sltrace-packages-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in ("opentelemetry", "typing_extensions.py", "importlib_metadata", "zipp"):
        if (site / name).exists():
            (folder / name).symlink_to(site / name)
    for info in site.glob("opentelemetry_*.dist-info"):
        (folder / info.name).symlink_to(info)
    return folder


@contextmanager
def service(
    name: str,
    program: str,
    *arguments: object,
    packages: bool = False,
    env: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
    within: Cgroup | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """Runs a program of tests/python/programs on an interpreter; inside the block it is ready.

    Ready is the first line it prints. It is killed at the end of the block.
    """
    variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    if packages:
        variables["PYTHONPATH"] = str(_packages())
    path = sys.executable if name == "this" else interpreter(name)
    command = [*prefix, path, str(PROGRAMS / f"{program}.py"), *map(str, arguments)]
    process = subprocess.Popen(
        joining(command, within),
        stdout=subprocess.PIPE,
        text=True,
        env={**variables, **(env or {})},
    )
    assert process.stdout
    try:
        said = process.stdout.readline()
        assert said, f"{program} did not start"
        process.said = said  # type: ignore[attr-defined]
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def naps(trace: Trace, name: str) -> dict[int, int]:
    """How many waits there are in a function, by process."""
    rows = trace.sql(
        "SELECT w.pid, count(*) AS n FROM waits w JOIN stacks k ON k.stack_id = w.stack_runtime "
        "JOIN frames f ON f.pid = k.pid AND f.address = k.addresses[1] "
        "WHERE w.kind = 'blocked' AND w.reason = 'sleep' AND f.name = ? GROUP BY w.pid",
        [name],
    ).to_pylist()
    return {r["pid"]: r["n"] for r in rows}
