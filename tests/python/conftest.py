"""Recording Python services for real."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import pytest

from sltrace.trace.reader import Trace
from tests.support.pythons import service
from tests.support.recorder import recorder


@dataclass(frozen=True)
class Contending:
    """Threads with one that has the GIL all the time, and what each does, by tid."""

    trace: Trace
    roles: dict[int, str]


@pytest.fixture(scope="session")
def contending(tmp_path_factory: pytest.TempPathFactory) -> Contending:
    path = tmp_path_factory.mktemp("contending") / "all.slt"
    with service("3.12", "contend", 30, 1) as process:
        roles = {int(t): r for t, r in json.loads(process.said).items()}  # type: ignore[attr-defined]
        with recorder(path, "--pid", process.pid) as recording:
            time.sleep(2)
    return Contending(recording.trace, roles)
