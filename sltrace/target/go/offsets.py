"""Where the fields of the runtime's structures are, by Go version, in bytes.

Only fields near the beginning of each structure are used: those further down moved within minor
versions (m.alllink between 1.24.3 and 1.24.11). Each is checked on the live process before it is
trusted: see sltrace.target.go.verify.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from sltrace.target.go.errors import RefusedError
from sltrace.target.go.histograms import BEFORE_1_20, SINCE_1_20, Shape

G_STACK_LO, G_STACK_HI, G_M, G_SCHED_SP, G_SCHED_PC = 0, 8, 48, 56, 64
P_ID, P_STATUS, P_SCHEDTICK, P_SYSCALLTICK = 0, 4, 16, 20
G_BYTES = 400
"""Of a goroutine, what the probes read at once (probes/go_state.bpf.h)."""
P_BYTES = 64
"""Of a P, likewise the samplers."""
MAX_PS = 1 << 12
"""More than any machine has CPUs; a runtime with more is not one."""
SCHED_BYTES = 512
"""Of runtime.sched, what is read at once: all fields but the histograms."""
TRACKED_ONE_IN = 8
"""The runtime tracks one stop in this many of each goroutine (gTrackingPeriod)."""


@dataclass(frozen=True)
class Offsets:
    """Offsets within g, m, p and schedt; -1 for a field this version does not have.

    And how its histograms are laid out.
    """

    g_sched_bp: int
    g_syscallsp: int
    g_syscallbp: int
    g_status: int
    g_goid: int
    g_waitreason: int
    g_tracking: int
    g_startpc: int
    g_lockedm: int
    g_labels: int
    m_curg: int
    m_p: int
    p_m: int
    p_runqhead: int
    s_nmidle: int
    s_pidle: int
    s_npidle: int
    s_nmspinning: int
    s_runqsize: int
    s_gcwaiting: int
    s_time_to_run: int
    s_stw: int
    labels_are_map: bool
    histogram: Shape

    @property
    def p_runnext(self) -> int:
        """The goroutine that runs next: after head, tail and ring of the 256 others."""
        return self.p_runqhead + 8 + 2048


# It notes waits within casgstatus, where no probe can be.
_1_19 = Offsets(
    g_sched_bp=104, g_syscallsp=112, g_syscallbp=-1, g_status=144, g_goid=152, g_waitreason=176,
    g_tracking=188, g_startpc=312, g_lockedm=232, g_labels=360,
    m_curg=192, m_p=208, p_m=56, p_runqhead=400,
    s_nmidle=40, s_pidle=80, s_npidle=88, s_nmspinning=92, s_runqsize=112, s_gcwaiting=224,
    s_time_to_run=312, s_stw=-1, labels_are_map=True, histogram=BEFORE_1_20,
)  # fmt: skip
_1_21 = Offsets(
    g_sched_bp=104, g_syscallsp=112, g_syscallbp=-1, g_status=144, g_goid=152, g_waitreason=176,
    g_tracking=187, g_startpc=296, g_lockedm=208, g_labels=344,
    m_curg=192, m_p=208, p_m=56, p_runqhead=400,
    s_nmidle=40, s_pidle=80, s_npidle=88, s_nmspinning=92, s_runqsize=120, s_gcwaiting=232,
    s_time_to_run=320, s_stw=-1, labels_are_map=True, histogram=SINCE_1_20,
)  # fmt: skip
_1_22 = replace(_1_21, g_tracking=190, s_stw=1632)
_1_23 = replace(
    _1_22, g_syscallbp=128, g_status=152, g_goid=160, g_waitreason=184, g_tracking=198,
    g_startpc=304, g_lockedm=216, g_labels=352, p_m=48, p_runqhead=392,
)  # fmt: skip
_1_24 = replace(_1_23, labels_are_map=False)
_1_25 = replace(
    _1_24, g_sched_bp=96, g_syscallsp=104, g_syscallbp=120, g_status=144, g_goid=152,
    g_waitreason=176, g_tracking=190, g_startpc=296, g_lockedm=208, g_labels=344,
    m_curg=184, m_p=200,
    s_nmidle=48, s_pidle=88, s_npidle=96, s_nmspinning=100, s_runqsize=128, s_gcwaiting=248,
    s_time_to_run=344, s_stw=1656,
)  # fmt: skip
_1_26 = replace(
    _1_25, g_startpc=304, g_labels=352, m_p=208, p_runqhead=400,
    s_nmidle=64, s_pidle=104, s_npidle=112, s_nmspinning=116, s_runqsize=144, s_gcwaiting=264,
    s_time_to_run=360, s_stw=1672,
)  # fmt: skip
OFFSETS = {
    (1, 19): _1_19,
    (1, 21): _1_21,
    (1, 22): _1_22,
    (1, 23): _1_23,
    (1, 24): _1_24,
    (1, 25): _1_25,
    (1, 26): _1_26,
    (1, 27): _1_26,
}


_HARMLESS = frozenset({"boringcrypto", "strictfipsruntime"})
"""Experiments that are of cryptography only; distributions build with them."""


def offsets_of(version: str) -> Offsets:
    """Offsets for a version as the executable names it.

    Raises:
        RefusedError: It is not one of those known.
    """
    found = re.match(r"go(\d+)\.(\d+)(?![\d])", version)
    known = f"Go 1.19 and 1.21 to {'.'.join(map(str, max(OFFSETS)))} are known"
    if not found:
        raise RefusedError(f"it was built by {version!r}, no released Go; {known}")
    number = (int(found[1]), int(found[2]))
    if number not in OFFSETS:
        raise RefusedError(f"it was built by {version}; {known}")
    # As "go1.26.6-X:boringcrypto" or "go1.22.9 (Red Hat 1.22.9-2.el9_5) X:strictfipsruntime".
    _, _, experiments = version.partition("X:")
    if experiments and not _HARMLESS.issuperset(experiments.strip().split(",")):
        raise RefusedError(f"it was built by {version}: experiments may change its structures")
    return OFFSETS[number]
