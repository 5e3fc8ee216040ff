"""The documentation names what the code has: columns, counters, options, exit codes."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

import click

from sltrace import errors
from sltrace.analysis.selection import DIMENSIONS
from sltrace.capture.golang.runs import COUNTED
from sltrace.capture.python.rows import CLASSES as PYTHON_CLASSES
from sltrace.capture.tallies import CLASSES
from sltrace.cli.main import _COMMANDS, cli
from sltrace.trace.schema import TABLES, VERSION

DOCS = Path(__file__).parents[2] / "docs"
START, END = "<!-- tables: written by tests/pure/test_docs.py -->", "<!-- end of tables -->"


def rendered() -> str:
    lines = [START]
    for table, columns in TABLES.items():
        lines += ["", f"### `{table}`", "", "| column | type | meaning |", "|---|---|---|"]
        lines += [f"| `{c.name}` | {c.type} | {c.doc} |" for c in columns]
    return "\n".join([*lines, "", END])


def test_schema_document_is_the_schema() -> None:
    file = DOCS / "schema.md"
    text = file.read_text()
    present = text[text.index(START) : text.index(END) + len(END)]
    if os.environ.get("SLTRACE_UPDATE_DOCS"):
        file.write_text(text.replace(present, rendered()))
        return
    assert present == rendered(), "run the test with SLTRACE_UPDATE_DOCS=1 and read the change"


def test_schema_document_names_the_version() -> None:
    assert f"Version {VERSION[0]}.{VERSION[1]}" in (DOCS / "schema.md").read_text()


def test_every_counter_is_explained_with_its_class() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", (DOCS / "measured.md").read_text(), re.M)
    assert dict(rows) == CLASSES


def test_every_counter_of_the_python_probes_is_explained_with_its_class() -> None:
    rows = re.findall(r"^\| `(python_\w+)` \| (\w+) \|", (DOCS / "python.md").read_text(), re.M)
    assert dict(rows) == PYTHON_CLASSES


def commands() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(cli)
    for name in _COMMANDS:
        if importlib.util.find_spec(f"sltrace.cli.{name}"):
            found = cli.get_command(context, name)
            assert found
            yield name, found


def test_every_command_and_option_is_in_the_manual() -> None:
    manual = (DOCS / "cli.md").read_text()
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", manual, re.MULTILINE | re.DOTALL))
    selecting = manual.partition("\n## Selecting waits\n")[2].partition("\n## ")[0]
    missing = []
    for name, command in commands():
        text = sections.get(name, "")
        if "(#selecting-waits)" in text:
            text += selecting
        options = {o for p in command.params if isinstance(p, click.Option) for o in p.opts}
        missing += [f"{name} {o}" for o in sorted(options) if f"`{o}`" not in text]
        missing += [] if text else [name]
    assert missing == []


def test_the_manual_names_no_option_that_is_not_there() -> None:
    manual = (DOCS / "cli.md").read_text()
    strange = []
    for name, command in commands():
        section = manual.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        rows = re.findall(r"^\| (`-[^|]+)\|", section, re.MULTILINE)
        named = {o for row in rows for o in re.findall(r"`(--?[\w-]+)", row)}
        options = [p for p in command.params if isinstance(p, click.Option)]
        strange += [
            f"{name} {o}"
            for o in named - {o for p in options for o in (*p.opts, *p.secondary_opts)}
        ]
    assert strange == []


def test_every_counter_of_the_go_probes_is_explained() -> None:
    counters = re.findall(
        r"^\t(GO_\w+),", (DOCS / "../probes/go.h").read_text().partition("enum go_counter")[2], re.M
    )
    rows = re.findall(r"^\| (`go_.+?) \|", (DOCS / "go.md").read_text(), re.M)
    known = {c.lower() for c in counters[:-1]} | {name for name, _, _ in COUNTED.values()}
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == known


def test_every_exit_code_is_in_the_manual() -> None:
    manual = (DOCS / "cli.md").read_text()
    codes = {int(c) for c in re.findall(r"^\| (\d+) \|", manual, re.MULTILINE)}
    raised = {
        value.exit_code
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.SltraceError)
    }
    assert raised <= codes


def test_every_dimension_is_in_the_manual() -> None:
    (row,) = re.findall(
        r"^\| `--by` DIM\[,DIM\.\.\.\] \|.*`policy`.*$", (DOCS / "cli.md").read_text(), re.M
    )
    assert re.findall(r"`(\w+)`", row) == list(DIMENSIONS)
