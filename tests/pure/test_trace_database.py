"""What reading a trace takes of the machine, and leaves behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sltrace.errors import TraceError
from sltrace.trace.database import connect
from sltrace.trace.reader import Trace
from tests.support.traces import make_trace


def _large(rows: int) -> str:
    return f"SELECT i, count(*) FROM (SELECT unnest(range({rows})) AS i) GROUP BY i ORDER BY i DESC"


def test_what_does_not_fit_is_put_beside_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    connection = connect()
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    connection.execute("SET threads = 1; SET memory_limit = '40MB'")
    assert connection.sql(_large(2_000_000)).fetchmany(1) == [(1_999_999, 1)]
    assert any(folder.iterdir())
    del connection
    assert not folder.exists()


def test_nothing_is_left_where_the_end_comes_while_the_folder_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made: list[Path] = []
    make = os.mkdir

    def interrupted(path: str | Path, mode: int) -> None:
        make(path, mode)
        made.extend(tmp_path.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr("os.mkdir", interrupted)
    with pytest.raises(KeyboardInterrupt):
        connect()
    gc.collect()
    assert len(made) == 1
    assert not any(tmp_path.iterdir())


def test_too_little_room_is_no_damage(tmp_path: Path) -> None:
    trace = Trace.open(make_trace(tmp_path, [{"wait_ns": 1, "tid": 2}]))
    trace.connection.execute("SET temp_directory = ''; SET memory_limit = '40MB'")
    with pytest.raises(TraceError, match="not enough memory and disk") as caught:
        trace.sql(_large(2_000_000))
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_of_a_command_that_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    """While it runs a query, as it does nearly all the time."""
    path, spills = make_trace(tmp_path, [{"wait_ns": 1, "tid": 2}]), tmp_path / "spills"
    spills.mkdir()
    # DuckDB looks up between one part of the rows and the next, which are many here.
    lasting = "SELECT i FROM range(100_000_000) AS t(i) ORDER BY hash(i)"
    code = (
        "import sltrace.analysis.latency as l, sltrace.cli.main as m\n"
        "def stat(trace, *_, **__):\n"
        "    trace.connection.execute(\"SET threads = 1; SET memory_limit = '60MB'\")\n"
        f"    return trace.sql({lasting!r})\n"
        "l.stat = stat\n"
        "m.main()"
    )
    reading = subprocess.Popen(
        [sys.executable, "-c", code, "stat", str(path)],
        env={"TMPDIR": str(spills)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until = time.monotonic() + 60
        while not any(spills.glob("*/*")):
            assert reading.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        reading.send_signal(number)
        assert reading.communicate(timeout=60)[1] == ""
        assert reading.returncode == 128 + number
    finally:
        reading.kill()
    assert not any(spills.iterdir())
