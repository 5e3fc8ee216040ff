"""Trace ids that OpenTelemetry's eBPF instrumentation (OBI) publishes: a source for any language.

OBI pins a map, `otel/traces_ctx_v1` below a BPF file system, from thread (pid and tid as the kernel
numbers them) to 16 bytes of trace id and 8 of span id; its bpf/shared/obi_ctx.h calls that stable.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sltrace.capture import libbpf
from sltrace.capture.btf import Btf
from sltrace.capture.maps import map_info, sum_over_cpus
from sltrace.capture.probes import counter_names, object_path
from sltrace.capture.sources import Context, Rows
from sltrace.errors import CannotRecord

if TYPE_CHECKING:
    import pyarrow as pa

NAMES = ("otel/traces_ctx_v1", "traces_ctx_v1")
_KEY_BYTES, _VALUE_BYTES = 8, 24
_KINDS = (1, 9)
"""BPF_MAP_TYPE_HASH and _LRU_HASH."""
_PROGRAMS = ("obi_switch", "obi_exit")


class ObiSource:
    """What OBI says each thread is on, of those whose runtime says nothing itself.

    Args:
        path: Where its map is pinned.
        map_fd: The map; the source closes it.
    """

    name = "obi"
    privileges: frozenset[int] = frozenset()

    def __init__(self, path: Path, map_fd: int) -> None:
        self._path = path
        self._map_fd = map_fd
        self._object: libbpf.Object | None = None
        self._counters: dict[str, int] = {}
        self._refused = ""

    def attach(self, context: Context) -> None:
        """Loads and attaches, after the sources of runtimes: their ids are kept."""
        path = object_path("obi")
        opened = libbpf.Object(path)
        try:
            opened.maps["task_tags"].reuse(context.tags_fd)
            opened.maps["obi_contexts"].reuse(self._map_fd)
            opened.load()
            for name in _PROGRAMS:
                opened.attach(name)
        except CannotRecord as err:
            opened.close()
            self._refused = str(err)
            return
        context.take_tags()
        self._object = opened
        self._names = counter_names(Btf.of_object(path), "obi_counter")

    def fill(self) -> float:
        """There is no ring."""
        return 0.0

    def drain(self) -> None:
        """Nothing: ids come with the scheduler's own records."""

    def rows(self) -> Rows:
        """None of its own."""
        return iter(())

    def detach(self, end_ns: int) -> None:
        """Takes its programs out."""
        if self._object is not None:
            self._object.detach()

    def finish(self) -> Rows:
        """None of its own."""
        return iter(())

    def targets(self) -> Sequence[pa.Table]:
        """None of its own."""
        return ()

    def describe(self) -> dict[str, Any]:
        """Where the map is, and how many switches of threads had an id in it."""
        if self._object is not None:
            fd, cpus = self._object.maps["obi_counters"].fd, libbpf.possible_cpus()
            self._counters = {
                name: sum_over_cpus(fd, i, cpus) for i, name in enumerate(self._names)
            }
        return {"map": str(self._path), "refused": self._refused, "counters": self._counters}

    def close(self) -> None:
        """Lets go of everything."""
        if self._object is not None:
            self.describe()
            self._object.close()
            self._object = None
        if self._map_fd >= 0:
            os.close(self._map_fd)
            self._map_fd = -1


def obi_source() -> ObiSource | None:
    """A source where OBI's map is pinned; None where none is, or it is of another shape."""
    for path in _places():
        fd = int(libbpf.library().bpf_obj_get(os.fsencode(path)))
        if fd < 0:
            continue
        kind, _, key, value = map_info(fd)
        if kind in _KINDS and (key, value) == (_KEY_BYTES, _VALUE_BYTES):
            return ObiSource(path, fd)
        os.close(fd)
    return None


def _places() -> Iterator[Path]:
    """Where it may be: below each BPF file system that is mounted."""
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ")[:1] == ["bpf"]:
            # Spaces and the like are octal there, as \040.
            mount = before.split(" ")[4].encode().decode("unicode_escape")
            yield from (path for name in NAMES if (path := Path(mount) / name).exists())
