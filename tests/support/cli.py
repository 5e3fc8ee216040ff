"""The program as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.programs import ROOT


def sltrace(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs a command line; `options` are of subprocess.run."""
    return subprocess.run(
        [sys.executable, "-m", "sltrace", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        **options,  # type: ignore[call-overload]
    )
