"""Looks at what recording needs, one check each; raises nothing."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sltrace.errors import CannotRecord, SltraceError

if TYPE_CHECKING:
    from sltrace.capture.golang.probes import GoProbes
    from sltrace.capture.python.probes import PythonProbes

State = Literal["ok", "limited", "missing"]
_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_SAYS_NOTHING = ("libbpf:", "processed ", "-- ")
_OLDEST = (5, 12)
"""Ring buffers came in 5.8, atomic compare-and-exchange in BPF in 5.12."""


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes:
        subject: What.
        state: ok; limited: recording works with less; missing: it does not work.
        text: What was found.
        advice: What to do about it; empty if nothing.
    """

    subject: str
    state: State
    text: str
    advice: str = ""


def examine() -> list[Check]:
    """All checks, in the order in which a recording would meet them."""
    found: list[Check] = []
    for look in _CHECKS:
        try:
            found.extend(look())
        except SltraceError as err:
            subject = look.__name__.strip("_").replace("_", " ")
            found.append(Check(subject, "missing", err.message, err.hint))
    return found


def reason(err: CannotRecord) -> CannotRecord:
    """A better explanation of why a recording could not start, if there is one.

    The kernel says EPERM for most of what it refuses.
    """
    for check in examine():
        if check.state == "missing":
            return CannotRecord(f"cannot record: {check.text}", check.advice)
    return err


def _system() -> list[Check]:
    if platform.system() != "Linux":
        return [Check("system", "missing", platform.system(), "sltrace records on Linux only")]
    if platform.machine() != "x86_64":
        return [
            Check("machine", "limited", f"{platform.machine()} is untested", "reports are welcome")
        ]
    return [Check("system", "ok", f"Linux {platform.release()} on {platform.machine()}")]


def _kernel() -> list[Check]:
    from sltrace.capture import kernel

    if kernel.version() < _OLDEST:
        wanted = ".".join(map(str, _OLDEST))
        return [Check("kernel", "missing", f"older than {wanted}", f"boot {wanted} or newer")]
    return []


def _privileges() -> list[Check]:
    from sltrace.capture.privileges import missing_to_record

    missing = missing_to_record()
    if missing:
        text = f"{' and '.join(missing)} missing"
        return [Check("privileges", "missing", text, "run it with sudo")]
    return [Check("privileges", "ok", "may load BPF programs")]


def _process_ids() -> list[Check]:
    from sltrace.capture import pidspace

    pidspace.refuse_another()
    return []


def _lockdown() -> list[Check]:
    try:
        text = _LOCKDOWN.read_text()
    except OSError:
        return []
    if "[confidentiality]" in text:
        return [
            Check(
                "lockdown",
                "missing",
                "the kernel is locked down for confidentiality",
                "boot without lockdown=confidentiality (or with Secure Boot off)",
            )
        ]
    return [Check("lockdown", "ok", "tracing is allowed")]


def _libbpf() -> list[Check]:
    from sltrace.capture import libbpf

    libbpf.library()
    return [Check("libbpf", "ok", "libbpf.so.1 found")]


def _probes() -> list[Check]:
    from sltrace.capture.probes import object_path

    return [Check("probes", "ok", str(object_path()))]


def _kernel_types() -> list[Check]:
    from sltrace.capture import kernel

    arguments = kernel.tracepoint_arguments("sched_switch")
    if arguments not in (3, 4):
        return [Check("sched_switch", "missing", f"{arguments} arguments, 3 or 4 are known")]
    found = [Check("kernel types (BTF)", "ok", f"{kernel.BTF_FILE} read")]
    found += [Check("this kernel", "limited", text) for text in kernel.limits()]
    return found


def _loading() -> list[Check]:
    """Loads and attaches for real: nothing else proves that it works."""
    from sltrace.capture import kernel, libbpf
    from sltrace.capture.privileges import missing_to_record
    from sltrace.capture.probeconfig import Targets
    from sltrace.capture.probes import LibbpfProbes
    from sltrace.capture.python.probes import PythonProbes
    from sltrace.capture.settings import Settings, Stacks

    if missing_to_record() or kernel.version() < _OLDEST:
        return []
    everything = Settings(stacks=Stacks(kernel=True, user=True, waker=True), ring_bytes=64 << 10)
    try:
        probes = LibbpfProbes(everything, Targets())
    except CannotRecord as err:
        said = libbpf.messages().partition("\n")[0]
        advice = err.hint
        if said and advice == libbpf.ASK_DOCTOR:
            advice = f"unless it is named above, report it with the kernel's version: {said}"
        return [Check("loading", "missing", err.message, advice)]
    probes.close()
    return [
        Check("loading", "ok", f"{len(probes.attached)} programs loaded and attached"),
        *(Check(name, "limited", why) for name, why in probes.not_attached),
        _runtime("Python", lambda tags_fd: PythonProbes(everything, tags_fd, cgroup_v1=False)),
        _runtime("Go", _load_go),
    ]


def _load_go(tags_fd: int) -> GoProbes:
    from sltrace.capture.golang.probes import TRACE_KEYS, GoProbes

    return GoProbes(tags_fd, level=2, cgroup_v1=False, trace_keys=TRACE_KEYS, measured=False)


def _runtime(name: str, load: Callable[[int], GoProbes | PythonProbes]) -> Check:
    """Loads what looks into a language's processes, and drops it."""
    from sltrace.capture import libbpf, tags

    tags_fd = tags.create_map()
    try:
        load(tags_fd).close()
    except CannotRecord as err:
        advice = f"the scheduler's view of them works; report it: {_reason(libbpf.messages())}"
        return Check(f"{name} services", "limited", err.message, advice)
    finally:
        os.close(tags_fd)
    return Check(f"{name} services", "ok", "the probes can be loaded")


def _reason(log: str) -> str:
    """What of a verifier's log says why."""
    lines = [line for line in log.splitlines() if line and not line.startswith(_SAYS_NOTHING)]
    return lines[-1] if lines else "the kernel does not say why"


def _cgroups() -> list[Check]:
    from sltrace.names.hierarchy import choose_hierarchy

    hierarchy = choose_hierarchy()
    if hierarchy.limit:
        advice = "run where it can be seen: in a container, with the host's /sys/fs/cgroup"
        return [Check("cgroups", "limited", hierarchy.limit, advice)]
    return [Check("cgroups", "ok", f"{hierarchy.kind} at {hierarchy.mount}: {hierarchy.why}")]


def _kernel_symbols() -> list[Check]:
    from sltrace.symbols.kernel import addresses_shown

    if not addresses_shown():
        advice = "as root: sysctl kernel.kptr_restrict=1" if os.geteuid() == 0 else "run as root"
        return [Check("kernel symbols", "limited", "addresses are hidden", advice)]
    return [Check("kernel symbols", "ok", "/proc/kallsyms is readable")]


def _bcc() -> list[Check]:
    from sltrace.capture.bcc_compiler import module_path

    try:
        module_path()
    except SltraceError as err:
        return [Check("--loader bcc", "limited", err.message, f"{err.hint}, if ever you need it")]
    return [Check("--loader bcc", "ok", "python3-bpfcc found")]


_CHECKS: tuple[Callable[[], list[Check]], ...] = (
    _system,
    _kernel,
    _privileges,
    _process_ids,
    _lockdown,
    _libbpf,
    _probes,
    _kernel_types,
    _loading,
    _cgroups,
    _kernel_symbols,
    _bcc,
)
