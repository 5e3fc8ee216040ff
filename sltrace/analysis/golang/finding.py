"""One thing that is wrong with a Go process's scheduling, with its threshold and evidence."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sltrace.analysis.finding import Name


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        name: What it is; docs/go.md says of each from when on.
        pid: Of which process.
        start_ns: First seen, from the start of the recording; likewise end_ns.
        threshold: What it would have to stay below, in words.
        sentence: What is wrong.
        evidence: The numbers; times in ns.
    """

    name: Name
    pid: int
    start_ns: int
    end_ns: int
    threshold: str
    sentence: str
    evidence: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)
