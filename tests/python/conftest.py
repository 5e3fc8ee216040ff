"""Recording Python services for real."""

from __future__ import annotations

import pytest

from tests.kernel.conftest import Record, _into


@pytest.fixture
def record(tmp_path) -> Record:  # type: ignore[no-untyped-def]
    """`with record(*options) as recording:` records while the block runs."""
    return _into(tmp_path)


@pytest.fixture(scope="module")
def record_once(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """The same for a recording that several tests of a module look at."""
    return _into(tmp_path_factory.mktemp("recorded"))
