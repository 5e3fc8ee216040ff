"""What `sltrace record` says at its end."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sltrace.analysis.meta import clock_ns
from sltrace.analysis.selection import EVERYTHING, Selection
from sltrace.cli import output
from sltrace.model import RUNQ
from sltrace.plural import counted
from sltrace.trace.notes import named_process

if TYPE_CHECKING:
    from sltrace.analysis.latency import Stat
    from sltrace.trace.reader import Trace

_SHOWN = 8
"""Go processes: of a machine there may be hundreds."""
_NAMES = 40
_MANY = 4_000_000
"""Waits: to sort so many takes 100 MB for a moment, and 360 million 2 GB (measured)."""
_LABEL = 21
"""Columns before what is said."""
_UNIT = re.compile(r"(?<=\d) (?=(?:ns|us|ms|s)\b)")


def print_summary(path: Path, reason: str) -> None:
    """The recording in a few lines, and what to type next."""
    from sltrace.analysis.blame import top_culprit
    from sltrace.analysis.latency import stat
    from sltrace.analysis.meta import filter_notes
    from sltrace.trace.reader import Trace

    trace = Trace.open(path)
    last = _last_of_many(trace)
    whole = stat(trace, ["cgroup"], limit=1, coarse=last != EVERYTHING)
    clock = trace.meta["clock"]
    seconds = (clock["end_ns"] - clock["start_ns"]) / 1e9
    click.echo(f"{path}: {seconds:.1f} s recorded, {reason}")
    if RUNQ in whole.totals:
        figures = whole.totals[RUNQ]
        values = [output.between(r) for r in (*figures.quantiles, figures.longest)]
        names = ("p50", "p90", "p99", "p99.9", "max")
        figures_said = "  ".join(
            f"{n}\N{NO-BREAK SPACE}{v}" for n, v in zip(names, values, strict=True)
        )
        _say("run-queue latency", f"{counted(figures.count, 'wait')}: {figures_said}")
        _say("worst cgroup", _worst(whole))
    else:
        click.echo("  no waits")
    if not trace.meta["histogram_only"]:
        _say("top culprit", _culprit(top_culprit(trace, last)) + _of(trace, last))
    _say("losses", whole.losses.sentence)
    _say("overhead", _overhead(trace))
    _go(trace)
    _not_looked_into(trace)
    _profiles(trace)
    # Who asked for a part need not be told.
    asked = filter_notes(trace)
    for note in whole.notes:
        if note not in asked:
            click.echo(f"  note: {output.text(note)}")
    click.echo(f"next: sltrace report {click.format_filename(path)}")


def _say(label: str, said: str) -> None:
    """A line, or more in a narrow terminal; no number is parted from its unit or name."""
    lines = textwrap.fill(
        _UNIT.sub("\N{NO-BREAK SPACE}", said),
        output.terminal_width(),
        initial_indent=f"  {label}".ljust(_LABEL),
        subsequent_indent=" " * _LABEL,
        break_long_words=False,
        break_on_hyphens=False,
    )
    click.echo(lines.replace("\N{NO-BREAK SPACE}", " "))


def _go(trace: Trace) -> None:
    """What was recorded of Go processes, and what that cost them."""
    source = trace.meta.get("sources", {}).get("go")
    if not source or not source.get("processes"):
        return
    # First those of which there is something to say.
    processes = sorted(source["processes"], key=lambda process: not process["why"])
    for process in processes[:_SHOWN]:
        level = "nothing" if process["level"] is None else f"level {process['level']}"
        why = f": {process['why']}" if process["why"] else ""
        said = output.text(f"{process['version']}, {level}{why}")
        _say("go", f"process {named_process(process, processes)}, {said}")
    if (more := len(processes) - _SHOWN) > 0:
        _say("go", f"{more:,} more, which sltrace go lists")
    wall = trace.meta["overhead"]["wall_ns"] or 1
    lost = source["counters"].get("go_ring_full", 0)
    # Level 0 has none in the processes, only what sees the switches.
    hit = f": {source['hit_ns']:.0f} ns a hit and its program" if source["hit_ns"] else ""
    _say(
        "go overhead",
        f"probes {source['probe_ns'] / wall:.2%} of a CPU (estimate{hit}), sampler "
        f"{source['sampler_cpu_ns'] / wall:.2%}; {counted(lost, 'wait')} lost",
    )


def _not_looked_into(trace: Trace) -> None:
    """Sources that the kernel refused."""
    for name, source in trace.meta.get("sources", {}).items():
        if isinstance(why := source.get("refused"), str) and why:
            _say(name, f"not looked into: {output.text(why)}")


def _profiles(trace: Trace) -> None:
    """What profiles were taken in, and what was refused."""
    source = trace.meta.get("sources", {}).get("profiles")
    if not source:
        return
    taken = sum(source["received"].values())
    _say("profiles", f"{taken:,} taken in, {source['bytes'] / 1e6:.1f} MB")
    for why, count in source["refused"].items():
        _say("profiles refused", f"{count:,}: {output.text(why)}")


def _worst(whole: Stat) -> str:
    if not whole.groups:
        return "none"
    worst = whole.groups[0]
    name = output.shorten(output.text(worst.keys[0]), _NAMES)
    p99 = output.between(worst.quantiles[2])
    return f"{name}: {output.duration(worst.total_ns)} waited, p99 {p99}"


def _last_of_many(trace: Trace) -> Selection:
    """All waits, or of more than can be looked at in little memory, the last."""
    (row,) = trace.sql("SELECT count(*) AS waits FROM waits").to_pylist()
    if row["waits"] <= _MANY:
        return EVERYTHING
    start_ns, end_ns = (clock_ns(trace, name) for name in ("start_ns", "end_ns"))
    return Selection(start_ns=end_ns - (end_ns - start_ns) * _MANY // row["waits"])


def _of(trace: Trace, last: Selection) -> str:
    if last.start_ns is None:
        return ""
    return f" (in the last {output.duration(clock_ns(trace, 'end_ns') - last.start_ns)})"


def _culprit(found: tuple[str | None, int] | None) -> str:
    if not found:
        return "none"
    name, ran_ns = found
    return f"{output.text(name)}: others waited {output.duration(ran_ns)} while it ran"


def _overhead(trace: Trace) -> str:
    used = trace.meta["overhead"]
    wall = used["wall_ns"] or 1
    each, least = f"{used['probe_ns_per_switch']:.0f} ns a switch", used.get("probe_ns_at_least")
    if kept := used.get("probe_ns_per_kept"):
        each += f" that is left out, {kept:.0f} ns one that is kept"
    elif least:
        each += " that is left out"
    probes = (
        f"{'at least ' * bool(least)}{used['probe_ns'] / wall:.2%} of a CPU (estimate: {each})"
        if used["probe_ns_per_switch"]
        else "unknown (no BPF statistics here)"
    )
    return f"probes {probes}, recorder\N{NO-BREAK SPACE}{used['recorder_cpu_ns'] / wall:.2%}"
