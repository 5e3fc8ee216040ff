"""Puts a page together: one HTML file that needs nothing else, ever.

Its content security policy names the hash of each script in it and allows no connection, so a name
from a trace that found a way into the markup would still not run, and could not tell anyone.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heatmaps.encode import ColumnBlock, embedded_json

_HERE = Path(__file__).parent
_ASSETS = _HERE / "assets"


def assemble(
    body: str, scripts: Sequence[str], title: str, data: dict[str, Any], block: ColumnBlock
) -> bytes:
    """Makes the file.

    Args:
        body: Name of the asset that is its body.
        scripts: Names of assets, or paths below this folder, in the order of their dependence.
        title: Of the window.
        data: For the scripts, as plain JSON values.
        block: Its columns.
    """
    code = [(_HERE / s if "/" in s else _ASSETS / s).read_text(encoding="utf-8") for s in scripts]
    page = (_ASSETS / "shell.html").read_text(encoding="utf-8")
    for mark, content in (
        ("title", html.escape(title)),
        ("policy", _policy(code)),
        ("style", (_ASSETS / "page.css").read_text(encoding="utf-8")),
        ("body", (_ASSETS / body).read_text(encoding="utf-8")),
        ("data", embedded_json({**data, "columns": block.directory})),
        ("columns", block.text()),
        ("scripts", "\n".join(f"<script>{script}</script>" for script in code)),
    ):
        # Split at the mark, not str.replace: content may hold a later mark's text.
        before, after = page.split(f"<!--{mark}-->")
        page = before + content + after
    return page.encode("utf-8", "backslashreplace")


def _policy(scripts: list[str]) -> str:
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'"
        for s in scripts
    )
    # Plotly writes style elements and attributes, and makes its PNG download from data: and blob:.
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; connect-src 'none'; base-uri 'none'; form-action 'none'"
    )
