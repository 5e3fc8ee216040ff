"""diagnosis: each finding at its threshold and just below it, with the numbers of the waits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sltrace.analysis.diagnosis import Diagnosis, diagnose
from sltrace.cli.diagnose import command
from sltrace.model import PID_SPACE
from sltrace.trace.reader import Trace
from tests.pure.test_analysis_latency import random_waits
from tests.support.traces import SECOND, make_trace

MS = 1_000_000
HOG: dict[str, Any] = {
    "culprit_pid": 9,
    "culprit_tid": 9,
    "culprit_comm": "hog",
    "culprit_cgroup": "/b",
}
IDLE: dict[str, Any] = {"culprit_pid": 0, "culprit_tid": 0, "culprit_comm": "idle"}


def of(folder: Path, waits: list[dict[str, Any]], **more: Any) -> Diagnosis:
    """Diagnosis of a recording of 10 s on 2 CPUs."""
    return diagnose(Trace.open(make_trace(folder, waits, **more)))


def names(result: Diagnosis) -> list[str]:
    return [f.name for f in result.findings]


def behind_hog(count: int, wait_ns: int = 10 * MS, **more: Any) -> list[dict[str, Any]]:
    row = {"wait_ns": wait_ns, "cgroup": "/a", "culprit_ns": wait_ns * 3 // 4, **HOG, **more}
    return [{**row, "end_ns": i * 100 * MS} for i in range(1, count + 1)]


def test_contention_from_a_twentieth_of_the_time_on(tmp_path: Path) -> None:
    assert names(of(tmp_path, behind_hog(49))) == []
    (found,) = of(tmp_path, behind_hog(50)).findings
    assert (found.name, found.lost) == ("contention", 0.05)
    assert dict(found.numbers) == {
        "waited_ns": 500 * MS,
        "waits": 50,
        "longest_ns": 10 * MS,
        "culprit_ns": 375 * MS,
    }
    assert "/a waited 500 ms for a CPU within 10.0 s (100% of it `web`), in" in found.sentence
    assert "75% of that time `hog` of /b ran" in found.sentence
    assert "Give /a a larger share than /b (cpu.weight" in found.advice
    assert "keep `hog` off" in found.advice
    assert found.values == {"cgroup": ("/a",), "kind": ("runq_wakeup", "runq_preempt")}


def test_who_is_named_waited_longest_and_not_most_often(tmp_path: Path) -> None:
    """A plurality of the waits is not most of them."""
    waits = behind_hog(30, comm="brief") + behind_hog(10, 60 * MS, comm="slow")
    waits += behind_hog(10, comm="other")
    (found,) = of(tmp_path, waits).findings
    assert "waited 1.00 s for a CPU within 10.0 s (60% of it `slow`), in 50 waits" in found.sentence
    device = {"kind": "blocked", "state": "D", "waker_context": "softirq"}
    (found,) = of(tmp_path, [row | device for row in waits]).findings
    assert "were blocked for 1.00 s within 10.0 s (60% of it `slow`) in waits" in found.sentence


def test_contention_is_of_long_waits_behind_somebody(tmp_path: Path) -> None:
    assert names(of(tmp_path, behind_hog(5000, MS - 1))) == []
    assert names(of(tmp_path, behind_hog(50, **IDLE))) == []
    assert names(of(tmp_path, behind_hog(50, kind="blocked"))) == []
    (found,) = of(tmp_path, behind_hog(50, culprit_cgroup="/a")).findings
    assert "of the same cgroup" in found.sentence
    assert "more runnable threads" in found.advice
    unknown: dict[str, Any] = dict.fromkeys([*HOG, "culprit_ns"])
    (found,) = of(tmp_path, behind_hog(50, **unknown)).findings
    assert "Nobody stands out" in found.advice
    # Who ran for a hundredth of the time is named, and nobody who ran for less.
    for ran, named in ((MS // 10, True), (MS // 10 - 1, False)):
        (found,) = of(tmp_path, behind_hog(50, culprit_ns=ran)).findings
        assert ("`hog`" in found.sentence) == named
    (found,) = of(tmp_path, behind_hog(50, **unknown)).findings
    assert "ran" not in found.sentence.partition("longest")[2]


def test_the_root_has_no_share_to_be_changed(tmp_path: Path) -> None:
    (found,) = of(tmp_path, behind_hog(50, culprit_cgroup="/")).findings
    assert found.advice.startswith("Put `hog` into a cgroup with a smaller share than /a")
    (found,) = of(tmp_path, behind_hog(50, cgroup="/")).findings
    assert found.advice.startswith("Give /b a smaller share")
    (found,) = of(tmp_path, behind_hog(50, cgroup="/", culprit_cgroup="/")).findings
    assert found.advice.startswith("There are more runnable threads than CPUs")
    merged = [{"host": f"web{i}", "pid_offset": i * PID_SPACE} for i in range(2)]
    parts = [{**part, "start_ns": 0, "end_ns": 10 * SECOND} for part in merged]
    for cgroup, culprit, advice in (
        ("web0:/a", "web0:/", "Put `hog` into a cgroup with a smaller share than web0:/a"),
        ("web0:/", "web0:/b", "Give web0:/b a smaller share"),
        ("web1:/", "web1:/", "There are more runnable threads than CPUs"),
    ):
        waits = behind_hog(50, cgroup=cgroup, culprit_cgroup=culprit)
        (found,) = of(tmp_path, waits, meta={"merged": parts}).findings
        assert found.advice.startswith(advice)


def test_advice_is_given_once(tmp_path: Path) -> None:
    waits = [w for c in ("/x", "/y") for w in behind_hog(60, cgroup=c, kind="throttled")]
    out = CliRunner().invoke(command, [str(make_trace(tmp_path, waits))]).output
    assert out.count("CPU quota:") == 2
    assert out.count("raise or remove the quota") == 1
    assert out.count("-> As above.") == 1


def test_a_cgroup_each_and_no_more_than_asked_for(tmp_path: Path) -> None:
    waits = [w for i in range(5) for w in behind_hog(60 + i, cgroup=f"/{i}")]
    trace = Trace.open(make_trace(tmp_path, waits))
    assert [f.values["cgroup"] for f in diagnose(trace).findings] == [("/4",), ("/3",), ("/2",)]
    assert len(diagnose(trace, most=9).findings) == 5


def test_real_time_threads_behind_normal_ones_have_used_up_their_bandwidth(tmp_path: Path) -> None:
    fifo: dict[str, Any] = {"kind": "runq_preempt", "policy": "FIFO", "prio": 50}
    hog = {"tid": 9, "pid": 9, "wait_ns": 1, "end_ns": SECOND, "cgroup": "/b", "prio": 120}
    (found,) = of(tmp_path, [*behind_hog(10, **fifo), hog]).findings
    assert (found.name, found.lost, found.numbers["waits"]) == ("bandwidth", 0.01, 10)
    assert "of /a were held back for 100 ms within 10.0 s" in found.sentence
    assert "cpu.rt_runtime_us" in found.advice
    assert names(of(tmp_path, [*behind_hog(9, **fifo), hog])) == []
    # The CPU may also have been idle; one that was made real-time while it waited is no sign.
    assert names(of(tmp_path, behind_hog(10, **fifo | IDLE))) == ["bandwidth"]
    assert names(of(tmp_path, [*behind_hog(2, SECOND, **fifo), hog])) == []
    assert names(of(tmp_path, [*behind_hog(3, SECOND, **fifo), hog])) == ["bandwidth"]
    # Behind others like them, behind one of whom nothing is known, and behind a system call.
    for victim, other in (
        (fifo, hog | {"prio": 99}),
        (fifo, hog | {"tid": 10}),
        (fifo | {"kind": "runq_wakeup"}, hog),
        (fifo | {"policy": "OTHER", "prio": 120}, hog),
    ):
        assert names(of(tmp_path, [*behind_hog(50, **victim), other])) == ["contention"]


def test_quota_from_a_hundredth_of_the_time_on(tmp_path: Path) -> None:
    throttled = {"kind": "throttled", "wait_ns": 50 * MS, "cgroup": "/q", "cgroup_id": 7}
    cgroups = [{"cgroup_id": 7, "path": "/q", "quota_us": 20_000, "period_us": 100_000}] * 2
    assert names(of(tmp_path, [{**throttled, "wait_ns": 50 * MS - 1}, throttled])) == []
    (found,) = of(tmp_path, [throttled, throttled], cgroups=cgroups).findings
    assert (found.name, found.lost) == ("quota", 0.01)
    assert found.numbers == {"waited_ns": 100 * MS, "waits": 2, "longest_ns": 50 * MS}
    assert "/q were held back for 100 ms within 10.0 s" in found.sentence
    assert "0.20 CPUs (20 ms in 100 ms)" in found.sentence
    (found,) = of(tmp_path, [throttled, throttled]).findings
    assert "a cgroup above it" in found.sentence


def test_a_quota_may_be_that_of_a_cgroup_above(tmp_path: Path) -> None:
    throttled = {"kind": "throttled", "wait_ns": SECOND, "cgroup": "/q/own", "cgroup_id": 8}
    cgroups = [
        {"cgroup_id": number, "path": path, "quota_us": us, "period_us": 100_000}
        for number, path, us in ((8, "/q/own", 90_000), (7, "/q", 20_000))
    ]
    above = {"culprit_cgroup_id": 7, "culprit_cgroup": "/q"}
    (found,) = of(tmp_path, [throttled | above], cgroups=cgroups).findings
    assert found.sentence.startswith("threads of /q/own were held back")
    assert "That of /q was 0.20 CPUs (20 ms in 100 ms)." in found.sentence


def test_the_quota_that_is_named_is_the_one_that_held_last(tmp_path: Path) -> None:
    throttled = {"kind": "throttled", "wait_ns": 50 * MS, "cgroup": "/q", "cgroup_id": 7}
    cgroups = [
        {"cgroup_id": 7, "quota_us": us, "period_us": period_us, "seen_ns": ns}
        for us, period_us, ns in ((20_000, 50_000, 2), (150_000, 100_000, 1), (None, None, 3))
    ]
    (found,) = of(tmp_path, [throttled, throttled], cgroups=cgroups).findings
    assert "Its quota was at last 0.40 CPUs (20 ms in 50 ms)." in found.sentence


def cpu_times(**by_name: tuple[int, int]) -> dict[str, Any]:
    """For CPU 0 and 1, in hundredths of the recording."""
    times = {
        cpu: {n: v[i] * SECOND // 10 for n, v in by_name.items()} for i, cpu in enumerate("01")
    }
    return {"cpu_times": times}


def test_steal_from_a_hundredth_of_the_cpus_on(tmp_path: Path) -> None:
    below = cpu_times(steal=(0, 2))
    below["cpu_times"]["1"]["steal"] -= 1
    assert names(of(tmp_path, [], meta=below)) == []
    (found,) = of(tmp_path, [], meta=cpu_times(steal=(0, 2))).findings
    assert (found.name, found.lost) == ("steal", 0.02)
    assert "took 200 ms" in found.sentence
    assert "1.0% of their time; most on CPU 1, 2.0%" in found.sentence
    # Also where there are no waits to look into.
    meta = cpu_times(steal=(0, 2)) | {"histogram_only": True}
    assert names(of(tmp_path, [], meta=meta)) == ["steal"]


def test_one_busy_cpu_beside_an_idle_one(tmp_path: Path) -> None:
    waits = behind_hog(80, cpu=1) + behind_hog(20, cpu=0)
    found = {str(f.name): f for f in of(tmp_path, waits, meta=cpu_times(idle=(30, 0))).findings}
    assert list(found) == ["contention", "placement"]
    assert "80% of the time" in found["placement"].sentence
    assert "was on CPU 1, while CPU 0 was idle for 30%" in found["placement"].sentence
    assert names(of(tmp_path, waits, meta=cpu_times(idle=(29, 0)))) == ["contention"]
    assert names(of(tmp_path, waits, meta=cpu_times(idle=(0, 90)))) == ["contention"]
    even = behind_hog(79, cpu=1) + behind_hog(21, cpu=0)
    assert names(of(tmp_path, even, meta=cpu_times(idle=(30, 0)))) == ["contention"]
    # Of one CPU only all waits are on that one.
    limited = cpu_times(idle=(30, 0)) | {"filters": {"cpus": [1]}}
    assert names(of(tmp_path, waits, meta=limited)) == ["contention"]
    assert names(of(tmp_path, waits)) == ["contention"]


def test_moves_between_cpus_and_nodes(tmp_path: Path) -> None:
    run = {"wait_ns": 1000, "pid": 5}
    moved = {**run, "migrated": True, "prev_cpu": 1}
    assert names(of(tmp_path, [moved] * 2999)) == []
    assert names(of(tmp_path, [moved] * 3000 + [run] * 7001)) == []
    (found,) = of(tmp_path, [moved] * 3000 + [run] * 7000).findings
    assert found.name == "migration"
    assert "process 5 (`web`)" in found.sentence
    assert "3,000 times of 10,000, 300 a second" in found.sentence
    # CPU 1 is of the other node; a tenth of the runs is enough there.
    nodes = {"nodes": {"0": [0], "1": [1]}}
    (found,) = of(tmp_path, [moved] * 1000 + [run] * 9000, meta=nodes).findings
    assert found.name == "placement"
    assert "on another NUMA node than before 1,000 times of 10,000, 100 a second" in found.sentence
    for few in ([moved] * 1000 + [run] * 9001, [moved] * 999):
        assert names(of(tmp_path, few, meta=nodes)) == []
    # Of two CPUs of one node, and of many moves of which few are between nodes.
    within = {"nodes": {"0": [0, 1], "1": [2]}}
    assert names(of(tmp_path, [moved] * 1000 + [run] * 9000, meta=within)) == []
    far = {**moved, "prev_cpu": 2}
    (found,) = of(tmp_path, [moved] * 3000 + [far] * 1000, meta=within).findings
    assert (found.name, found.numbers["moves"]) == ("placement", 1000)
    (found,) = of(tmp_path, [moved] * 3000 + [far] * 999, meta=within).findings
    assert (found.name, found.numbers["moves"]) == ("migration", 3999)


def test_slow_wakeups_of_idle_cpus(tmp_path: Path) -> None:
    slow = {"wait_ns": 200_000, "culprit_ns": 100_000, **IDLE}
    fast = {"wait_ns": 20_000, "culprit_ns": 20_000, **IDLE}
    assert names(of(tmp_path, [slow] * 99)) == []
    assert names(of(tmp_path, [slow] * 10 + [fast] * 90)) == []
    assert names(of(tmp_path, [slow | {"wait_ns": 199_999}] * 100)) == []
    (found,) = of(tmp_path, [slow] * 11 + [fast] * 89).findings
    assert found.name == "wakeup"
    assert found.numbers["p90_ns"] == 200_000
    assert "one wakeup in ten of 100 took 200 us or more, half of them 20.0 us" in found.sentence
    # Not where somebody ran for most of the wait.
    assert names(of(tmp_path, [{**slow, "culprit_ns": 99_999}] * 100)) == []
    assert names(of(tmp_path, [{**slow, "culprit_tid": 9}] * 100)) == []


def test_blocked_by_devices(tmp_path: Path) -> None:
    row = {"kind": "blocked", "state": "D", "wait_ns": 10 * MS, "cgroup": "/db", "pid": 50}
    by_device = {**row, "waker_context": "softirq", "waker_pid": 77, "waker_comm": "any"}
    by_kernel = {**row, "waker_context": "task", "waker_pid": 8, "waker_comm": "jbd2/vda-8"}
    tasks = [{"pid": 8, "tid": 8, "comm": "jbd2/vda-8", "ppid": 2}]
    assert names(of(tmp_path, [by_device] * 99, tasks=tasks)) == []
    (found,) = of(tmp_path, [by_device] * 40 + [by_kernel] * 60, tasks=tasks).findings
    assert (found.name, found.lost) == ("io", 0.1)
    assert found.numbers == {"waited_ns": SECOND, "waits": 100, "longest_ns": 10 * MS}
    assert "(`jbd2/vda-8`)" in found.sentence
    # A parent in vfork, a move to another CPU, RCU, a kernel thread, a sleep, a short wait: no I/O
    # that anybody waits for.
    for other in (
        {**by_kernel, "waker_comm": "migration/1"},
        {**by_kernel, "waker_comm": "rcu_preempt"},
        {"waker_context": "task", "waker_pid": 51},
        {"pid": 8},
        {"state": "S"},
        {"wait_ns": MS - 1},
    ):
        assert names(of(tmp_path, [{**by_device, **other}] * 2000, tasks=tasks)) == []


def test_a_calm_machine_is_silent_and_losses_are_said(tmp_path: Path) -> None:
    frame = random_waits(31, 3000)
    frame = frame[frame["kind"].isin(("runq_wakeup", "runq_preempt", "blocked"))]
    frame["wait_ns"] = frame["wait_ns"] % 500_000
    import pyarrow as pa

    result = diagnose(
        Trace.open(make_trace(tmp_path, pa.Table.from_pandas(frame, preserve_index=False)))
    )
    assert result.findings == ()
    assert result.notes == ()
    lost = [
        {"cpu": 0, "name": "ring_full", "class": "loss", "value": 3, "start_ns": 0, "end_ns": 1}
    ]
    out = shown(make_trace(tmp_path, [{}], counters=lost))
    assert out.splitlines()[0] == "nothing is wrong, as far as this recording shows"
    assert "losses: 3 waits lost" in out


@pytest.mark.parametrize(
    "meta",
    [
        {"cpu_times": []},
        {"cpu_times": {"0": 7, "x": {"steal": 1}}},
        {"cpu_times": {"0": {"steal": -5, "idle": "all"}}},
        {"nodes": {"a": 1, "0": ["x"], "1": [None, 1]}},
        {"nodes": []},
        {"clock": None},
        {"clock": {"start_ns": 5, "end_ns": 5}},
    ],
)
def test_metadata_of_anybody_is_no_trouble(tmp_path: Path, meta: dict[str, Any]) -> None:
    result = of(tmp_path, behind_hog(60), meta=meta)
    assert names(result) in (["contention"], [])
    json.dumps(result.to_json())


def test_a_recording_without_waits_is_not_one_that_is_well(tmp_path: Path) -> None:
    assert of(tmp_path, []).notes == ("there are no waits in it",)


def test_a_minimum_latency_is_said(tmp_path: Path) -> None:
    slow = {"wait_ns": 200_000, "culprit_ns": 200_000, "migrated": True, **IDLE}
    result = of(tmp_path, [slow] * 5000, meta={"min_latency_ns": 100_000})
    assert result.findings == ()
    assert "shorter than 100 us" in result.notes[0]


def shown(path: Path, *options: str) -> str:
    result = CliRunner().invoke(command, [str(path), *options])
    assert result.exit_code == 0, result.exception
    return result.output


def test_the_command_is_safe_and_has_everything(tmp_path: Path) -> None:
    hostile = "\x1b[2J‮" + "x" * 4000
    path = make_trace(tmp_path, behind_hog(60, comm=hostile, cgroup=hostile))
    out = shown(path)
    assert out.startswith("* Contention: threads of")
    assert "\\x1b[2J\\u202exxx" in out
    assert "\x1b" not in out
    assert len(out) < 3000
    document = json.loads(shown(path, "--json"))
    assert document["findings"][0]["numbers"]["waits"] == 60
    assert document["findings"][0]["values"]["cgroup"] == [hostile]


def test_nobody_ran_for_longer_than_was_waited(tmp_path: Path) -> None:
    """As a broken recorder could write it."""
    (found,) = of(tmp_path, behind_hog(50, culprit_ns=15 * MS)).findings
    assert found.numbers["culprit_ns"] == found.numbers["waited_ns"] == 500 * MS
    assert "100% of that time `hog` of /b ran" in found.sentence
