"""What kernels older than the one the tests run on verify, read from the objects."""

from __future__ import annotations

import pytest

from sltrace.capture.probes import object_path
from tests.support.bpfcalls import Function, chains, functions

STACK, FRAMES, ROUNDED = 512, 8, 32
"""MAX_BPF_STACK and MAX_CALL_FRAMES of the kernel, and what it rounds each frame up to."""


def _bytes(chain: tuple[Function, ...]) -> int:
    return sum(-(-max(f.frame, 1) // ROUNDED) * ROUNDED for f in chain)


@pytest.mark.parametrize("name", ["sched", "python", "go", "obi"])
def test_no_chain_of_calls_is_too_deep(name: str) -> None:
    found = functions(object_path(name))
    called = {callee for function in found.values() for callee in function.calls}
    assert called <= set(found)
    entries = set(found) - called
    assert len(entries) > 1
    for chain in (chain for entry in entries for chain in chains(found, entry)):
        story = " > ".join(f"{f.name} {f.frame}" for f in chain)
        assert _bytes(chain) <= STACK, story
        assert len(chain) <= FRAMES, story
    if name == "python":
        # A callback of bpf_loop, in a frame below who asked for it.
        assert any(f.name == "walk_step" for at in called for f in [found[at]])
