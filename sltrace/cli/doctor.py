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

    findings = examine()
    fatal = any(f.state == "missing" for f in findings)
    if as_json:
        click.echo(
            json.dumps({"can_record": not fatal, "checks": [asdict(f) for f in findings]}, indent=1)
        )
    else:
        for finding in findings:
            mark, colour = _MARKS[finding.state]
            click.echo(f"{click.style(f'{mark:>8}', fg=colour)}  {finding.subject}: {finding.text}")
            if finding.advice:
                click.echo(f"{'':>8}  -> {finding.advice}")
        click.echo("\nsudo sltrace record will " + ("NOT work here." if fatal else "work here."))
    sys.exit(3 if fatal else 0)
