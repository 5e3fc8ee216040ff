"""The documentation names what the code has: columns, counters, exit codes."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sltrace.capture.python.rows import CLASSES as PYTHON_CLASSES
from sltrace.capture.tallies import CLASSES
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
