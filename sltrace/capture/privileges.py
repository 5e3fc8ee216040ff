"""Gives up the capabilities a recorder no longer needs once its probes are attached.

Reading mapped rings and tables needs none. Numbers: include/uapi/linux/capability.h.
"""

from __future__ import annotations

import ctypes as c
import os
import struct

CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH = 0, 1, 2
SYS_PTRACE, SYS_ADMIN, SYS_NICE, PERFMON, BPF, CHECKPOINT_RESTORE = 19, 21, 23, 38, 39, 40

_NAMES = {
    CHOWN: "CAP_CHOWN",
    DAC_OVERRIDE: "CAP_DAC_OVERRIDE",
    DAC_READ_SEARCH: "CAP_DAC_READ_SEARCH",
    SYS_PTRACE: "CAP_SYS_PTRACE",
    SYS_ADMIN: "CAP_SYS_ADMIN",
    SYS_NICE: "CAP_SYS_NICE",
    PERFMON: "CAP_PERFMON",
    BPF: "CAP_BPF",
    CHECKPOINT_RESTORE: "CAP_CHECKPOINT_RESTORE",
}

_VERSION_3 = 0x20080522
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAPBSET_DROP = 24
_LAST_CAP = "/proc/sys/kernel/cap_last_cap"


def effective() -> int:
    """This process's effective capabilities, a bit each."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def missing_to_record() -> list[str]:
    """Capabilities that loading and attaching the probes needs and this process lacks."""
    have = effective()
    if have >> SYS_ADMIN & 1:
        return []
    return [_NAMES[cap] for cap in (BPF, PERFMON) if not have >> cap & 1]


def keep_only(wanted: set[int]) -> list[str]:
    """Drops all capabilities but `wanted`, also for what this process would execute.

    Returns:
        Names of those kept, of those it had.

    Raises:
        OSError: The kernel refused; nothing is assumed about what is left.
    """
    libc = c.CDLL(None, use_errno=True)
    have = effective()
    kept = have & sum(1 << cap for cap in wanted)
    with open(_LAST_CAP) as file:
        last = int(file.read())
    for cap in range(last + 1):
        # Without CAP_SETPCAP the bounding set stays, and so does no_new_privs' protection.
        libc.prctl(_PR_CAPBSET_DROP, cap, 0, 0, 0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(c.get_errno(), "prctl")
    header = struct.pack("<Ii", _VERSION_3, 0)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    data = struct.pack("<6I", low, low, 0, high, high, 0)
    if libc.capset(header, data):
        number = c.get_errno()
        raise OSError(number, os.strerror(number))
    return [name for cap, name in sorted(_NAMES.items()) if kept >> cap & 1]


READ_MEMORY = frozenset({SYS_PTRACE})
"""To read memory of other users' processes, and what they run."""
READ_MAPPINGS = frozenset({SYS_PTRACE, CHECKPOINT_RESTORE})
"""To read files that they have mapped, too, also those that are deleted (/proc/PID/map_files)."""


_TABLES_NEED_NONE = (5, 19)
"""Linux version from which on maps that this process has open can be read and written without a
capability ("bpf: refine kernel.unprivileged_bpf_disabled behaviour"); before, that is refused
where kernel.unprivileged_bpf_disabled is not 0."""


def needed_after_attach(
    *,
    priorities: bool,
    stacks: bool,
    for_another_user: bool,
    kernel: tuple[int, int],
) -> set[int]:
    """What recording still needs, without its sources.

    Args:
        priorities: Real-time priorities cannot be asked for without.
        stacks: Addresses in other users' processes are to be named.
        for_another_user: The trace is handed to the user behind sudo.
        kernel: Major and minor of the running kernel.
    """
    # Paths of cgroups are found by their handle (open_by_handle_at).
    needed = {DAC_READ_SEARCH}
    if priorities:
        needed.add(SYS_NICE)
    if kernel < _TABLES_NEED_NONE:
        needed.add(BPF)
    if stacks:
        needed |= READ_MAPPINGS
    if for_another_user:
        needed |= {CHOWN, DAC_OVERRIDE}
    return needed
