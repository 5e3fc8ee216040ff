"""Recording Python services for real."""

from __future__ import annotations

import pytest

from tests.kernel.conftest import Record, _into


@pytest.fixture
def record(tmp_path) -> Record:  # type: ignore[no-untyped-def]
    """`with record(*options) as recording:` records while the block runs."""
    return _into(tmp_path)
