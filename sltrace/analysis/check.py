"""Rules over a trace, each decided only as far as its losses allow (`sltrace check`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sltrace.analysis.bounds import Bounds, measure
from sltrace.analysis.losses import Losses, losses
from sltrace.analysis.meta import all_notes, limited_alike
from sltrace.analysis.rules import Rule
from sltrace.analysis.together import not_together
from sltrace.errors import UsageError

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

Verdict = Literal["pass", "fail", "unknown"]

_OF_TIME = ("per_second", "share")
"""Units of figures that are of a second, or of the whole time."""


@dataclass(frozen=True)
class Outcome:
    """A rule and what came of it.

    Attributes:
        rule: The rule.
        verdict: pass and fail only where the losses cannot change it.
        value: The figure.
        limit: What it was compared with.
        baseline: The figure of the baseline, where there is one.
    """

    rule: Rule
    verdict: Verdict
    value: Bounds
    limit: Bounds
    baseline: Bounds | None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "rule": self.rule.text,
            "verdict": self.verdict,
            "unit": self.rule.unit,
            "value": self.value.to_json(),
            "limit": self.limit.to_json(),
            "baseline": self.baseline and self.baseline.to_json(),
        }


@dataclass(frozen=True)
class Check:
    """All rules.

    Attributes:
        outcomes: In the order of the rules.
        losses: What the trace lacks.
        baseline_losses: What the baseline lacks; None without one.
        notes: What must be said beside these numbers.
    """

    outcomes: tuple[Outcome, ...]
    losses: Losses
    baseline_losses: Losses | None
    notes: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """fail if a rule failed, else unknown if one could not be decided."""
        verdicts = {o.verdict for o in self.outcomes}
        return "fail" if "fail" in verdicts else "unknown" if "unknown" in verdicts else "pass"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; times in ns."""
        return {
            "verdict": self.verdict,
            "rules": [o.to_json() for o in self.outcomes],
            "losses": self.losses.to_json(),
            "baseline_losses": self.baseline_losses and self.baseline_losses.to_json(),
            "notes": list(self.notes),
        }


def check(trace: Trace, rules: Sequence[Rule], baseline: Trace | None = None) -> Check:
    """Decides rules.

    Args:
        trace: What is checked.
        rules: In any order; each is decided by itself.
        baseline: Trace that rules with `baseline` compare with.

    Raises:
        UsageError: A rule compares with a baseline and there is none.
    """
    for rule in rules:
        if rule.factor and baseline is None:
            raise UsageError(f"{rule.text!r} needs a baseline", "add --baseline PATH")
    notes = _notes(trace, rules)
    notes += [f"baseline: {note}" for note in (_notes(baseline, rules) if baseline else ())]
    comparable = baseline is None or limited_alike(trace, baseline)
    if not comparable:
        notes.append(
            "baseline: it was not limited to the same (--pid, --cgroup, --comm, --cpu, --policy), "
            "so that nothing can be compared with it"
        )
    return Check(
        outcomes=tuple(_outcome(trace, rule, baseline, comparable) for rule in rules),
        losses=losses(trace),
        baseline_losses=losses(baseline) if baseline else None,
        notes=tuple(notes),
    )


def _notes(trace: Trace, rules: Sequence[Rule]) -> list[str]:
    apart = (not_together(trace, r.where.values) for r in rules if r.unit in _OF_TIME)
    return [*all_notes(trace), *dict.fromkeys(filter(None, apart))]


def _outcome(trace: Trace, rule: Rule, baseline: Trace | None, comparable: bool) -> Outcome:
    value = measure(trace, rule)
    before = measure(baseline, rule) if baseline else None
    limit = _limit(rule, before)
    decided = comparable or not rule.factor
    verdict = _verdict(rule, value, limit) if decided else "unknown"
    return Outcome(rule, verdict, value, limit, before)


def _limit(rule: Rule, before: Bounds | None) -> Bounds:
    if not rule.factor or before is None:
        return Bounds(rule.amount, rule.amount)
    high = None if before.high is None else before.high * rule.factor + rule.amount
    return Bounds(before.low * rule.factor + rule.amount, high, before.why)


def _verdict(rule: Rule, value: Bounds, limit: Bounds) -> Verdict:
    """Compares ranges: decided only if every value in one meets every value in the other."""
    small, large = (value, limit) if rule.operator[0] == "<" else (limit, value)
    strict = len(rule.operator) == 1
    if small.high is not None and (
        small.high < large.low or (not strict and small.high == large.low)
    ):
        return "pass"
    if large.high is not None and (large.high < small.low or (strict and large.high == small.low)):
        return "fail"
    return "unknown"
