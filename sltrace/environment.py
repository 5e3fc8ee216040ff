"""Environment variables that libraries read when they are loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def while_loading(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets variables, and then has them as before: they are not for the command that is recorded.

    Args:
        variables: Values by name.
    """
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
