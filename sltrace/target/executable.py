"""The program that a process runs."""

from __future__ import annotations

import os
from pathlib import Path

from sltrace.procfs import folder_of


def exe_of(pid: int, proc: Path = Path("/proc")) -> str:
    """Path of a process's executable, as text; " (deleted)" at the end where it is gone.

    Raises:
        OSError: The process has ended, or may not be looked at.
    """
    # Who makes the file names it, in any bytes.
    return os.fsencode((folder_of(pid, proc) / "exe").readlink()).decode(errors="replace")
