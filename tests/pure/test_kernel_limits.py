"""What the running kernel cannot tell: what is no matter of its version."""

from __future__ import annotations

from pathlib import Path

import pytest

from sltrace.capture import kernel


def test_a_scheduler_of_sched_ext_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "BTF_FILE", tmp_path)
    monkeypatch.setattr(kernel, "has_field", lambda *_: True)
    monkeypatch.setattr(kernel, "tracepoint_arguments", lambda _: 4)
    monkeypatch.setattr(kernel, "_NUMA_BALANCING", tmp_path / "none")
    monkeypatch.setattr(kernel, "_SCHED_EXT", tmp_path / "ops")
    assert kernel.limits() == []
    (tmp_path / "ops").write_text("fifo\n")
    (said,) = kernel.limits()
    assert "sched_ext scheduler fifo runs" in said
