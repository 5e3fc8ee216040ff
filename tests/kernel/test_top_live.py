"""`sltrace top` in a terminal of 80 columns and 24 lines, over a real load."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sltrace.cli.live import recorders
from sltrace.trace.reader import Trace
from tests.support.cgroups import cgroup
from tests.support.loads import allowed_cpus, load
from tests.support.programs import ROOT
from tests.support.terminal import Terminal, terminal

pytestmark = [pytest.mark.bpf, pytest.mark.alone]


def folders() -> list[Path]:
    """Temporary ones that a view has made, and not removed."""
    return list(Path(os.environ["TMPDIR"]).iterdir())


@pytest.fixture
def sltrace(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Its command line, from any folder; with temporary folders where nobody else has any."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("temporary")))
    return [sys.executable, "-m", "sltrace"]


@pytest.fixture
def two_hogs() -> Iterator[tuple[str, str]]:
    """Two threads that want one CPU, `waiter` and `holder`; their cgroups."""
    cpu = str(allowed_cpus()[-1])
    options = ("--cpu", cpu, "--duration", 60)
    with cgroup("ours") as ours, cgroup("theirs") as theirs:
        for group in (ours, theirs):
            group.weigh(50)
        with (
            load("hog", *options, "--comm", "waiter", within=ours),
            load("hog", *options, "--comm", "holder", within=theirs),
        ):
            yield ours.name, theirs.name


def row(screen: Terminal, name: str) -> list[str] | None:
    """The cells of the line that begins with a name."""
    line = next((text for text in screen.lines if text.startswith(name)), None)
    return re.split(r"  +", line) if line else None


def test_a_load_is_seen_sorted_filtered_and_recorded(
    tmp_path: Path, sltrace: list[str], two_hogs: tuple[str, str]
) -> None:
    ours, _ = two_hogs
    with terminal([*sltrace, "top"], cwd=tmp_path) as screen:
        # The first picture may be of less than a second, in which others held the CPU.
        screen.wait_for(lambda s: blames(row(s, ours), "holder "), "the waiting cgroup")
        assert len(folders()) == 1
        assert any(set(line[9:]) & set(".:-=+*#%@") for line in screen.lines[2:10])
        # Half of the time of one thread, as soon as a whole window is there.
        screen.wait_for(lambda s: half_a_second(row(s, ours)), "half a second a second")
        screen.press("v")
        screen.wait_for(lambda s: row(s, "waiter "), "threads")
        screen.press("v")
        screen.wait_for(lambda s: row(s, "holder ") and "WHO WAITED" in s.text, "culprits")
        screen.press("v/OURS")
        screen.wait_for(lambda s: "filter: OURS_" in s.lines[-1], "the filter being typed")
        screen.press("\r")
        screen.wait_for(
            lambda s: re.search(r"CGROUPS, \d+ s /OURS", s.text) and not row(s, "/theirs"),
            "the filter",
        )
        screen.press("s")
        screen.wait_for(lambda s: "WAITS/s*" in s.text, "the sorting")
        screen.press("k")
        screen.wait_for(lambda s: s.lines[1].startswith("quota"), "the other kind")
        screen.press("?")
        screen.wait_for(lambda s: "begin a recording that stays" in s.text, "the help")
        screen.press("?kk")
        screen.wait_for(lambda s: s.lines[1].startswith("run queue"), "the picture again")
        screen.press("p")
        screen.wait_for(lambda s: s.lines[0].endswith("PAUSED"), "the pause")
        screen.press("p")
        screen.wait_for(lambda s: "PAUSED" not in s.lines[0], "the end of the pause")
        screen.press("r")
        screen.wait_for(lambda s: "recording " in s.lines[-2], "the recording")
        (kept,) = until_begun(screen, tmp_path)
        screen.resize(100, 30)
        screen.wait_for(lambda s: s.lines[29].startswith("q quit"), "the larger screen")
        screen.press("r")
        screen.wait_for(lambda s: "recording " not in s.lines[-2], "the end of the recording")
        screen.press("q")
        assert screen.end() == 0
        assert f"recorded {kept}" in screen.raw.decode().replace("\r\n", "")
    assert folders() == []
    trace = Trace.open(kept)
    assert trace.notes == []
    found = trace.sql("SELECT count(*) AS n FROM waits WHERE comm = 'waiter'")["n"][0].as_py()
    assert found > 0


def recorder_of(screen: Terminal) -> int:
    """Process id of the recorder whose trace is looked at."""
    children = f"/proc/{screen.process.pid}/task/{screen.process.pid}/children"
    (recorder,) = map(int, Path(children).read_text().split())
    return recorder


def blames(cells: list[str] | None, name: str) -> bool:
    return cells is not None and cells[1].startswith(name)


def half_a_second(cells: list[str] | None) -> bool:
    match = re.fullmatch(r"(\d+) ms", cells[2]) if cells else None
    return match is not None and 350 < int(match[1]) < 650


def until_begun(screen: Terminal, folder: Path) -> list[Path]:
    """The recording that stays, once it has waits in it."""
    screen.wait_for(lambda s: list(folder.glob("*.slt/waits/*.parquet")), "its waits")
    return list(folder.glob("*.slt"))


@pytest.mark.parametrize("key", ["\x13", "\x1a"])
def test_the_disk_does_not_fill_while_nobody_can_look(
    tmp_path: Path, sltrace: list[str], key: str
) -> None:
    """After Ctrl-S, Ctrl-Z."""
    shell = ["bash", "--norc", "-i", "-c", '"$@"; echo it ended', "top"]
    with (
        load("victim", "--duration", 60),
        terminal([*shell, *sltrace, "top"], cwd=tmp_path) as screen,
    ):
        screen.wait_for(lambda s: row(s, "/"), "the picture")
        (folder,) = folders()
        screen.press(key)
        time.sleep(3)
        # Two a second, while they are not taken.
        assert len(list(folder.glob("live.slt/waits/*"))) <= 3
        screen.press("\x11q")
        screen.wait_for(lambda s: "it ended" in s.text, "the end")


def test_the_recorder_of_a_view_that_was_stopped_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be done within a process that got SIGSTOP."""
    *others, size = recorders.LIVE
    assert size == "--max-size=256M"
    monkeypatch.setattr(recorders, "LIVE", (*others, "--max-size=1M"))
    with load("pingpong", "--duration", 60, "--ping-cpu", allowed_cpus()[0]):
        recorder = recorders.LiveRecorder([])
        try:
            deadline = time.monotonic() + 50
            while not recorder.ended():
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert recorder.why_ended == "the trace has grown to 1 MiB"
        finally:
            recorder.close()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, "\x03"])
def test_however_it_ends_the_terminal_and_the_folder_are_as_before(
    tmp_path: Path, sltrace: list[str], how: signal.Signals | str
) -> None:
    with terminal([*sltrace, "top", "--no-blocked"], cwd=tmp_path) as screen:
        screen.wait_for(lambda s: "q quit" in s.lines[-1], "the picture")
        if isinstance(how, str):
            screen.press(how)
        else:
            screen.process.send_signal(how)
        code = screen.end()
    assert code == (0 if isinstance(how, str) else 128 + how)
    # rmcup: the screen that was there before comes back.
    assert screen.raw.rstrip().endswith((b"\x1b[?1049l\r\x1b[?1l\x1b>", b"\x1b>"))
    assert b"\x1b[?1049l" in screen.raw
    assert folders() == []


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({"LC_ALL": "C"}, "Zo?"),
        ({"LC_ALL": "xx_XX.UTF-8"}, "Zo?"),
        ({"LC_ALL": "", "LANG": "xx_XX.UTF-8"}, "Zoë"),
    ],
)
def test_names_are_shown_as_the_locale_can(
    tmp_path: Path, sltrace: list[str], environment: dict[str, str], shown: str
) -> None:
    """One that is not installed here, which ssh hands on, is taken as C."""
    options = ("--cpu", str(allowed_cpus()[-1]), "--duration", 60)
    with (
        load("hog", *options, "--comm", "Zoë"),
        load("hog", *options),
        terminal(
            [*sltrace, "top", "--comm", "Zoë"], cwd=tmp_path, environment=environment
        ) as screen,
    ):
        screen.press("v")
        screen.wait_for(lambda s: row(s, f"{shown} "), "its name")
        screen.press("q")
        assert screen.end() == 0


@pytest.mark.parametrize(("value", "coloured"), [("", True), ("1", False)])
def test_no_color_is_heeded(tmp_path: Path, sltrace: list[str], value: str, coloured: bool) -> None:
    with terminal([*sltrace, "top"], cwd=tmp_path, environment={"NO_COLOR": value}) as screen:
        screen.wait_for(lambda s: "q quit" in s.lines[-1], "the picture")
        screen.press("q")
        assert screen.end() == 0
    assert (b"\x1b[36m" in screen.raw) == coloured


def test_a_terminal_without_a_cursor_is_refused(tmp_path: Path, sltrace: list[str]) -> None:
    with terminal(
        [*sltrace, "top"], cwd=tmp_path, columns=200, environment={"TERM": "dumb"}
    ) as screen:
        assert screen.end() == 2
    assert screen.lines[0] == (
        "sltrace: this terminal cannot be used: it cannot move its cursor; "
        "set TERM, as TERM=xterm-256color"
    )


def test_a_second_ctrl_c_does_not_wait_and_leaves_nothing(
    tmp_path: Path, sltrace: list[str]
) -> None:
    with terminal([*sltrace, "top"], cwd=tmp_path) as screen:
        screen.wait_for(lambda s: "q quit" in s.lines[-1], "the picture")
        recorder = recorder_of(screen)
        os.kill(recorder, signal.SIGSTOP)
        try:
            screen.press("q")
            screen.wait_for(lambda s: b"\x1b[?1049l" in s.raw, "the end of the picture")
            time.sleep(0.5)
            screen.press("\x03")
            assert screen.end() == 130
        finally:
            os.kill(recorder, signal.SIGCONT)
    assert folders() == []


def test_it_ends_with_what_it_watches(tmp_path: Path, sltrace: list[str]) -> None:
    with (
        load("victim", "--duration", 60) as victim,
        terminal([*sltrace, "top", "--pid", str(victim.pid)], cwd=tmp_path) as screen,
    ):
        screen.wait_for(lambda s: row(s, "/"), "the picture")
        victim.stop()
        assert screen.end() == 0
        assert "the recorded processes have exited" in screen.raw.decode()


def test_a_recording_that_cannot_stay_says_why(tmp_path: Path, sltrace: list[str]) -> None:
    with terminal([*sltrace, "top"], cwd=Path("/sys"), columns=200) as screen:
        screen.wait_for(lambda s: "q quit" in s.lines[-1], "the picture")
        screen.press("r")
        screen.wait_for(lambda s: "not recorded: cannot create /sys/" in s.lines[-2], "the failure")
        screen.press("q")
        assert screen.end() == 6
    assert b"recorded /sys" not in screen.raw
    said = screen.raw.decode().splitlines()[-1].rpartition("sltrace: ")[2]
    assert said.startswith("cannot create /sys/")


def test_a_recorder_that_was_ended_is_not_taken_for_processes_that_exited(
    tmp_path: Path, sltrace: list[str]
) -> None:
    with terminal([*sltrace, "top"], cwd=tmp_path) as screen:
        screen.wait_for(lambda s: "q quit" in s.lines[-1], "the picture")
        os.kill(recorder_of(screen), signal.SIGTERM)
        assert screen.end() == 0
    assert screen.raw.decode().rstrip().endswith("the recorder has ended: stopped")


def test_no_runtime_is_probed_for_a_view_that_does_not_show_it(
    tmp_path: Path, sltrace: list[str]
) -> None:
    program = "import time\nfor _ in range(60_000): time.sleep(0.001)"
    with (
        subprocess.Popen([sys.executable, "-c", program]) as python,
        terminal([*sltrace, "top", "--pid", str(python.pid)], cwd=tmp_path) as screen,
    ):
        screen.wait_for(lambda s: row(s, "/"), "the picture")
        (folder,) = folders()
        assert json.loads((folder / "live.slt" / "meta.json").read_text())["sources"] == {}
        screen.press("r")
        (kept,) = until_begun(screen, tmp_path)
        python.kill()
        assert screen.end() == 0
    assert "python" in Trace.open(kept).meta["sources"]


def test_a_killed_view_leaves_no_recorder_behind(tmp_path: Path, sltrace: list[str]) -> None:
    with terminal([*sltrace, "top"], cwd=tmp_path) as screen:
        screen.wait_for(lambda s: "q quit" in s.lines[-1], "the picture")
        (folder,) = folders()
        screen.process.kill()
    meta = folder / "live.slt" / "meta.json"
    deadline = time.monotonic() + 20
    while not json.loads(meta.read_text())["finished"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--pid", "4000000"], 4, "there is no process 4000000"),
        (["--cpu", "x"], 2, "--cpu 'x' is not a CPU list"),
        (["--policy", "x"], 2, "Invalid value for '--policy'"),
    ],
)
def test_what_cannot_be_recorded_is_one_line(
    tmp_path: Path, sltrace: list[str], options: list[str], code: int, message: str
) -> None:
    with terminal([*sltrace, "top", *options], cwd=tmp_path, columns=200) as screen:
        assert screen.end() == code
    lines = screen.raw.decode().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("sltrace: ")
    assert message in lines[0]
    assert folders() == []
