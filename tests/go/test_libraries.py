"""Go code that is loaded: plugins of Go programs, and libraries of others."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.golang import WITNESS, go_program
from tests.support.gorecords import column, counters_of, targets
from tests.support.recorder import one_line, recorder, sltrace

pytestmark = pytest.mark.bpf

PROGRAMS = WITNESS.parent
LOADING = """
import ctypes, sys
assert ctypes.CDLL(sys.argv[1]).Answer() == 42
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_library_of_another_program_is_named(tmp_path: Path) -> None:
    """What it does is not recorded, which nobody would know otherwise."""
    library = go_program(PROGRAMS / "library", mode="c-shared")
    with subprocess.Popen(
        [sys.executable, "-c", LOADING, library], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as program:
        try:
            assert program.stdout
            assert program.stdout.readline() == b"ready\n"
            # Then it has loaded what it loads.
            time.sleep(1)
            with recorder(tmp_path / "l.slt", "--pid", program.pid) as recording:
                time.sleep(0.6)
            (target,) = targets(recording.trace)
        finally:
            program.kill()
    assert (target["pid"], target["exe"], target["level"]) == (program.pid, str(library), None)
    assert "a library within a program that is not Go's" in target["why"]
    said = sltrace("go", recording.path)
    one_line(said, 2, "no Go process that was looked into", str(library), target["why"])


def test_a_program_with_a_plugin_is_read_but_not_probed(tmp_path: Path) -> None:
    """Goroutines run the plugin's copy of the runtime's code as well: probes would see a part."""
    plugin = go_program(PROGRAMS / "library", mode="plugin")
    host = go_program(PROGRAMS / "host", mode="cgo")
    with subprocess.Popen([host, plugin], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        try:
            assert program.stdout
            assert program.stdout.readline() == b"ready\n"
            with recorder(tmp_path / "p.slt", "--pid", program.pid) as recording:
                time.sleep(0.5)
            (target,) = targets(recording.trace)
        finally:
            program.kill()
    assert target["level"] == 0
    assert "it has loaded a plugin" in target["why"]
    assert counters_of(recording.trace)["go_hits"] == 0
    assert column(recording.trace, "SELECT count(*) FROM samples WHERE state = 'waiting'")[0]
