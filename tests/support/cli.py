"""The program as a user runs it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from sltrace.cli.main import run
from tests.support.programs import ROOT


def sltrace(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command line; `options` are of subprocess.run."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [sys.executable, "-m", "sltrace", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        **options,
    )
    return done


def in_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The same within this process, which takes a tenth of the time."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with redirect_stdout(out), redirect_stderr(err):
        code = run(list(arguments))
    for stream in (out, err):
        stream.seek(0)
    return subprocess.CompletedProcess(arguments, code, out.read(), err.read())


def told(*arguments: str | Path) -> Any:
    """What a command tells with --json, which it must end well with."""
    done = in_process(*map(str, arguments), "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
