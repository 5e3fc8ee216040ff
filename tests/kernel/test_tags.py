"""The map of what threads are at, which all probes share."""

from __future__ import annotations

import os

import pytest

from sltrace.capture import maps, tags

pytestmark = pytest.mark.bpf


def test_tags_that_nobody_changes_any_more_are_taken_out() -> None:
    fd = tags.create_map()
    try:
        for tid in range(1, 1001):
            maps.update_map(fd, tid.to_bytes(4, "little"), bytes(48))
        assert len(maps.map_keys(fd, 4)) == 1000
        tags.clear(fd)
        assert maps.map_keys(fd, 4) == []
    finally:
        os.close(fd)
