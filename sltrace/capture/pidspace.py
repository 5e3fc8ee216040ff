"""Whether process ids mean here what they mean to the kernel's probes."""

from __future__ import annotations

from pathlib import Path

from sltrace.errors import CannotRecord

_OF_THIS = Path("/proc/self/ns/pid")
_INITIAL = "pid:[4026531836]"  # PROC_PID_INIT_INO, include/linux/proc_ns.h


def refuse_another() -> None:
    """Raises CannotRecord within a container that numbers its processes itself.

    The probes know a process by the host's number: a filter would select nothing or another one,
    and names read from /proc would be of others.
    """
    try:
        space = str(_OF_THIS.readlink())
    except OSError:
        # No /proc: other things are missing, too.
        return
    if space != _INITIAL:
        raise CannotRecord(
            "process ids are this container's own here, and the kernel's probes know the host's",
            "record on the host, or with its ids: docker run --pid=host, hostPID: true",
        )
