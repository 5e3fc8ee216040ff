"""A trace that is being written is nobody else's to replace."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sltrace.errors import OutputError
from sltrace.trace.writer import TraceWriter
from tests.support.programs import ROOT
from tests.support.traces import META

_MESSAGE = "is being written by another sltrace; let that end, or choose another -o"


def test_a_trace_that_is_being_written_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "busy.slt"
    writer = TraceWriter.create(path, META)
    before = (path / "meta.json").read_bytes()
    with pytest.raises(OutputError, match=_MESSAGE):
        TraceWriter.create(path, META, force=True)
    assert (path / "meta.json").read_bytes() == before
    writer.close()
    TraceWriter.create(path, META, force=True).close()


def test_a_trace_whose_writer_was_killed_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "killed.slt"
    code = (
        "import os, sys; from pathlib import Path; from sltrace.trace.writer import TraceWriter; "
        "writer = TraceWriter.create(Path(sys.argv[1]), {}); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, check=True)
    TraceWriter.create(path, META, force=True).close()
