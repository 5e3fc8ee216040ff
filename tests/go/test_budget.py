"""Probes that are on part of the time: within what they may cost, and whole while they are on."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sltrace.analysis.golang.health import windows
from sltrace.capture.golang.budget import Account
from sltrace.target.go.histograms import LATENCIES
from sltrace.trace.reader import Trace
from tests.support.golang import witness
from tests.support.gorecords import bucketed, counters_of, difference
from tests.support.recorder import recorder

CHANGE_NS = 1_000_000
LENT = 0.005
"""Of 20 s of a tenth of a CPU, what is lent at first."""


@pytest.mark.parametrize("cpus", [0.1, 1.0, 16.0])
@pytest.mark.parametrize("cost", [0.01, 0.09, 0.5, 4.0])
def test_what_is_spent_is_a_share_of_what_is_used(cpus: float, cost: float) -> None:
    """Of whatever load: and nearly all of it, where more is wanted.

    Args:
        cpus: That the process uses by itself.
        cost: Of its probes while they are on, in times of that.
    """
    share, seconds = 0.03, 20.0
    account = Account(share, 0.0, random.Random(1), on=True)
    now, used, spent, looked, was_on, changes = 0.0, 0.0, 0.0, 0.0, True, []
    while now < seconds:
        step = max(account.next_s - now, 0.0005)
        now += step
        used += cpus * step * 1e9
        spent += cost * cpus * step * 1e9 * was_on
        looked += step * was_on
        if account.ask(now, round(used + spent), round(spent)) != was_on:
            was_on, spent = account.on, spent + CHANGE_NS
            changes.append(now)
    assert spent <= (share + LENT) * used
    if cost < share:
        assert not changes
        return
    assert spent >= (0.6 if cpus < 1 else 0.9) * share * used
    assert 0.5 * share / cost < looked / seconds < 1.1 * share / cost
    # It goes in step with nothing.
    assert np.std(np.diff(changes[1::2])) > 0.1


def on_times(trace: Trace) -> list[tuple[int, int]]:
    """From when to when the probes of the one process were on."""
    rows = trace.sql(
        "SELECT ns, value FROM gauges WHERE name = 'probes_on' ORDER BY ns"
    ).to_pylist()
    assert [row["value"] for row in rows] == [1.0, 0.0] * (len(rows) // 2)
    return [(a["ns"], b["ns"]) for a, b in zip(rows[::2], rows[1::2], strict=True)]


def lateness(trace: Trace) -> Callable[[int], int]:
    """How long before a moment, or after, what a thread was about then may be: in ns."""
    rows = trace.sql("SELECT end_ns, wait_ns FROM waits WHERE kind = 'runq_preempt'").to_pydict()
    ends, lengths = np.array(rows["end_ns"], int), np.array(rows["wait_ns"], int)

    def late(at_ns: int) -> int:
        without_cpu = lengths[(ends - lengths <= at_ns) & (at_ns <= ends)]
        return 10_000_000 + int(without_cpu.max(initial=0))

    return late


def switches_ns(go: dict[str, Any]) -> float:
    """What level 0 took of the processes."""
    return float(go["counters"]["go_switches"] * go["program_ns"]["go_switch"])


@pytest.mark.bpf
@pytest.mark.alone
def test_probes_stay_within_their_budget(tmp_path: Path) -> None:
    """While they are on every wait is there, as the runtime counts them itself; else none is.

    The program is asked for its histogram all the time: what it counted between the first and the
    last answer within a time in which the probes were on lies between the waits of the shorter and
    of the longer time between question and answer. The probe stands before the runtime's counting,
    and on the way back from it a thread may lose its CPU.
    """
    with witness() as running:
        options = ("--pid", running.pid, "--go-budget", 5, "--go-level", 2)
        with recorder(tmp_path / "b.slt", *options) as recording:
            running.ask("chatter 3000")
            asked = []
            # Some four times for which the probes are on, of 50 ms and more each.
            until = time.monotonic() + 5
            while time.monotonic() < until:
                begin = time.monotonic_ns()
                counts = running.ask("metrics")
                asked.append((begin, time.monotonic_ns(), counts))
        trace = recording.trace
    counts = counters_of(trace)
    assert counts["go_ring_full"] == counts["go_scratch_full"] == counts["go_strange"] == 0
    waits = trace.sql(
        "SELECT end_ns, wait_ns FROM waits WHERE kind = 'goroutine' ORDER BY end_ns"
    ).to_pydict()
    late = lateness(trace)
    ends, lengths = np.array(waits["end_ns"]), np.array(waits["wait_ns"])
    on = on_times(trace)
    # That they were tried before is no look: nobody read what they told.
    assert on[0][0] >= trace.meta["clock"]["start_ns"]
    compared = 0
    for since, until_ns in on:
        within = [a for a in asked if since <= a[0] - late(a[0]) and a[1] <= until_ns]
        if len(within) < 2:
            continue
        (first, known, before), (last, answered, after) = within[0], within[-1]
        inner = bucketed(lengths[(ends > known) & (ends < last - late(last))])
        outer = bucketed(lengths[(ends >= first - late(first)) & (ends <= answered)])
        outer[0] += counts["go_zeros"]
        told = difference(after, before, LATENCIES)
        assert (np.array(inner) <= told).all(), (inner, told)
        assert (told <= np.array(outer)).all(), (told, outer)
        compared += sum(inner)
    assert compared > 1000
    # A hit that was under way is told a moment later, or when its thread has its CPU again.
    looked = np.zeros(len(ends), bool)
    for since, until_ns in on:
        looked |= (ends >= since) & (ends <= until_ns + late(until_ns))
    assert (~looked).sum() <= 2 * len(on)
    go = trace.meta["sources"]["go"]
    (process,) = go["processes"]
    own = process["cpu_ns"] - process["spent_ns"]
    # And one look more: it is over only when it has cost too much.
    assert process["spent_ns"] <= 0.05 * own + 20_000_000
    assert process["spent_ns"] >= go["probe_ns"] - switches_ns(go)
    # Parked while nobody looked: no time is made up for those.
    assert counts["go_unstamped"] > 0 or len(on) <= 2
    longest = max(b - a for a, b in on)
    blocked = trace.sql("SELECT max(wait_ns) AS ns FROM waits WHERE kind = 'goroutine_blocked'")
    assert blocked["ns"][0].as_py() <= longest
    assert 0 < process["looked"] < 0.6
    (window,) = windows(trace, 3600 * 10**9)
    assert window.looked == pytest.approx(process["looked"], abs=0.05)
