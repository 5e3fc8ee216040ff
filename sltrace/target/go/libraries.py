"""Go code that a process has loaded beside its program: plugins, and libraries for C."""

from __future__ import annotations

from dataclasses import dataclass

from sltrace.symbols.elf import Elf, ElfError
from sltrace.symbols.filebytes import Data
from sltrace.symbols.mappings import MappingRecorder
from sltrace.target.go.buildinfo import BuildInfo, read_buildinfo
from sltrace.target.go.errors import NotGoError
from sltrace.target.go.image import Image

PLUGIN = "plugin"
"""How one is built. Its copy of the runtime's code works with the runtime of the program."""
_MAX_FILES = 1 << 14


@dataclass(frozen=True)
class Library:
    """Attributes: path, as the process sees it; GNU build id; and what Go's linker wrote."""

    path: str
    build_id: str
    info: BuildInfo


class Libraries:
    """Looks for them; which files are none is remembered."""

    def __init__(self) -> None:
        self._maps = MappingRecorder()
        self._known: dict[tuple[str, str], Library | None] = {}

    def of(self, pid: int) -> list[Library]:
        """Those of a process; none where it has ended or may not be looked at."""
        # A file has several mappings. The first is that of the program.
        mapped = {(m.file, m.path): m for m in self._maps.read_maps(pid) if m.path[:1] == "/"}
        found = []
        for key, mapping in list(mapped.items())[1:]:
            if key not in self._known and len(self._known) < _MAX_FILES:
                data = self._maps.open_file(pid, mapping)
                # Of a process that has just ended there is none.
                if data is not None:
                    self._known[key] = _library(mapping.path, data)
            if library := self._known.get(key):
                found.append(library)
        return found


def _library(path: str, data: Data) -> Library | None:
    try:
        return Library(path, Elf(data).build_id, read_buildinfo(Image(data)))
    except (OSError, ElfError, NotGoError):
        return None
