"""What the recorder says that its probes cost, against the kernel's own account of them."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sltrace.capture import libbpf
from sltrace.capture.overhead import STATS_RUN_TIME
from tests.support.recorder import recorder

pytestmark = pytest.mark.bpf

PING_PONG = """
import os, threading, time
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
here, there, ends = os.pipe(), os.pipe(), time.monotonic() + 60
def answer():
    while os.read(here[0], 1):
        os.write(there[1], b".")
threading.Thread(target=answer, daemon=True).start()
print("ready", flush=True)
while time.monotonic() < ends:
    os.write(here[1], b".")
    os.read(there[0], 1)
    # Others have a CPU to run on, too.
    time.sleep(0.0002)
"""


def run_time_ns(pid: int) -> int:
    """Of all BPF programs that a process holds, as the kernel counts while it is asked to."""
    found = {}
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        text = ""
        # Programs stay; files are closed meanwhile.
        with contextlib.suppress(FileNotFoundError):
            text = info.read_text()
        if ran := re.search(r"^run_time_ns:\s*(\d+)$", text, re.MULTILINE):
            found[re.findall(r"^prog_id:\s*(\d+)$", text, re.MULTILINE)[0]] = int(ran[1])
    return sum(found.values())


@pytest.mark.parametrize("options", [(), ("--stacks", "both")])
def test_with_a_filter_it_is_what_kept_switches_cost(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """With stacks many times what those cost that are left out."""
    command = [sys.executable, "-c", PING_PONG]
    stats = int(libbpf.library().bpf_enable_stats(STATS_RUN_TIME))
    assert stats >= 0
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE) as load:
            try:
                assert load.stdout
                assert load.stdout.readline()
                path, wanted = tmp_path / "o.slt", ("--pid", load.pid, "--no-python", *options)
                with recorder(path, *wanted) as recording:
                    before = run_time_ns(recording.process.pid)
                    time.sleep(4)
                    spent = run_time_ns(recording.process.pid) - before
            finally:
                load.kill()
    finally:
        os.close(stats)
    told = recording.trace.meta["overhead"]
    assert not told["probe_ns_at_least"]
    assert told["probe_ns_per_kept"] > told["probe_ns_per_switch"] > 0
    # It was recorded for somewhat longer than it was looked at.
    assert 0.5 * spent < told["probe_ns"] < 2 * spent


def test_where_nothing_is_kept_it_is_the_least(tmp_path: Path) -> None:
    with recorder(tmp_path / "n.slt", "--comm", "nobody is called so") as recording:
        time.sleep(1)
    told = recording.trace.meta["overhead"]
    assert told["probe_ns_at_least"]
    assert told["probe_ns_per_kept"] == 0
    assert abs(told["probe_ns"] / told["switches"] - told["probe_ns_per_switch"]) < 0.1
