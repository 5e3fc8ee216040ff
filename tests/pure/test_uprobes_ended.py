"""Probes on functions of a program: what cannot be probed is said."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sltrace.capture import uprobes
from sltrace.errors import CannotRecord


def test_a_process_that_has_ended_is_an_error_of_its_own() -> None:
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(CannotRecord, match=f"cannot probe /proc/{process.pid}/root/bin/true"):
            uprobes.attach(999, Path(f"/proc/{process.pid}/root/bin/true"), [0])
