"""Trace ids from OBI's pinned map, which the test pins and fills as OBI does."""

from __future__ import annotations

import os
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest

from sltrace.capture import libbpf, tags
from sltrace.capture.maps import map_keys, update_map
from sltrace.capture.obi import ObiSource
from tests.support.golang import witness
from tests.support.processes import endless
from tests.support.recorder import recorder

pytestmark = pytest.mark.bpf

LRU_HASH = 9
FIRST, SECOND, OTHER = (f"{i:032x}" for i in (0xA1, 0xB2, 0xC3))
SPAN = "00f067aa0ba902b7"


@contextmanager
def bpf_file_system(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "bpf", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def pinned(path: Path, value_bytes: int) -> int:
    path.parent.mkdir(exist_ok=True)
    fd = int(
        libbpf.library().bpf_map_create(LRU_HASH, b"traces_ctx_v1", 8, value_bytes, 1 << 14, None)
    )
    assert fd >= 0
    assert not libbpf.library().bpf_obj_pin(fd, os.fsencode(path))
    return fd


def set_context(fd: int, pid: int, tid: int, trace_id: str) -> None:
    key = struct.pack("<Q", pid << 32 | tid)
    update_map(fd, key, bytes.fromhex(trace_id + SPAN))


def tagged(fd: int) -> set[int]:
    return {int.from_bytes(key, "little") for key in map_keys(fd, 4)}


def test_threads_are_on_what_obi_says(tmp_path: Path) -> None:
    """As long as it does; and what a runtime knows of itself goes before."""
    with (
        bpf_file_system(tmp_path / "fs") as mount,
        endless(["sh", "-c", "while :; do sleep 0.005; done"]) as plain,
        witness() as go,
    ):
        fd = pinned(mount / "otel" / "traces_ctx_v1", 24)
        try:
            for thread in Path(f"/proc/{go.pid}/task").iterdir():
                set_context(fd, go.pid, int(thread.name), OTHER)
            set_context(fd, plain.pid, plain.pid, FIRST)
            options = ("--pid", plain.pid, "--pid", go.pid)
            with recorder(tmp_path / "o.slt", *options) as recording:
                changed = [time.monotonic_ns()]
                time.sleep(0.3)
                changed.append(time.monotonic_ns())
                key = struct.pack("<Q", plain.pid << 32 | plain.pid)
                assert not libbpf.library().bpf_map_delete_elem(fd, key)
                time.sleep(0.3)
                changed.append(time.monotonic_ns())
                set_context(fd, plain.pid, plain.pid, SECOND)
                logged = {trace_id for _, trace_id in go.ask("traced 300")}
                changed.append(time.monotonic_ns())
        finally:
            os.close(fd)
    rows = recording.trace.sql(
        "SELECT pid, kind, end_ns, wait_ns, trace_id, span_id, id_source FROM waits "
        "WHERE kind IN ('blocked', 'runq_preempt', 'runq_wakeup')"
    ).to_pylist()
    mine = [r for r in rows if r["pid"] == plain.pid and r["kind"] == "blocked"]
    for trace_id, start, end in zip((FIRST, None, SECOND), changed, changed[1:], strict=False):
        # What a wait is about is settled when it begins.
        inside = [r for r in mine if start < r["end_ns"] - r["wait_ns"] and r["end_ns"] < end]
        assert len(inside) > 3
        wanted = (trace_id, SPAN, "obi") if trace_id else (None, None, None)
        assert {(r["trace_id"], r["span_id"], r["id_source"]) for r in inside} == {wanted}
    theirs = [r for r in rows if r["pid"] == go.pid and r["trace_id"]]
    labelled = {r["trace_id"] for r in theirs if r["id_source"] == "pprof_labels"}
    assert labelled
    assert labelled <= logged
    assert {r["trace_id"] for r in theirs if r["id_source"] == "obi"} == {OTHER}
    own = recording.trace.meta["sources"]["obi"]
    assert own["map"] == str(mount / "otel" / "traces_ctx_v1")
    assert own["counters"]["obi_tagged"] > 20
    assert not own["refused"]


def test_a_thread_that_ends_leaves_no_tag(tmp_path: Path) -> None:
    """Its last switch-out comes after its exit, and OBI's map may still have it then."""
    tags_fd = tags.create_map()
    with bpf_file_system(tmp_path / "fs") as mount:
        path = mount / "traces_ctx_v1"
        source = ObiSource(path, fd := pinned(path, 24))
        try:
            source.attach(Mock(tags_fd=tags_fd))
            ended = []

            def ends() -> None:
                set_context(fd, os.getpid(), threading.get_native_id(), FIRST)
                time.sleep(0.001)
                assert threading.get_native_id() in tagged(tags_fd)
                ended.append(threading.get_native_id())

            for _ in range(20):
                thread = threading.Thread(target=ends)
                thread.start()
                thread.join()
            while any(Path(f"/proc/self/task/{tid}").exists() for tid in ended):
                time.sleep(0.01)
            assert len(ended) == 20
            # A thread is gone from /proc before it is switched out for the last time.
            until = time.monotonic() + 20
            while tagged(tags_fd) & set(ended):
                assert time.monotonic() < until
                time.sleep(0.01)
        finally:
            source.close()
            os.close(tags_fd)


def test_a_map_of_another_shape_is_not_read(tmp_path: Path) -> None:
    with bpf_file_system(tmp_path / "fs") as mount:
        fd = pinned(mount / "otel" / "traces_ctx_v1", 40)
        try:
            with recorder(tmp_path / "n.slt", "-d", "0.2") as recording:
                recording.wait()
        finally:
            os.close(fd)
    assert "obi" not in recording.trace.meta["sources"]


def test_a_go_service_that_begins_later_is_on_what_obi_says(tmp_path: Path) -> None:
    """Its probes come first, though no Go process was there when the recording began."""
    with bpf_file_system(tmp_path / "fs") as mount:
        fd = pinned(mount / "otel" / "traces_ctx_v1", 24)
        try:
            with recorder(tmp_path / "l.slt") as recording, witness() as go:
                until = time.monotonic() + 3
                while time.monotonic() < until:
                    for thread in Path(f"/proc/{go.pid}/task").iterdir():
                        set_context(fd, go.pid, int(thread.name), OTHER)
                    go.ask("work 10")
        finally:
            os.close(fd)
    rows = recording.trace.sql(
        "SELECT id_source, trace_id, count(*) AS n FROM waits JOIN targets USING (pid) "
        f"WHERE pid = {go.pid} AND kind IN ('blocked', 'runq_preempt', 'runq_wakeup') "
        "AND waits.end_ns - wait_ns > from_ns GROUP BY ALL"
    ).to_pylist()
    waits = {(r["id_source"], r["trace_id"]): r["n"] for r in rows}
    assert waits["obi", OTHER] > 20
    # A thread that is new has no context yet.
    assert waits["obi", OTHER] > 0.8 * sum(waits.values()), waits
