"""Names of files and folders as arguments and options."""

from __future__ import annotations

import os
from pathlib import Path

import click


class _File(click.Path):
    """A file or folder, which need not be there: what opens it says in its own words what is wrong.

    An empty one is what a script hands over whose variable is not set: never as if it were not
    there.
    """

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str | bytes | os.PathLike[str]:
        if not os.fspath(value):
            self.fail("an empty name names no file", param, ctx)
        return super().convert(value, param, ctx)


FILE = _File(readable=False)
PATH = _File(readable=False, path_type=Path)
