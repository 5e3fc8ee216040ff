"""What is attached of an object, where the kernel refuses a part of it."""

from __future__ import annotations

import errno
from pathlib import Path
from unittest.mock import Mock, call

import pytest

from sltrace.capture import libbpf
from sltrace.errors import CannotRecord


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """In the place of libbpf, with an object without programs and maps."""
    library = Mock()
    library.bpf_object__next_program.return_value = library.bpf_object__next_map.return_value = None
    monkeypatch.setattr(libbpf, "library", lambda: library)
    return library


def test_a_sampler_that_one_cpu_refuses_runs_on_none(
    monkeypatch: pytest.MonkeyPatch, library: Mock
) -> None:
    def opened(cpu: int, hertz: int) -> int:
        if cpu == 2:
            raise libbpf.refusal(f"sample CPU {cpu}", errno.ENODEV)
        return 100 + cpu

    monkeypatch.setattr(libbpf, "online_cpus", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(libbpf, "_open_cpu_clock", opened)
    probes = libbpf.Object(Path("some.bpf.o"))
    probes.programs["other"] = Mock(attach=lambda: 7)
    probes.programs["sample"] = Mock(attach_perf_event=lambda fd: 10 * fd)
    probes.attach("other")
    with pytest.raises(CannotRecord, match="sample CPU 2"):
        probes.attach_sampler("sample", 99)
    assert library.bpf_link__destroy.mock_calls == [call(1010), call(1000)]
    monkeypatch.setattr(libbpf, "online_cpus", lambda: [0, 1])
    probes.attach_sampler("sample", 99)
    probes.detach()
    assert library.bpf_link__destroy.mock_calls[2:] == [call(1010), call(1000), call(7)]


@pytest.mark.usefixtures("library")
def test_a_cpu_that_comes_or_comes_back_is_not_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = [0, 1, 2], ([0, 1, 2], [0, 1], [0, 1, 2], [0, 1], [0, 1, 3], [0, 1, 2, 3])
    monkeypatch.setattr(libbpf, "online_cpus", Mock(side_effect=[before, before, *seen]))
    monkeypatch.setattr(libbpf, "_open_cpu_clock", lambda cpu, hertz: 100 + cpu)
    probes = libbpf.Object(Path("some.bpf.o"))
    probes.programs["sample"] = Mock(attach_perf_event=lambda fd: 10 * fd)
    assert probes.cpus_not_sampled() == 0
    probes.attach_sampler("sample", 99)
    assert [probes.cpus_not_sampled() for _ in seen] == [0, 0, 1, 1, 2, 2]
