"""Probes of a Go process that the kernel takes, or does not."""

from __future__ import annotations

import os
from unittest.mock import Mock

import pytest

from sltrace.capture import uprobes
from sltrace.capture.golang.attached import Attached
from sltrace.errors import CannotRecord
from sltrace.symbols.filebytes import FileBytes


def test_where_not_all_can_be_put_back_none_is(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    def attach(*_: object) -> list[int]:
        if len(taken) == 2:
            raise CannotRecord("too many open files", "")
        taken.append(os.open("/dev/null", os.O_RDONLY))
        return taken[-1:]

    monkeypatch.setattr(uprobes, "attach", attach)
    process = Mock()
    process.image.data = Mock(spec=FileBytes)
    places = [(3, 0x10), (4, 0x20), (5, 0x30)]
    attached = Attached(process, 0, places=list(places))
    with pytest.raises(CannotRecord):
        attached.put_back()
    assert not attached.links
    assert attached.places == places
    for link in taken:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(link)
