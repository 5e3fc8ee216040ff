"""`sltrace doctor`: what will work on this machine, before anything is recorded."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

_MARKS = {"ok": ("ok", "green"), "limited": ("limited", "yellow"), "missing": ("MISSING", "red")}


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def command(as_json: bool) -> None:
    """Check what recording needs; exit code 3 if it cannot work here."""
    from sltrace.capture.checkup import examine

    checks = examine()
    missing = [c.subject for c in checks if c.state == "missing"]
    if as_json:
        click.echo(
            json.dumps({"can_record": not missing, "checks": [asdict(c) for c in checks]}, indent=1)
        )
    else:
        for check in checks:
            mark, colour = _MARKS[check.state]
            click.echo(f"{click.style(f'{mark:>8}', fg=colour)}  {check.subject}: {check.text}")
            if check.advice:
                click.echo(f"{'':>8}  -> {check.advice}")
        click.echo(f"\n{_verdict(missing)}")
    sys.exit(3 if missing else 0)


def _verdict(missing: list[str]) -> str:
    # Without root not all is checked: what is not found missing may be missing all the same.
    if missing == ["privileges"]:
        return "Recording needs root; `sudo sltrace doctor` tells the rest."
    return f"sudo sltrace record will {'NOT ' if missing else ''}work here."
