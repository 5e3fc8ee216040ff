"""What a recorder keeps once its probes are attached, and what it is told without that."""

from __future__ import annotations

import os

import pytest

from sltrace.capture import privileges
from sltrace.capture.maps import lookup
from sltrace.capture.overhead import run_statistics


@pytest.mark.parametrize(("version", "kept"), [((5, 12), True), ((5, 18), True), ((5, 19), False)])
def test_tables_can_be_read_on_every_kernel(version: tuple[int, int], kept: bool) -> None:
    """Before 5.19 every bpf(2) needs CAP_BPF."""
    needed = privileges.needed_after_attach(
        priorities=False, stacks=False, for_another_user=False, kernel=version
    )
    assert (privileges.BPF in needed) == kept


def test_a_refusal_is_not_taken_for_nothing() -> None:
    with pytest.raises(OSError, match="BPF map: "):
        lookup(-1, bytes(4), 8)
    with open(os.devnull) as other, pytest.raises(OSError, match="BPF program: "):
        run_statistics(other.fileno())


def test_a_program_that_is_not_loaded_never_ran() -> None:
    assert run_statistics(-2) == (0, 0, 0)
