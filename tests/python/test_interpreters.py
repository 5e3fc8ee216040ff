"""Interpreters that are loaded later, copied, removed, replaced, or built in other ways."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from sltrace.names.proc import with_children
from sltrace.target.memory import Memory
from sltrace.target.python.interpreter import find
from sltrace.trace.reader import Trace
from tests.support.programs import FLAGS, build
from tests.support.pythons import PROGRAMS, WANTED, interpreter, naps
from tests.support.recorder import Record, of_pids

pytestmark = pytest.mark.bpf


def _shared_library() -> tuple[str, str]:
    """A libpython that can be loaded, and the PYTHONHOME that it needs."""
    code = (
        "import os, sys, sysconfig as s\n"
        "names = (s.get_config_var('INSTSONAME'), s.get_config_var('LDLIBRARY'))\n"
        "paths = [os.path.join(s.get_config_var('LIBDIR'), n) for n in names if n and '.so' in n]\n"
        "print(next((p for p in paths if os.path.exists(p)), ''))\n"
        "print(sys.base_prefix)\n"
    )
    for name in ("3.13", *(n for n in WANTED if n != "3.13")):
        done = subprocess.run(
            [interpreter(name), "-c", code], capture_output=True, text=True, check=True
        )
        library, home = done.stdout.split("\n")[:2]
        # What was unpacked elsewhere says where it would be installed: another one may be there.
        if library and Path(library).is_relative_to(home):
            return library, home
    pytest.skip("no shared libpython on this machine: a program that loads one is NOT TESTED")


def test_a_python_that_is_loaded_later(record: Record) -> None:
    library, home = _shared_library()
    program = build("embedder", (PROGRAMS / "embedder.c",), flags=(*FLAGS, "-ldl"))
    process = subprocess.Popen(
        [program, library],
        stdin=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "PYTHONHOME": home},
    )
    assert process.stdin
    try:
        with record("--pid", process.pid) as recording:
            time.sleep(0.7)
            process.stdin.close()
            time.sleep(2.6)
            assert process.poll() is None
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
    rows = recording.trace.sql("SELECT pid, level, why FROM targets").to_pylist()
    assert rows == [{"pid": process.pid, "level": 1, "why": ""}]
    assert naps(recording.trace, "nap_of_the_embedded").get(process.pid, 0) > 3


_COLLECT = """
import gc, time
print("ready", flush=True)
while True:
    gc.collect()
    time.sleep(0.02)
"""


def _copied(folder: Path) -> Path:
    """A file of its own with a whole interpreter in it; a distribution's has it in no library."""
    folder.mkdir()
    return Path(shutil.copy(interpreter("stripped 3.11"), folder / "python3.11"))


@contextmanager
def _collecting(python: Path, home: str = "/usr", **env: str) -> Iterator[int]:
    """Runs what collects garbage 40 times a second on an interpreter; its pid."""
    process = subprocess.Popen(
        [python, "-c", _COLLECT],
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "PYTHONHOME": home, **env},
    )
    assert process.stdout
    try:
        assert process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _collections(trace: Trace) -> dict[int, int]:
    rows = trace.sql(
        "SELECT pid, count(*) AS n FROM waits WHERE kind = 'stw' AND reason = 'gc' GROUP BY pid"
    ).to_pylist()
    return {r["pid"]: r["n"] for r in rows}


def test_collections_of_two_copies_of_an_interpreter(record: Record, tmp_path: Path) -> None:
    """As in two containers of one image, or two virtual environments."""
    with ExitStack() as stack:
        pids = [stack.enter_context(_collecting(_copied(tmp_path / n))) for n in ("one", "two")]
        with record(*of_pids(pids)) as recording:
            time.sleep(1)
    found = _collections(recording.trace)
    assert {pid for pid, n in found.items() if n > 5} == set(pids)


def test_collections_of_interpreters_whose_files_were_removed_or_replaced(
    record: Record, tmp_path: Path
) -> None:
    """As an upgrade does while the service runs on."""
    removed, replaced = _copied(tmp_path / "removed"), _copied(tmp_path / "replaced")
    with _collecting(removed) as one, _collecting(replaced) as other:
        removed.unlink()
        replaced.unlink()
        shutil.copy("/bin/sleep", replaced)
        with record("--pid", one, "--pid", other) as recording:
            time.sleep(1)
    found = _collections(recording.trace)
    assert min(found.get(one, 0), found.get(other, 0)) > 5


def test_collections_of_an_interpreter_that_was_optimized_as_a_whole(
    record: Record, tmp_path: Path
) -> None:
    """The linker has given the collector, which is not exported, another name."""
    library, home = _shared_library()
    if not shutil.which("objcopy"):
        pytest.skip("no objcopy on this machine: a collector of another name is NOT TESTED")
    symbol = "gc_collect_main"
    renaming = f"--redefine-sym={symbol}={symbol}.lto_priv.0"
    subprocess.run(["objcopy", renaming, library, tmp_path / Path(library).name], check=True)
    python = Path(home, "bin", "python3")
    with (
        _collecting(python, home, LD_LIBRARY_PATH=str(tmp_path)) as pid,
        record("--pid", pid) as recording,
    ):
        time.sleep(1)
    assert _collections(recording.trace).get(pid, 0) > 5


_MANY_THREADS = """
import threading
stop = threading.Event()
for _ in range(200):
    threading.Thread(target=stop.wait, args=(60,), daemon=True).start()
print("ready", flush=True)
stop.wait(60)
"""


@pytest.mark.parametrize("prefix", [(), ("unshare", "--pid", "--fork", "--kill-child")])
def test_threads_are_found_by_their_numbers_in_a_namespace(prefix: tuple[str, ...]) -> None:
    command = [*prefix, sys.executable, "-c", _MANY_THREADS]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        assert running.stdout
        assert running.stdout.readline()
        pid = with_children([running.pid])[-1]
        memory = Memory(pid)
        try:
            assert (pid == running.pid) == (not prefix)
            assert find(pid, memory, set()).version == platform.python_version()
        finally:
            memory.close()
            running.kill()
