"""Which container, pod or systemd unit a cgroup path belongs to.

The shapes are those of container runtimes in use (`tests/pure/test_names_containers.py` has
some of each). An id counts only as the last component, but for `/init` and the like below it: a
session scope under user.slice may hold a UUID that is no container.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_HEX = r"[0-9a-f]{64}"
_SCOPE = re.compile(rf"(?P<runtime>[a-z][a-z-]{{1,31}})-(?P<id>{_HEX})(?:\.scope)?")
_BARE = re.compile(rf"(?P<id>{_HEX})")
_ECS = re.compile(r"(?P<id>[0-9a-f]{32}-[0-9]{1,10})")
_TRIPLE = re.compile(rf"[^:]{{1,255}}\.slice:(?P<runtime>[a-z][a-z-]{{1,31}}):(?P<id>{_HEX})")
_POD = re.compile(
    r"(?:[a-z-]*-)?pod(?P<uid>[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})"
    r"(?:\.slice)?"
)
_UNIT = re.compile(r".{1,200}\.(?:service|scope|slice|socket|mount)")
_INSIDE = {"init", "init.scope", "supervisor", "main"}
_RUNTIMES = {
    "cri-containerd": "containerd",
    "containerd": "containerd",
    "crio": "cri-o",
    "docker": "docker",
    "libpod": "podman",
    "nerdctl": "containerd",
}
_NOT_CONTAINERS = {"libpod-conmon", "crio-conmon"}
_LONGEST = 4096


@dataclass(frozen=True)
class CgroupIdentity:
    """What a cgroup path says; empty where it says nothing."""

    container_id: str = ""
    runtime: str = ""
    pod_uid: str = ""
    unit: str = ""


def identify(path: str) -> CgroupIdentity:
    """Reads a cgroup path, `/kubepods.slice/...`."""
    parts = [p for p in path[:_LONGEST].split("/") if p]
    if not parts:
        return CgroupIdentity()
    container_id, runtime = _container(parts)
    return CgroupIdentity(container_id, runtime, _pod(parts), _unit(parts))


def _container(parts: list[str]) -> tuple[str, str]:
    # A container's own init may have made cgroups below its own.
    while len(parts) > 1 and parts[-1] in _INSIDE:
        parts = parts[:-1]
    last, above = parts[-1], parts[-2] if len(parts) > 1 else ""
    if (found := _SCOPE.fullmatch(last)) and found["runtime"] not in _NOT_CONTAINERS:
        runtime = found["runtime"].removeprefix("user-")
        return found["id"], _RUNTIMES.get(runtime, runtime)
    if found := _TRIPLE.fullmatch(last):
        return found["id"], _RUNTIMES.get(found["runtime"], found["runtime"])
    if found := _BARE.fullmatch(last):
        runtime = "docker" if above == "docker" else "podman" if above == "libpod_parent" else ""
        return found["id"], runtime
    if (found := _ECS.fullmatch(last)) and "ecs" in parts[0]:
        return found["id"], "ecs"
    return "", ""


def _pod(parts: list[str]) -> str:
    for part in reversed(parts):
        # `kubelet-kubepods-burstable-pod<uid>.slice:cri-containerd:<id>` names both in one part.
        if found := _POD.fullmatch(part.partition(":")[0]):
            return found["uid"].replace("_", "-")
    return ""


def _unit(parts: list[str]) -> str:
    for part in reversed(parts):
        if _UNIT.fullmatch(part) and not part.endswith(".slice"):
            return _unescaped(part)
    return ""


def _unescaped(unit: str) -> str:
    """systemd writes special characters as \\xHH, byte by byte of UTF-8 (systemd-escape(1))."""

    def characters(found: re.Match[str]) -> str:
        text = bytes.fromhex(found[0].replace("\\x", "")).decode(errors="replace")
        return text if text.isprintable() else found[0]

    return re.sub(r"(?:\\x[0-9a-f]{2})+", characters, unit)
